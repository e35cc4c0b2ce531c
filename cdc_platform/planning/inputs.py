"""What the planner takes and gives: bounds, the desired state, the parts of a plan, the planned pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cdc_platform.model.observed import ObservedState, TopicRequest
from cdc_platform.model.topology import EMPTY, Cluster, Dataset, Shard
from cdc_platform.planning.actions import Action
from cdc_platform.planning.canary import RolloutPolicy
from cdc_platform.planning.health.duplicate_tasks import ZombiePolicy
from cdc_platform.planning.health.incidents import Incident
from cdc_platform.planning.health.liveness import LivenessPolicy
from cdc_platform.planning.health.restarts import RestartPolicy, Waiting
from cdc_platform.planning.health.task_balance import BalancePolicy
from cdc_platform.planning.memory import Memory, RecordChanges
from cdc_platform.planning.plan import Finding, Plan, Refusal


class ConfigRenderer(Protocol):
    """Renders the config of a shard's connector in a Connect cluster.

    The planner calls it instead of being given all configs: only placement, which is part of planning,
    says in which cluster a connector belongs, and one that migrates needs its config for the target.
    Equal arguments give an equal config, so planning stays a pure function. Raises OverrideRefused.
    """

    def __call__(self, dataset: Dataset, shard: Shard, cluster: Cluster, /) -> Mapping[str, str]: ...


# Topics to delete with a connector, and what is left to an operator.
Leftovers = Callable[[str, Mapping[str, str]], tuple[tuple[str, ...], tuple[str, ...]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PassPolicy:
    """The bounds of one pass.

    A pass deletes at most the greater of `max_deletes` and `max_delete_fraction` of the platform's
    connectors; `allow_deletes` replaces both for one pass. A cluster or dataset that lost more than
    `shrink_fraction` of what the last pass saw there, and more than `max_deletes`, is left alone.
    A pass migrates at most `max_moves` connectors to another cluster: each is down for a moment.
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
class DesiredState:
    """What should be there: topics, and the config of any shard in any cluster.

    `leftovers` says for a connector that goes which topics go with it, and what is left to an operator.
    `is_ours` says of an existing topic by its name that it may be changed, whether a pass made it or not.
    """

    topics: Sequence[TopicRequest]
    config_of: ConfigRenderer
    leftovers: Leftovers = lambda name, config: ((), ())
    is_ours: Callable[[str], bool] = lambda topic: True


@dataclass(frozen=True, slots=True)
class PlanInputs:
    """All that a plan is made from."""

    observed: ObservedState
    desired: DesiredState
    memory: Memory
    policy: PassPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one step of planning adds to the plan and to the memory."""

    actions: Sequence[Action] = ()
    refusals: Sequence[Refusal] = ()
    findings: Sequence[Finding] = ()
    records: RecordChanges = field(default_factory=RecordChanges)

    def __add__(self, other: Part) -> Part:
        return Part(
            actions=(*self.actions, *other.actions),
            refusals=(*self.refusals, *other.refusals),
            findings=(*self.findings, *other.findings),
            records=self.records + other.records,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The plan, and what goes with it.

    `changes` are what it changes in the memory. `waiting` says why a failing connector is not
    restarted, or a shard gets none. `homes` maps a connector to its cluster. `unwell` says of
    connectors that Connect calls RUNNING why they are not, `incomplete` of shards what of them is being lost.
    `incidents` are all that there are now.
    """

    plan: Plan
    changes: RecordChanges = field(default_factory=RecordChanges)
    waiting: Mapping[str, Waiting] = EMPTY
    homes: Mapping[str, str] = EMPTY
    unwell: Mapping[str, str] = EMPTY
    incidents: Mapping[str, Incident] = EMPTY
    incomplete: Mapping[str, str] = EMPTY
