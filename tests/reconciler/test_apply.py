"""Every action of a plan ends with exactly one outcome, or the pass says that it does not.

A kind of action that nobody has taught the rest of the house stands for one that is added later.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, cast

import pytest

from cdc_platform.errors import ConnectUnavailable, InternalError
from cdc_platform.model.topology import Topology
from cdc_platform.planning.actions import Action, ActionKind, ConnectorAction, CreateConnector, Lane
from cdc_platform.planning.plan import Plan, ordered
from cdc_platform.planning.rendering import to_json, to_markdown, to_text
from cdc_platform.reconciler.action_methods import METHODS
from cdc_platform.reconciler.apply import apply
from cdc_platform.reconciler.lock_watch import LockWatch
from cdc_platform.reconciler.report import ActionOutcome, ActionStatus
from tests.reconciler.harness import Harness, cluster, dataset, shards


@dataclass(frozen=True, slots=True, kw_only=True)
class Polish(ConnectorAction):
    """A kind of action that only this module knows."""

    kind = ActionKind("polish connector", "*", 0, Lane.CLUSTER)

    name: str
    cluster: str = "east"

    @property
    def clusters(self) -> tuple[str, ...]:
        return (self.cluster,)

    def sentence(self) -> str:
        return f"polish connector {self.name}"

    def details(self) -> dict[str, Any]:
        return {"connector": self.name}


class Stray(Polish):
    """A kind whose lane nobody takes."""

    kind = ActionKind("stray", "*", 0, "elsewhere")  # type: ignore[arg-type]


class Dusting(Polish):
    """Applied among the topics."""

    kind = ActionKind("dust", "*", 20, Lane.TOPICS)


class Shipping(Polish):
    """Applied among the migrations."""

    kind = ActionKind("ship", "*", 30, Lane.MIGRATIONS)


POLISHES = tuple(Polish(name=f"pins.{n:05d}") for n in range(3))


@pytest.fixture
def harness() -> Harness:
    harness = Harness("east")
    topology = Topology(
        datasets={"pins": dataset(clusters=("east",))},
        shards={"pins": shards("pins", 3)},
        clusters={"east": cluster("east")},
    )
    harness.put(topology)
    return harness


@pytest.fixture
def taught(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of connectors that were polished, with a method for each scratch kind."""
    done: list[str] = []
    methods = cast("dict[Any, Any]", METHODS)
    for kind in (Polish, Stray, Dusting, Shipping):
        monkeypatch.setitem(methods, kind, lambda ports, action: done.append(action.name))
    return done


def applied(harness: Harness, *actions: Action) -> tuple[ActionOutcome, ...]:
    platform = harness.control_plane()
    with platform.topology.lock(owner="test") as lock:
        return apply(
            Plan(actions=ordered(actions)),
            platform=platform,
            topology=platform.topology.load(),
            watch=LockWatch(lock),
            deadline=time.monotonic() + 30,
        )


def test_a_kind_without_a_method_is_an_error_before_anything_is_applied(harness: Harness) -> None:
    create = CreateConnector(cluster="east", name="pins.00000", config={"connector.class": "x"})
    with pytest.raises(InternalError, match="nothing applies Polish"):
        applied(harness, create, *POLISHES)
    assert harness.connect["east"].connectors() == {}


def test_a_kind_that_no_lane_takes_is_an_error(harness: Harness, taught: list[str]) -> None:
    with pytest.raises(InternalError, match=r"not exactly one outcome: polish connector pins\.00009"):
        applied(harness, Stray(name="pins.00009"), *POLISHES)
    assert sorted(taught) == [action.name for action in POLISHES]


def test_a_kind_with_a_method_is_applied_in_its_lane(harness: Harness, taught: list[str]) -> None:
    actions = (Shipping(name="pins.00008"), *POLISHES, Dusting(name="pins.00007"))
    outcomes = applied(harness, *actions)
    assert {outcome.action for outcome in outcomes} == set(actions)
    assert {outcome.status for outcome in outcomes} == {ActionStatus.DONE}
    assert (taught[0], taught[-1]) == ("pins.00007", "pins.00008")


def test_an_action_is_skipped_and_not_lost_where_its_cluster_is_away(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(ports: Any, action: Any) -> None:
        raise ConnectUnavailable("no worker answers.")

    monkeypatch.setitem(cast("dict[Any, Any]", METHODS), Polish, away)
    create = CreateConnector(cluster="east", name="pins.00000", config={"connector.class": "x"})
    outcomes = applied(harness, create, *POLISHES)
    assert [outcome.status for outcome in outcomes] == [ActionStatus.FAILED] * 3 + [ActionStatus.SKIPPED]
    assert outcomes[-1].action is create


def test_verb_sign_and_document_come_from_the_class() -> None:
    plan = Plan(actions=POLISHES)
    assert plan.sentence() == "Polish connector 3."
    assert to_text(plan).splitlines()[0] == "* polish connector pins.00000"
    assert "| polish connector | polish connector pins.00002 |" in to_markdown(plan)
    assert to_json(plan)["actions"][1] == {
        "action": "polish connector",
        "sentence": "polish connector pins.00001",
        "connector": "pins.00001",
    }


def test_a_class_that_does_not_say_its_kind_cannot_be_made() -> None:
    class Nameless(Action):
        def sentence(self) -> str:
            return "nothing"

        def details(self) -> dict[str, Any]:
            return {}

    with pytest.raises(TypeError, match="kind"):
        Nameless()  # type: ignore[abstract]


def test_every_kind_has_a_verb_and_a_rank_of_its_own() -> None:
    kinds: list[ActionKind] = [vars(action)["kind"] for action in METHODS]
    assert len({kind.verb for kind in kinds}) == len({kind.rank for kind in kinds}) == len(kinds)
