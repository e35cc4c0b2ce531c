"""What the planner takes and gives: bounds, memory, the ideal state, the planned pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cdc_platform.model.observed import TopicRequest
from cdc_platform.model.topology import EMPTY, Cluster, Dataset, Shard
from cdc_platform.planning.canary import CanaryRecord, RolledOut, RolloutPolicy
from cdc_platform.planning.health.duplicate_tasks import ZombiePolicy, ZombieRecord
from cdc_platform.planning.health.incidents import Incident
from cdc_platform.planning.health.liveness import CapturedRecord, LeaderRecord, LivenessPolicy, LiveRecord
from cdc_platform.planning.health.restarts import RestartPolicy, RestartRecord, Waiting
from cdc_platform.planning.health.task_balance import BalancePolicy, SkewRecord
from cdc_platform.planning.holds import HoldRecord
from cdc_platform.planning.plan import Plan

ConfigOf = Callable[[Dataset, Shard, Cluster], Mapping[str, str]]

# Topics to delete with a connector, and what is left to a person.
Leftovers = Callable[[str, Mapping[str, str]], tuple[tuple[str, ...], tuple[str, ...]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PassPolicy:
    """The bounds of one pass.

    A pass deletes at most the greater of `max_deletes` and `max_delete_fraction` of the platform's
    connectors; `allow_deletes` replaces both for one pass. A cluster or dataset that lost more than
    `shrink_fraction` of what the last pass saw there, and more than `max_deletes`, is left alone.
    A pass moves at most `max_moves` connectors to another cluster: each is down for a moment.
    """

    platform: str = "cdc"
    max_deletes: int = 5
    max_delete_fraction: float = 0.01
    allow_deletes: int | None = None
    shrink_fraction: float = 0.5
    accept_shrink: bool = False
    max_moves: int = 100
    restarts: RestartPolicy = field(default_factory=RestartPolicy)
    liveness: LivenessPolicy = field(default_factory=LivenessPolicy)
    rollout: RolloutPolicy = field(default_factory=RolloutPolicy)
    zombies: ZombiePolicy = field(default_factory=ZombiePolicy)
    balance: BalancePolicy = field(default_factory=BalancePolicy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What earlier passes left, by connector, dataset, cluster or (incidents) key."""

    restarts: Mapping[str, RestartRecord] = field(default_factory=dict)
    cluster_sizes: Mapping[str, int] = field(default_factory=dict)
    dataset_sizes: Mapping[str, int] = field(default_factory=dict)
    captured: Mapping[str, CapturedRecord] = field(default_factory=dict)
    live: Mapping[str, LiveRecord] = field(default_factory=dict)
    leaders: Mapping[str, LeaderRecord] = field(default_factory=dict)
    zombies: Mapping[str, ZombieRecord] = field(default_factory=dict)
    skews: Mapping[str, SkewRecord] = field(default_factory=dict)
    canaries: Mapping[str, CanaryRecord] = field(default_factory=dict)
    rollouts: Mapping[str, RolledOut] = field(default_factory=dict)
    incidents: Mapping[str, Incident] = field(default_factory=dict)
    holds: Mapping[str, HoldRecord] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What of the memory changes, in the same shape; None forgets."""

    live: Mapping[str, LiveRecord | None] = EMPTY
    leaders: Mapping[str, LeaderRecord | None] = EMPTY
    zombies: Mapping[str, ZombieRecord | None] = EMPTY
    skews: Mapping[str, SkewRecord | None] = EMPTY
    canaries: Mapping[str, CanaryRecord | None] = EMPTY
    rollouts: Mapping[str, RolledOut | None] = EMPTY
    incidents: Mapping[str, Incident | None] = EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredState:
    """What should be there: topics, and the config of any shard in any cluster.

    `leftovers` says for a connector that goes which topics go with it, and what is left to a person.
    """

    topics: Sequence[TopicRequest]
    config_of: ConfigOf
    leftovers: Leftovers = lambda name, config: ((), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The plan, and what goes with it.

    `records` are restart records to store once applied (None forgets), `changes`
    all other memory. `waiting` says why a failing connector is not restarted.
    `homes` maps a connector to its cluster. `unwell` says of connectors that
    Connect calls RUNNING why they are not. `incidents` are all that there are now.
    """

    plan: Plan
    records: Mapping[str, RestartRecord | None]
    waiting: Mapping[str, Waiting]
    crash_looping: frozenset[str]
    homes: Mapping[str, str]
    cluster_sizes: Mapping[str, int]
    dataset_sizes: Mapping[str, int]
    changes: Changes = field(default_factory=Changes)
    unwell: Mapping[str, str] = EMPTY
    alive: frozenset[str] = frozenset()
    incidents: Mapping[str, Incident] = EMPTY
