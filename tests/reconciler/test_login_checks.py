"""Sources of doubtful shards are asked once for each leader and dataset, and never waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from cdc_platform.clients.platform import Platform
from cdc_platform.errors import SecretUnresolved, SourceRejected, SourceUnavailable
from cdc_platform.model.observed import ObservedState, ObservedWorker
from cdc_platform.model.topology import Dataset, Shard
from cdc_platform.planning.health.liveness import LivenessPolicy
from cdc_platform.reconciler import login_checks as logins
from cdc_platform.reconciler.login_checks import ask_sources
from tests.planning.worlds import config_of, connector, dataset, picture, topology
from tests.reconciler.harness import Harness

POLICY = LivenessPolicy()


@dataclass
class Servers:
    """What each server says to a login: nothing, an error, or nothing ever (until the event)."""

    answers: Mapping[str, Exception | threading.Event] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def check(self, dataset: Dataset, shard: Shard) -> None:
        self.asked.append((dataset.name, shard.leader.host))
        answer = self.answers.get(shard.leader.host)
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            answer.wait(60)


def platform(servers: Servers | None) -> Platform:
    return replace(Harness("main").control_plane(), sources=servers)  # type: ignore[arg-type]


def seen(streaming: frozenset[str] = frozenset(), *, task: str = "RUNNING") -> ObservedState:
    """Six shards of each of two datasets, by turns on db-0, db-1 and db-2."""
    ideal = topology([(dataset("pins"), 6), (dataset("boards"), 6)])
    held = {
        s.name: connector(s.name, config_of(d, s, ideal.clusters["main"]), task=task) for d, s in ideal.all_shards()
    }
    worker = ObservedWorker(worker="w0:8083", streaming=streaming)
    return replace(picture(ideal, {"main": held}), workers={"w0:8083": worker})


def test_one_login_a_leader_and_dataset_answers_for_all_its_shards() -> None:
    refused = SourceRejected("the source refused: Access denied for user 'cdc'.", where="shard pins.00001")
    servers = Servers({"db-1": refused})
    said = ask_sources(platform(servers), seen(frozenset({"pins.00000", "pins.00003"})), POLICY)
    hosts = ("db-0", "db-1", "db-2")
    assert sorted(servers.asked) == sorted([("boards", h) for h in hosts] + [("pins", h) for h in hosts[1:]])
    assert {name for name, text in said.items() if text} == {"pins.00001", "pins.00004", "boards.00001", "boards.00004"}
    assert said["pins.00001"] == "the source refused: Access denied for user 'cdc'."
    assert "pins.00000" not in said
    assert said["pins.00002"] is None


def test_nobody_is_asked_who_streams_or_does_not_run() -> None:
    servers = Servers()
    everybody = frozenset(s.name for _, s in seen().topology.all_shards())
    assert ask_sources(platform(servers), seen(everybody), POLICY) == {}
    assert ask_sources(platform(servers), seen(task="FAILED"), POLICY) == {}
    assert ask_sources(platform(None), seen(), POLICY) == {}
    assert servers.asked == []


@pytest.mark.parametrize("error", [SourceUnavailable("away."), SecretUnresolved("no such file.")])
def test_who_does_not_answer_or_cannot_be_asked_is_unknown(error: Exception) -> None:
    said = ask_sources(platform(Servers({"db-0": error})), seen(), POLICY)
    assert said == dict.fromkeys(said)
    assert not said.keys() & {"pins.00000", "pins.00003", "boards.00000", "boards.00003"}
    assert len(said) == 8


def test_servers_that_hang_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "_SECONDS", 0.5)
    never = threading.Event()
    begun = time.monotonic()
    try:
        said = ask_sources(platform(Servers({"db-2": never})), seen(), POLICY)
    finally:
        never.set()
    assert time.monotonic() - begun < 30
    assert len(said) == 8
    assert "pins.00002" not in said
