"""Which connectors get the configuration that is wanted for them in this pass, and which wait for canaries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cdc_platform.connectors.overrides import is_secret_in_plain_text
from cdc_platform.model.observed import ObservedState
from cdc_platform.model.topology import EMPTY
from cdc_platform.planning import canary as rollout
from cdc_platform.planning.actions import UpdateConnector
from cdc_platform.planning.canary import Before, Canary, CanaryRecord, Pending, RolledOut, RolloutDecision
from cdc_platform.planning.drift import config_changes, digest_of, with_values
from cdc_platform.planning.health.diagnosis import ConnectorView, Diagnosis
from cdc_platform.planning.holds import keep_snapshot_options
from cdc_platform.planning.inputs import DesiredState, Memory, PassPolicy
from cdc_platform.planning.plan import Finding

Change = Mapping[str, tuple[str | None, str | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """The updates of this pass. `fresh` is what new connectors of a dataset get in place of an unproven change."""

    updates: Sequence[UpdateConnector] = ()
    findings: Sequence[Finding] = ()
    fresh: Mapping[str, Before] = EMPTY
    canaries: Mapping[str, CanaryRecord | None] = EMPTY
    done: Mapping[str, RolledOut | None] = EMPTY


@dataclass(slots=True)
class _Dataset:
    seen: dict[str, ConnectorView] = field(default_factory=dict)
    configs: dict[str, Mapping[str, str]] = field(default_factory=dict)
    changes: dict[str, Change] = field(default_factory=dict)


def roll_out(
    picture: ObservedState,
    seen: Sequence[ConnectorView],
    diagnosis: Diagnosis,
    wanted: DesiredState,
    memory: Memory,
    policy: PassPolicy,
) -> Rollouts:
    """Compare each connector's configuration with what is wanted, and let through what may change now."""
    datasets: dict[str, _Dataset] = defaultdict(_Dataset)
    for s in seen:
        part = datasets[s.dataset.name]
        part.seen[s.name] = s
        config = wanted.config_of(s.dataset, s.shard, s.cluster)
        config = keep_snapshot_options(config, s.connector.config)
        changes = config_changes(s.connector.config, config)
        if changes:
            part.configs[s.name] = config
            part.changes[s.name] = changes
    updates: list[UpdateConnector] = []
    findings: list[Finding] = []
    fresh: dict[str, Before] = {}
    canaries: dict[str, CanaryRecord | None] = {}
    done: dict[str, RolledOut | None] = {}
    for name, part in sorted(datasets.items()):
        decision = _decide(name, part, picture, diagnosis, wanted, memory, policy)
        updates += _updates(part, decision)
        if decision.finding:
            findings.append(Finding(subject=name, text=decision.finding))
        if decision.fresh:
            fresh[name] = decision.fresh
        if decision.record != memory.canaries.get(name):
            canaries[name] = decision.record
        if decision.done != memory.rollouts.get(name):
            done[name] = decision.done
    whole = not picture.topology.problems
    for name in {*memory.canaries, *memory.rollouts} - picture.topology.datasets.keys() if whole else ():
        canaries[name] = done[name] = None
    return Rollouts(updates=updates, findings=findings, fresh=fresh, canaries=canaries, done=done)


def _decide(
    name: str,
    part: _Dataset,
    picture: ObservedState,
    diagnosis: Diagnosis,
    wanted: DesiredState,
    memory: Memory,
    policy: PassPolicy,
) -> RolloutDecision:
    record = memory.canaries.get(name)
    pending = {
        shard: Pending(
            before={key: now for key, (now, _) in changes.items() if not is_secret_in_plain_text(key, now or "")},
            cluster=part.seen[shard].cluster.name,
            host=str(part.seen[shard].shard.leader),
            healthy=shard in diagnosis.healthy,
        )
        for shard, changes in part.changes.items()
    }
    return rollout.decide(
        digest=digest_of(picture.topology.datasets[name], wanted.config_of),
        connectors=len(part.seen),
        pending=pending,
        canaries=_canaries(record, picture, diagnosis, memory) if record else {},
        record=record,
        done=memory.rollouts.get(name),
        now=picture.taken_at,
        policy=policy.rollout,
    )


def _canaries(record: CanaryRecord, picture: ObservedState, diagnosis: Diagnosis, memory: Memory) -> dict[str, Canary]:
    """How each canary is that is still in the topology."""
    hosts = {shard.name: str(shard.leader) for _, shard in picture.topology.all_shards()}
    failing_hosts = {item.host for name, (item, _) in diagnosis.failing.items() if name not in record.shards}
    found: dict[str, Canary] = {}
    for name in record.shards:
        if name not in hosts:
            continue
        restarted = memory.restarts.get(name)
        if name in diagnosis.failing:
            item, cause = diagnosis.failing[name]
            shared = f"others of {item.host} fail too" if item.host in failing_hosts else None
            found[name] = Canary(incident=f"{item.failure}: {cause}", unclear=shared)
        elif restarted is not None and restarted.attempts and restarted.first_failed >= record.since:
            found[name] = Canary(incident=f"it failed ({restarted.failure}) and was restarted")
        elif name in diagnosis.healthy:
            found[name] = Canary()
        else:
            # In an unreadable cluster, being moved, or about to start: neither well nor ill.
            found[name] = Canary(unclear="it is not seen running at the moment")
    return found


def _updates(part: _Dataset, decision: RolloutDecision) -> list[UpdateConnector]:
    updates: list[UpdateConnector] = []
    for name in sorted({*part.changes, *decision.restore} & part.seen.keys()):
        seen = part.seen[name]
        config = part.configs.get(name)
        if name in decision.restore:
            config = with_values(config or _own(seen.connector.config), decision.restore[name])
        elif name not in decision.now:
            # It waits, but what a hand changed besides is put right.
            if config is None or not decision.masked:
                continue
            config = with_values(config, {key: seen.connector.config.get(key) for key in decision.masked})
        if config is None:
            continue
        changes = config_changes(seen.connector.config, config)
        if changes:
            updates.append(UpdateConnector(cluster=seen.cluster.name, name=name, config=config, changes=changes))
    return updates


def _own(config: Mapping[str, str]) -> dict[str, str]:
    """A seen config without what Connect added."""
    return {key: value for key, value in config.items() if key != "name"}
