"""Which connectors get the configuration that is desired for them in this pass, and which wait for canaries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cdc_platform.model.secret_references import is_secret_in_plain_text
from cdc_platform.planning import canary
from cdc_platform.planning.actions import Changes, UpdateConnector
from cdc_platform.planning.canary import Before, Canary, CanaryRecord, Pending, RolledOut, RolloutDecision
from cdc_platform.planning.diagnosis import ConnectorView, Diagnosis
from cdc_platform.planning.drift import config_changes, digest_of, with_values
from cdc_platform.planning.health.restarts import RestartRecord
from cdc_platform.planning.holds import keep_snapshot_options
from cdc_platform.planning.inputs import Part, PlanInputs
from cdc_platform.planning.memory import RecordChanges
from cdc_platform.planning.plan import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """The updates of this pass. `fresh` is what new connectors of a dataset get in place of an unproven change."""

    part: Part
    fresh: Mapping[str, Before]


@dataclass(slots=True)
class _Dataset:
    views: dict[str, ConnectorView] = field(default_factory=dict)
    configs: dict[str, Mapping[str, str]] = field(default_factory=dict)
    changes: dict[str, Changes] = field(default_factory=dict)


def roll_out(inputs: PlanInputs, views: Sequence[ConnectorView], diagnosis: Diagnosis) -> Rollouts:
    """Compare each connector's configuration with what it should be, and let through what may change now."""
    topology, memory, config_of = inputs.observed.topology, inputs.memory, inputs.desired.config_of
    datasets: dict[str, _Dataset] = defaultdict(_Dataset)
    for view in views:
        group = datasets[view.dataset.name]
        group.views[view.name] = view
        config = config_of(view.dataset, view.shard, view.cluster)
        config = keep_snapshot_options(config, view.connector.config)
        changes = config_changes(view.connector.config, config)
        if changes:
            group.configs[view.name] = config
            group.changes[view.name] = changes
    known, proven = memory.of(CanaryRecord), memory.of(RolledOut)
    updates: list[UpdateConnector] = []
    findings: list[Finding] = []
    fresh: dict[str, Before] = {}
    canaries: dict[str, CanaryRecord | None] = {}
    done: dict[str, RolledOut | None] = {}
    for name, group in sorted(datasets.items()):
        decision = _decide(inputs, name, group, diagnosis)
        updates += _updates(group, decision)
        if decision.finding:
            findings.append(Finding(subject=name, text=decision.finding))
        if decision.fresh:
            fresh[name] = decision.fresh
        if decision.record != known.get(name):
            canaries[name] = decision.record
        if decision.done != proven.get(name):
            done[name] = decision.done
    if not topology.problems:
        for name in {*known, *proven} - topology.datasets.keys():
            canaries[name] = done[name] = None
    records = RecordChanges({CanaryRecord: canaries, RolledOut: done})
    return Rollouts(part=Part(actions=updates, findings=findings, records=records), fresh=fresh)


def _decide(inputs: PlanInputs, name: str, group: _Dataset, diagnosis: Diagnosis) -> RolloutDecision:
    observed, memory = inputs.observed, inputs.memory
    record = memory.of(CanaryRecord).get(name)
    pending = {
        shard: Pending(
            before={key: now for key, (now, _) in changes.items() if not is_secret_in_plain_text(key, now or "")},
            cluster=group.views[shard].cluster.name,
            host=str(group.views[shard].shard.leader),
            healthy=shard in diagnosis.healthy,
        )
        for shard, changes in group.changes.items()
    }
    return canary.decide(
        digest=digest_of(observed.topology.datasets[name], inputs.desired.config_of),
        connectors=len(group.views),
        pending=pending,
        canaries=_canaries(inputs, record, diagnosis) if record else {},
        record=record,
        done=memory.of(RolledOut).get(name),
        now=observed.taken_at,
        policy=inputs.policy.rollout,
    )


def _canaries(inputs: PlanInputs, record: CanaryRecord, diagnosis: Diagnosis) -> dict[str, Canary]:
    """How each canary is that is still in the topology."""
    hosts = {shard.name: str(shard.leader) for _, shard in inputs.observed.topology.all_shards()}
    failing_hosts = {item.host for name, (item, _) in diagnosis.failing.items() if name not in record.shards}
    canaries: dict[str, Canary] = {}
    for name in record.shards:
        if name not in hosts:
            continue
        restarted = inputs.memory.of(RestartRecord).get(name)
        if name in diagnosis.failing:
            item, cause = diagnosis.failing[name]
            shared = f"others of {item.host} fail too" if item.host in failing_hosts else None
            canaries[name] = Canary(incident=f"{item.failure}: {cause}", unclear=shared)
        elif restarted is not None and restarted.attempts and restarted.first_failed >= record.since:
            canaries[name] = Canary(incident=f"it failed ({restarted.failure}) and was restarted")
        elif name in diagnosis.healthy:
            canaries[name] = Canary()
        else:
            # In an unreadable cluster, migrating, or about to start: neither well nor ill.
            canaries[name] = Canary(unclear="it is not seen running at the moment")
    return canaries


def _updates(group: _Dataset, decision: RolloutDecision) -> list[UpdateConnector]:
    updates: list[UpdateConnector] = []
    for name in sorted({*group.changes, *decision.restore} & group.views.keys()):
        view = group.views[name]
        current = view.connector.config
        config = group.configs.get(name)
        if name in decision.restore:
            # Connect adds `name` by itself.
            own = {key: value for key, value in current.items() if key != "name"}
            config = with_values(config or own, decision.restore[name])
        elif name not in decision.now:
            # It waits, but what a hand changed besides is put right.
            if config is None or not decision.masked:
                continue
            config = with_values(config, {key: current.get(key) for key in decision.masked})
        if config is None:
            continue
        changes = config_changes(current, config)
        if changes:
            updates.append(UpdateConnector(cluster=view.cluster.name, name=name, config=config, changes=changes))
    return updates
