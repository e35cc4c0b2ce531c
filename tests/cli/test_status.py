"""`cdc-platform status`: what on-call reads of platform, dataset and shard."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner, Result

from cdc_platform.cli.main import main
from cdc_platform.model.topology import BootstrapMode
from cdc_platform.settings import Settings
from cdc_platform.snapshots.run_records import Hole, Watermark
from tests.defs.harness import Harness, topology

SINCE = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


def mark(shard: str, **more: object) -> Watermark:
    fields = {"dataset": "pins", "table": "pins", "shard": shard, "mode": BootstrapMode.INCREMENTAL, "run": "r7"}
    return Watermark(**(fields | {"position": "0-1-5", "offset": {}, "since": SINCE} | more))  # type: ignore[arg-type]


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Harness:
    harness = Harness(settings=Settings())
    harness.put(topology(pins=2, orders=0))
    with harness.platform() as platform:
        marks = (
            mark("00000", complete=SINCE, rows=1234),
            mark("00001", hole=Hole(since="0-1-2", until="0-1-5")),
        )
        platform.state.claim(1)
        platform.state.write({found.key: found.document() for found in marks})
    monkeypatch.setattr("cdc_platform.cli.status.open_platform", lambda settings: harness.platform())
    return harness


def status(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["status", *arguments], catch_exceptions=False)


def test_status_of_the_platform_says_what_is_bootstrapped(harness: Harness) -> None:
    text = status().output
    assert "bootstrap of pins: pins: 2 of 2 shards bootstrapped, 1 whole, 1 with a hole; boards: 0 of 2" in text
    found = json.loads(status("--json").output)
    assert found["datasets"]["pins"]["bootstrap"]["tables"]["pins"]["rows"] == 1234


def test_status_of_a_shard_tells_its_watermark_and_its_hole(harness: Harness) -> None:
    whole = status("pins", "00000").output
    assert "No pass has been made yet" in whole.splitlines()[0]
    assert "table pins: its rows come from a bootstrap by mode incremental (run r7, 2026-05-04 03:02:01Z)" in whole
    assert "whole since" in whole and "1,234 rows read" in whole
    assert "table boards: no bootstrap on record" in whole
    assert "no stream saw the changes from 0-1-2 to 0-1-5" in status("pins", "00001").output
    found = json.loads(status("pins", "00001", "--json").output)
    assert found["bootstrap"]["pins"]["hole"] == {"since": "0-1-2", "until": "0-1-5"}


def test_status_of_an_unknown_shard_is_one_error(harness: Harness) -> None:
    refused = status("pins", "99999")
    assert refused.exit_code == 1
    assert "99999" in refused.output and "Cure: " in refused.output
