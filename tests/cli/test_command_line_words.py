"""What `status`, `plan` and `apply` say, by fakes: ages first, no cap called measured, no work that was not done."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
from click.testing import CliRunner, Result

from cdc_platform.cli.main import main
from cdc_platform.clients.sources.logs import SourceLogs
from cdc_platform.errors import SourceUnavailable
from cdc_platform.model.topology import Dataset, Shard
from cdc_platform.reconciler import last_pass
from cdc_platform.reconciler.login_checks import ask_leaders
from cdc_platform.reconciler.report import DatasetHealth, ShardDown
from cdc_platform.settings import Settings
from cdc_platform.testing import FakeKafka
from tests.defs.harness import Harness, topology


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Harness:
    harness = Harness(settings=Settings())
    harness.put(topology(pins=2, orders=0))
    for module in ("status", "plan_and_apply"):
        monkeypatch.setattr(f"cdc_platform.cli.{module}.open_platform", lambda settings: harness.platform())
    return harness


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


@pytest.mark.parametrize(
    ("age", "said", "overdue"),
    [
        (timedelta(seconds=20), "Last pass: 20 s ago", False),
        (timedelta(minutes=9), "Last pass: 9 min ago", False),
        (timedelta(minutes=25), "Last pass: 25 min ago", True),
        (timedelta(seconds=-30), "Last pass: 0 s ago", False),
    ],
)
def test_status_says_first_how_old_the_last_pass_is(harness: Harness, age: timedelta, said: str, overdue: bool) -> None:
    with harness.platform() as platform:
        platform.state.claim(1)
        platform.state.write({last_pass.KEY: {"at": (datetime.now(UTC) - age).isoformat(), "generation": 1}})
    first = run("status").output.splitlines()[0]
    assert first.startswith(said) and ("so it does not run" in first) is overdue
    assert json.loads(run("status", "--json").output)["last_pass"]["overdue"] is overdue


def test_the_first_pass_is_number_1_and_says_what_comes_next(harness: Harness) -> None:
    done = run("apply")
    assert "Pass 1: " in done.output and "Next: `cdc-platform bootstrap pins`" in done.output
    assert json.loads(run("apply", "--json").output)["number"] == 2


def test_new_topics_that_want_more_replicas_than_brokers_are_refused_before_anything_is_made(harness: Harness) -> None:
    harness.kafka = FakeKafka(brokers=1)
    plan = run("plan")
    assert plan.exit_code == 1 and "create" not in plan.output
    assert "replication 3 needs as many brokers, and 1 answered" in plan.output and "topics.replication" in plan.output
    assert run("apply").exit_code == 1 and harness.kafka.writes == []


def test_topics_that_could_not_be_made_are_counted_and_have_their_own_reason(harness: Harness) -> None:
    found = topology(pins=2, orders=0)
    pins = found.datasets["pins"]
    spec = replace(pins.topics, config={"retention.ms": "soon"})
    harness.put(replace(found, datasets={**found.datasets, "pins": replace(pins, topics=spec)}))
    done = run("apply")
    assert "topics created, 2 could not be." in done.stderr, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("Create topic cdc.pins.pins "))
    assert "invalid value soon" in line and "cdc.pins.boards" not in line


def test_workers_without_an_agent_are_named(harness: Harness) -> None:
    assert "cluster main: no agent answers beside http://127.0.0.1:8083" in run("plan").output
    assert "cluster main: no agent answers beside http://127.0.0.1:8083" in run("status").output


def test_shards_may_be_several_and_must_exist(harness: Harness) -> None:
    assert [each["shard"] for each in json.loads(run("status", "pins", "0-1", "--json").output)["shards"]] == [
        "pins.00000",
        "pins.00001",
    ]
    assert json.loads(run("status", "pins", "1", "--json").output)["shard"] == "pins.00001"
    refused = run("status", "pins", "0-2")
    assert refused.exit_code == 1 and "no shard '00002'" in refused.stderr


class _Away:
    """A source whose leader takes no connections."""

    def check(self, dataset: Dataset, shard: Shard) -> None:
        raise SourceUnavailable("does not accept connections.", where=str(shard.leader))


def test_the_database_of_a_shard_that_is_down_is_asked(harness: Harness) -> None:
    down = ShardDown(shard="pins.00001", state="FAILED", reason="Connect says FAILED")
    health = {"pins": DatasetHealth(dataset="pins", shards=2, up=1, down=(down,))}
    with harness.platform() as platform:
        told = ask_leaders(replace(platform, sources=cast(SourceLogs, _Away())), platform.topology.load(), health)
    assert told["pins"].down[0].reason.startswith("Connect says FAILED; its database, asked now: db-1:3306")
