"""Garbage in any one znode, and in any one answer of Connect: a pass ends well, and what is healthy stays as it is.

CDC_TEST_GARBAGE=1000 tries so many.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdc_platform.cli.main import main
from cdc_platform.clients.connect.client import ConnectClient
from cdc_platform.clients.platform import Platform
from cdc_platform.model.observed import ObservedConnector
from cdc_platform.model.topology import Topology
from cdc_platform.planning.actions import ConnectorAction, DeleteConnector, RestartConnector
from cdc_platform.reconciler.run_pass import plan_pass
from cdc_platform.testing.connect_rest import FakeConnectServer
from tests.reconciler.harness import Harness, cluster, dataset, shards

FEW = settings(
    max_examples=int(os.environ.get("CDC_TEST_GARBAGE", "30")), deadline=None, suppress_health_check=list(HealthCheck)
)


def settled() -> Harness:
    """Dataset d0 in cluster east, d1 in west, three shards each, all captured."""
    harness = Harness("east", "west")
    names = ("east", "west")
    harness.put(
        Topology(
            datasets={f"d{at}": dataset(f"d{at}", (name,)) for at, name in enumerate(names)},
            shards={f"d{at}": shards(f"d{at}", 3) for at in range(2)},
            clusters={name: cluster(name) for name in names},
        )
    )
    for _ in range(3):
        assert not harness.reconcile().failed
    return harness


def running(harness: Harness) -> dict[str, ObservedConnector]:
    return {name: seen for client in harness.connect.values() for name, seen in client.connectors().items()}


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 2**31, 2**63, 10**40, 0.5, 1e308]),
    st.sampled_from(["", "x", "\x00", "\x1b[31m", "${env:X}", "../..", "RUNNING\n", "é" * 300]),
)
junk = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner))


def paths_of(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places within a document."""
    yield path
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in inner:
        yield from paths_of(value, (*path, key))


def spoiled(document: Any, path: tuple[Any, ...], change: str, value: Any) -> bytes:
    """The document with one place of it changed."""
    if not path:
        text = json.dumps(value if change == "other" else None)
    else:
        copy = json.loads(json.dumps(document))
        inside = copy
        for step in path[:-1]:
            inside = inside[step]
        if change == "gone":
            del inside[path[-1]]
        else:
            inside[path[-1]] = value
        text = json.dumps(copy)
        if change == "doubled" and isinstance(inside, dict):
            one = json.dumps({path[-1]: value})[1:-1]
            text = text.replace(one, f"{one},{one}", 1)
        if change == "huge":
            text = text.replace(json.dumps(value), "1e999", 1)
    if change == "deep":
        return b'{"x":' * 50_000 + text.encode() + b"}" * 50_000
    return text.encode()[: len(text) // 2] if change == "half" else text.encode("utf-8", "surrogatepass")


CHANGES = ["other", "other", "gone", "doubled", "huge", "deep", "half", "bytes"]


@st.composite
def znodes(draw: st.DrawFn) -> tuple[str, str, int, str, Any, bytes]:
    path = draw(st.sampled_from(["/datasets/d0/shards/00001", "/datasets/d0", "/clusters/east"]))
    return path, draw(st.sampled_from(CHANGES)), draw(st.integers(0, 200)), "", draw(junk), draw(st.binary(max_size=40))


@pytest.fixture(scope="module")
def plain() -> Harness:
    return settled()


@FEW
@given(znode=znodes())
def test_garbage_in_a_znode_costs_what_is_below_it_only(
    plain: Harness, znode: tuple[str, str, int, str, Any, bytes]
) -> None:
    where, change, at, _, value, noise = znode
    path = f"/cdc{where}"
    before = running(plain)
    stored = plain.zookeeper.read(path)
    assert stored is not None
    document = json.loads(stored)
    places = list(paths_of(document))
    plain.zookeeper.write(
        path, noise if change == "bytes" else spoiled(document, places[at % len(places)], change, value)
    )
    try:
        observed, planned = plan_pass(plain.control_plane())
        below = "d0" if where.startswith("/datasets") or where == "/clusters/east" else ""
        touched = {a.name for a in planned.plan.actions if isinstance(a, ConnectorAction)}
        assert not [name for name in touched if not name.startswith(below)], touched
        assert not [a for a in planned.plan.actions if isinstance(a, DeleteConnector)]
        if where.endswith("00001"):
            assert touched <= {"d0.00001"}
        bad = [p for p in observed.topology.problems if p.message.startswith(path)]
        if bad:
            assert not touched & {"d0.00001"} or where == "/clusters/east"
            found = status(plain)
            assert found.exit_code == 2, found.output
            assert bad[0].name in found.output
            if where.endswith("00001"):
                assert json.loads(found.output)["datasets"]["d0"] | {"bootstrap": 0, "down": 0} == {
                    "shards": 3, "up": 2, "down": 0, "bootstrap": 0
                }  # fmt: skip
    finally:
        plain.zookeeper.write(path, stored)
    assert running(plain) == before


def status(harness: Harness) -> Any:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("cdc_platform.cli.status.open_platform", lambda settings: _Opened(harness.control_plane()))
        return CliRunner().invoke(main, ["status", "--json"], catch_exceptions=False)


class _Opened:
    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    def __enter__(self) -> Platform:
        return self.platform

    def __exit__(self, *error: object) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("text", ['{"leader":"db-1:1","leader":"db-2:1","database":"d"}', '{"a":{"b":1,"b":1}}'])
def test_a_key_that_stands_twice_is_refused(text: str) -> None:
    harness = settled()
    harness.zookeeper.write("/cdc/datasets/d0/shards/00001", text.encode())
    observed, _ = plan_pass(harness.control_plane())
    (problem,) = observed.topology.problems
    assert "stands there twice" in problem.message and problem.name == "d0.00001"


def test_status_names_a_dataset_that_cannot_be_read() -> None:
    harness = settled()
    harness.zookeeper.write("/cdc/datasets/d0", b"{")
    found = status(harness)
    assert found.exit_code == 2 and "/cdc/datasets/d0" in found.output


class _Spoiling(FakeConnectServer):
    """A worker whose answers to GET are spoiled while `how` says so."""

    how: tuple[str, int, Any, bytes] | None = None
    target: str = ""

    def handle(self, method: str, target: str, body: bytes) -> Any:
        reply, fault = super().handle(method, target, body)
        if self.how is None or method != "GET" or reply is None or not reply.body or not target.startswith(self.target):
            return reply, fault
        change, at, value, noise = self.how
        document = json.loads(reply.body)
        places = list(paths_of(document))
        made = noise if change == "bytes" else spoiled(document, places[at % len(places)], change, value)
        return type(reply)(reply.status, made), fault


@pytest.fixture(scope="module")
def wired() -> Iterator[tuple[Harness, _Spoiling]]:
    """A settled harness whose cluster east is reached through HTTP."""
    logging.getLogger("cdc_platform").setLevel(logging.CRITICAL)
    harness = settled()
    server = _Spoiling(harness.models["east"])
    with server:
        yield harness, server
    logging.getLogger("cdc_platform").setLevel(logging.NOTSET)


def over_http(harness: Harness, server: _Spoiling, timeout: float = 20.0) -> Platform:
    platform = harness.control_plane()
    there = platform.connect

    def connect(found: Any) -> Any:
        return ConnectClient("east", [server.url], timeout=timeout) if found.name == "east" else there(found)

    return Platform(
        settings=platform.settings,
        topology=platform.topology,
        kafka=platform.kafka,
        state=platform.state,
        connect=connect,
        heartbeats=platform.heartbeats,
        metrics=platform.metrics,
    )


answers = st.tuples(st.sampled_from(CHANGES), st.integers(0, 400), junk, st.binary(max_size=40))


@FEW
@given(how=answers, target=st.sampled_from(["/connectors", "/", "/health", "/connectors?expand"]))
def test_garbage_from_connect_costs_no_connector(
    wired: tuple[Harness, _Spoiling], how: tuple[str, int, Any, bytes], target: str
) -> None:
    harness, server = wired
    before = running(harness)
    server.how, server.target = how, target
    try:
        _, planned = plan_pass(over_http(harness, server, timeout=0.5))
    finally:
        server.how = None
    touched = [a for a in planned.plan.actions if isinstance(a, ConnectorAction)]
    assert not [a for a in touched if a.name.startswith("d1.")]
    assert not [a for a in touched if isinstance(a, DeleteConnector)]
    assert len(touched) <= 1, touched
    assert running(harness) == before
    _, again = plan_pass(over_http(harness, server))
    assert not again.plan.actions


def _state_of(harness: Harness, states: Mapping[str, Any]) -> Any:
    """What a pass plans when the tasks of east are said to be so."""
    east = harness.connect["east"]
    with pytest.MonkeyPatch.context() as patched:
        real = type(east).connectors

        def connectors(client: Any) -> Mapping[str, ObservedConnector]:
            seen = real(client)
            if client.name != "east":
                return seen
            return {name: _as(one, states) for name, one in seen.items()}

        patched.setattr(type(east), "connectors", connectors)
        return plan_pass(harness.control_plane())[1]


def _as(one: ObservedConnector, fields: Mapping[str, Any]) -> ObservedConnector:
    tasks = tuple(replace(task, state=fields["task"], trace=fields["trace"]) for task in one.tasks)
    return replace(one, state=fields["state"], tasks=tasks if fields["task"] else ())


def test_a_cluster_that_contradicts_the_heartbeats_is_asked_again_before_anything_restarts() -> None:
    harness = settled()
    beats = harness.heartbeats.read
    fresh = beats(timedelta(minutes=5))
    harness.heartbeats.read = lambda window: fresh  # type: ignore[method-assign]
    planned = _state_of(harness, {"state": "RUNNING", "task": "FAILED", "trace": ""})
    assert not [a for a in planned.plan.actions if isinstance(a, RestartConnector)]
    assert any(f.subject == "cluster east" and "asked again" in f.text for f in planned.plan.findings)
    # With a cause each restarts.
    planned = _state_of(harness, {"state": "RUNNING", "task": "FAILED", "trace": "java.io.IOException: x"})
    assert [a for a in planned.plan.actions if isinstance(a, RestartConnector)]


def test_answers_without_any_status_are_told() -> None:
    harness = settled()
    planned = _state_of(harness, {"state": "UNASSIGNED", "task": "", "trace": None})
    assert not planned.plan.actions
    (told,) = [f for f in planned.plan.findings if f.subject == "cluster east" and "status" in f.text]
    assert "all 3 connectors" in told.text
