"""Laws of the planner: applied to what was observed, a plan gives the desired state; a second plan is empty."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

from hypothesis import given, settings

from cdc_platform.model.observed import ObservedState
from cdc_platform.planning.actions import (
    ConnectorAction,
    CreateConnector,
    DeleteConnector,
    MigrateConnector,
    RestartConnector,
    UpdateConnector,
)
from cdc_platform.planning.health.restarts import RestartPolicy, RestartRecord
from cdc_platform.planning.inputs import PassPolicy, Planned
from cdc_platform.planning.memory import Memory
from cdc_platform.planning.planner import make_plan
from cdc_platform.planning.rendering import to_json
from tests.planning.worlds import WANTED, after, config_of, simulate, worlds

# Free of budgets and caps, which would spread the work over several passes.
BOUNDLESS = PassPolicy(
    allow_deletes=1000, restarts=RestartPolicy(fleet_budget=1000, worker_budget=1000, group_from=1000)
)

KINDS: dict[str, type[ConnectorAction]] = {
    "created": CreateConnector,
    "updated": UpdateConnector,
    "moved": MigrateConnector,
    "restarted": RestartConnector,
}


@given(worlds())
@settings(max_examples=300, deadline=None)
def test_after_a_plan_is_applied_the_second_plan_is_empty(world: ObservedState) -> None:
    planned = make_plan(world, WANTED, Memory(), BOUNDLESS)
    after = simulate(world, planned.plan)
    second = make_plan(after, WANTED, Memory(), BOUNDLESS).plan
    if any(isinstance(a, MigrateConnector) for a in planned.plan.actions):
        # A move frees a place, and a place that was freed may take another: but it must come to rest.
        for _ in range(20):
            after = simulate(after, second)
            second = make_plan(after, WANTED, Memory(), BOUNDLESS).plan
    assert second.actions == ()


def test_after_a_plan_is_applied_every_placed_shard_runs_once_with_the_wanted_config() -> None:
    looked_at: Counter[str] = Counter()

    @given(worlds())
    @settings(max_examples=300, deadline=None)
    def law(world: ObservedState) -> None:
        planned = make_plan(world, WANTED, Memory(), BOUNDLESS)
        after = simulate(world, planned.plan)
        looked_at.update(placed_shards(world, after, planned))

    law()
    # Shards of all these kinds came by; the law says nothing of a world in which none does.
    assert looked_at["shards"] > 300
    assert min(looked_at[kind] for kind in ("created", "updated", "moved", "left alone")) > 20, looked_at


def placed_shards(world: ObservedState, after: ObservedState, planned: Planned) -> Iterator[str]:
    """Hold the law for each shard that a plan gives a home; says of what kinds the shards were."""
    if world.topics is None:
        return
    refused = {refusal.scope for refusal in planned.plan.refusals}
    named = {kind: {a.name for a in planned.plan.actions if isinstance(a, of)} for kind, of in KINDS.items()}
    for dataset, shard in world.topology.all_shards():
        home = planned.homes.get(shard.name)
        there = after.clusters[home].connectors if home is not None else None
        if home is None or shard.name in refused or there is None:
            continue
        seen = there[shard.name]
        wanted = config_of(dataset, shard, world.topology.clusters[home])
        assert {k: v for k, v in seen.config.items() if k != "name"} == dict(wanted)
        assert seen.running
        elsewhere = [
            c.name
            for c in after.clusters.values()
            if c.connectors
            and c.name != home
            and shard.name in c.connectors
            and c.connectors[shard.name].owner == "cdc"
        ]
        # Three copies take two moves, one a pass.
        assert len(elsewhere) <= (1 if shard.name in named["moved"] else 0)
        yield "shards"
        kinds = [kind for kind, names in named.items() if shard.name in names]
        yield from kinds or ["left alone"]


@given(worlds())
@settings(max_examples=300, deadline=None)
def test_what_could_not_be_read_and_what_others_made_is_never_touched(world: ObservedState) -> None:
    plan = make_plan(world, WANTED, Memory(), BOUNDLESS).plan
    unknown = {name for name, c in world.clusters.items() if c.connectors is None}
    for action in plan.actions:
        for cluster in action.clusters if isinstance(action, ConnectorAction) else ():
            assert cluster not in unknown
            held = world.clusters[cluster].connectors or {}
            seen = held.get(getattr(action, "name", ""))
            if seen is not None and not isinstance(action, MigrateConnector):
                assert seen.owner == "cdc"
    if world.topics is None:
        assert not [a for a in plan.actions if isinstance(a, CreateConnector)]
    for name in unknown:
        assert f"cluster {name}" in {r.scope for r in plan.refusals}


@given(worlds())
@settings(max_examples=200, deadline=None)
def test_no_more_is_deleted_than_the_cap_allows(world: ObservedState) -> None:
    plan = make_plan(world, WANTED, Memory(), PassPolicy(max_deletes=1, max_delete_fraction=0.0)).plan
    assert len([a for a in plan.actions if isinstance(a, DeleteConnector)]) <= 1


@given(worlds())
@settings(max_examples=200, deadline=None)
def test_the_same_picture_gives_the_same_plan(world: ObservedState) -> None:
    first = make_plan(world, WANTED, Memory(), BOUNDLESS).plan
    backwards = ObservedState(
        taken_at=world.taken_at,
        topology=world.topology,
        clusters=dict(reversed(list(world.clusters.items()))),
        topics=world.topics,
    )
    assert make_plan(backwards, WANTED, Memory(), BOUNDLESS).plan.fingerprint == first.fingerprint
    assert to_json(first)["exit_code"] == first.exit_code


@given(worlds())
@settings(max_examples=200, deadline=None)
def test_a_restart_is_not_repeated_before_its_backoff(world: ObservedState) -> None:
    first = make_plan(world, WANTED, Memory(), BOUNDLESS)
    soon = ObservedState(
        taken_at=world.taken_at + timedelta(seconds=5),
        topology=world.topology,
        clusters=world.clusters,
        topics=world.topics,
    )
    again = make_plan(soon, WANTED, after(Memory(), first, RestartRecord), BOUNDLESS).plan
    restarted = {a.name for a in first.plan.actions if isinstance(a, RestartConnector)}
    assert not restarted & {a.name for a in again.actions if isinstance(a, RestartConnector)}
    assert all(a.changes for a in again.actions if isinstance(a, UpdateConnector))
