"""`cdc-platform report`: one page that shows the fleet, and can do nothing else."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cdc_platform.cli.main import main
from cdc_platform.planning.health.heat_map import CellState
from cdc_platform.reconciler.report import DatasetHealth, ShardDown
from cdc_platform.settings import Settings
from cdc_platform.verification.audit_frame import AuditFrame
from cdc_platform.verification.fleet_page import DatasetPage, Fleet, page
from cdc_platform.verification.proof.verdicts import ShardVerdict, Verdict
from tests.defs.harness import Harness, topology

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EVIL = "</td><script>alert(1)</script><img src=http://evil.example/x onerror=alert(1)>\u202e'\""


class _Page(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, "elements are nested"

    def handle_data(self, data: str) -> None:
        self.text += data


def verdict(kind: Verdict, reason: str = "") -> ShardVerdict:
    return ShardVerdict(
        dataset="pins", table="pins", shard="00000", verdict=kind, reason=reason, run_id="r", checked_at=NOW,
        topic="cdc.pins.pins", source="db:3306", source_rows=1234,
    )  # fmt: skip


def fleet(**changes: object) -> Fleet:
    down = ShardDown(shard="pins.00001", state="FAILED", reason=EVIL)
    one = DatasetPage(
        health=DatasetHealth(dataset="pins", shards=2, up=1, down=(down,)),
        cells={"00000": CellState.PROVEN, "00001": CellState.DOWN},
        verdicts={"pins": (verdict(Verdict.MISMATCHED, EVIL),)},
        bootstrap=EVIL,
    )
    given: dict[str, object] = {"platform": "cdc", "at": NOW, "passes": EVIL, "plan": EVIL, "datasets": {"pins": one}}
    given |= {"incidents": [(EVIL, EVIL)], "refusals": [(EVIL, EVIL)], "findings": [(EVIL, EVIL)]}
    return Fleet(**(given | {"clusters": {EVIL: EVIL}} | changes))  # type: ignore[arg-type]


def test_text_of_others_is_text_and_nothing_is_loaded() -> None:
    found = _Page(page(fleet()))
    assert {tag for tag, _ in found.elements} <= {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "table", "tr", "th", "td", "img",
    }  # fmt: skip
    assert not found.open
    for _, attributes in found.elements:
        assert not {name for name in attributes if name.startswith("on") or name == "style"}
        assert (attributes.get("src") or "data:image/svg+xml;base64,").startswith("data:image/svg+xml;base64,")
        assert "href" not in attributes
    assert found.text.count("<script>alert(1)</script>") >= 8, "it is shown as it is"
    assert "\u202e" not in found.text


def test_the_policy_permits_its_own_style_and_images_only() -> None:
    text = page(fleet())
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy and policy[1].startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy[1]
    assert text.index("Content-Security-Policy") < text.index("<style>")


def test_it_says_what_is_wrong_first() -> None:
    found = _Page(page(fleet())).text
    assert "1 of 2 shards up. Newest verdicts: 1 mismatched." in found and "1,234" in found
    assert not fleet().well
    good = DatasetPage(
        health=DatasetHealth(dataset="pins", shards=1, up=1, down=()),
        cells={"00000": CellState.PROVEN},
        verdicts={"pins": (verdict(Verdict.PROVEN),)},
    )
    assert fleet(datasets={"pins": good}).well
    paused = DatasetHealth(dataset="main", shards=2, up=1, down=())
    assert not fleet(datasets={"pins": good}, watched={"main": paused}).well


def test_a_large_fleet_is_a_small_page() -> None:
    down = tuple(ShardDown(shard=f"pins.{n:05}", state="FAILED", reason="refused") for n in range(10_000))
    one = DatasetPage(
        health=DatasetHealth(dataset="pins", shards=10_000, up=0, down=down),
        cells={f"{n:05}": CellState.DOWN for n in range(10_000)},
        verdicts={},
    )
    text = page(fleet(datasets={"pins": one}))
    assert len(text) < 100_000 and "and 9800 more" in text


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Harness:
    harness = Harness(settings=Settings(audit_dir=str(tmp_path / "audit")))
    harness.put(topology(pins=1, orders=0))
    monkeypatch.setattr("cdc_platform.cli.report.open_platform", lambda settings: harness.platform())
    return harness


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["report", *arguments], catch_exceptions=False)


def test_the_command_writes_it(harness: Harness, tmp_path: Path) -> None:
    table = topology(pins=1, orders=0).datasets["pins"].tables[0].name
    AuditFrame(harness.settings.audit_dir).write([replace(verdict(Verdict.PROVEN), table=table)])
    done = run("--out", str(tmp_path / "r.html"))
    assert done.exit_code == 2 and "something is not up" in done.stdout, "its shard has no connector"
    text = (tmp_path / "r.html").read_text()
    assert "pins: 0 of 1 shards up" in text and "1 proven" in text and "No pass has been made yet" in text


def test_a_directory_that_is_not_there_is_named_before_anything_is_asked(harness: Harness, tmp_path: Path) -> None:
    refused = run("--out", str(tmp_path / "no" / "r.html"))
    assert refused.exit_code == 64 and "is not a directory" in refused.stderr and harness.opened == 0
