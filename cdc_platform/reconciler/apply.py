"""Apply a plan: one lane a cluster, bounded batches, every action with exactly one outcome."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby

from cdc_platform.clients.platform import Platform
from cdc_platform.errors import (
    CdcError,
    ConnectRebalancing,
    ConnectUnavailable,
    InternalError,
    LockLost,
    NotFound,
    Unavailable,
)
from cdc_platform.model.naming import some_of
from cdc_platform.model.topology import Topology
from cdc_platform.planning.actions import (
    Action,
    ConnectorAction,
    CreateConnector,
    CreateTopic,
    DeleteConnector,
    GiveUpSlot,
    Lane,
    RestartConnector,
)
from cdc_platform.planning.plan import Plan
from cdc_platform.reconciler.action_methods import METHODS, ApplyPorts
from cdc_platform.reconciler.batch_size import next_size
from cdc_platform.reconciler.lock_watch import LockWatch, Progress
from cdc_platform.reconciler.report import ActionOutcome, ActionStatus

# Calls in flight at once to one Connect cluster: its herder works serially anyway.
PARALLEL_CALLS = 16
PARALLEL_MIGRATIONS = 4
TOPICS_AT_ONCE = 500
SETTLE_LIMIT = 60.0
SETTLE_POLL = 0.5

_OUT_OF_TIME = "the pass's time is used up, the next pass goes on"
_NO_ANSWER = "its cluster does not answer or rebalances, the next pass goes on"


def apply(
    plan: Plan,
    *,
    platform: Platform,
    topology: Topology,
    watch: LockWatch,
    deadline: float,
    progress: Progress = lambda text: None,
    on_restart: Callable[[RestartConnector], None] = lambda action: None,
) -> tuple[ActionOutcome, ...]:
    """Apply the plan under the lock. What was done stays done, whatever is raised.

    Clusters do not wait for each other: a slow one costs only its own shards.

    Args:
        deadline: on the monotonic clock; what has not begun by then is skipped.
        progress: called with how far it is, a sentence at a time.
        on_restart: called after each restart that came through, before the next one, so that a
            control plane killed in between repeats at most one call.

    Raises:
        LockLost: as soon as the lock may be another's.
        InternalError: no method or no lane takes an action.
    """
    strange = {type(action).__name__ for action in plan.actions if type(action) not in METHODS}
    if strange:
        raise InternalError(f"nothing applies {some_of(sorted(strange), 5)}.", where="reconciler/action_methods.py")
    clusters = {name for a in plan.actions if isinstance(a, ConnectorAction) for name in a.clusters}
    connect = {name: platform.connect(topology.clusters[name]).fenced(watch.check) for name in clusters}
    ports = ApplyPorts(platform=platform, topology=topology, watch=watch, connect=connect)
    outcomes = _Applier(ports, deadline, progress, on_restart).apply(plan.actions)
    count = Counter(id(outcome.action) for outcome in outcomes)
    wrong = [action.sentence() for action in plan.actions if count[id(action)] != 1]
    if wrong or len(outcomes) != len(plan.actions):
        raise InternalError(f"not exactly one outcome: {some_of(wrong, 5)}.", where="reconciler/apply.py")
    return tuple(outcomes)


@dataclass(frozen=True, slots=True)
class _Applier:
    ports: ApplyPorts
    deadline: float
    progress: Progress
    on_restart: Callable[[RestartConnector], None]

    def apply(self, actions: Sequence[Action]) -> list[ActionOutcome]:
        def lane(desired: Lane) -> list[Action]:
            return [action for action in actions if action.kind.lane is desired]

        outcomes = self._topics(lane(Lane.TOPICS))
        failed = [
            outcome.action.topic.name
            for outcome in outcomes
            if isinstance(outcome.action, CreateTopic) and outcome.status is not ActionStatus.DONE
        ]
        lanes: dict[str, list[Action]] = {}
        for action in lane(Lane.CLUSTER):
            if isinstance(action, ConnectorAction):
                (cluster,) = action.clusters
                lanes.setdefault(cluster, []).append(action)
        calls = [partial(self._cluster, cluster, there, failed) for cluster, there in lanes.items()]
        outcomes += chain.from_iterable(self.ports.watch.each(calls, len(calls)))
        return outcomes + self._migrations(lane(Lane.MIGRATIONS))

    def _topics(self, actions: Sequence[Action]) -> list[ActionOutcome]:
        creates = [a for a in actions if isinstance(a, CreateTopic)]
        outcomes: list[ActionOutcome] = []
        for at in range(0, len(creates), TOPICS_AT_ONCE):
            batch = creates[at : at + TOPICS_AT_ONCE]
            self.ports.watch.check()
            started = time.monotonic()
            try:
                problems = self.ports.platform.kafka.create_topics([a.topic for a in batch])
            except CdcError as error:
                problems = dict.fromkeys((a.topic.name for a in batch), error)
            outcomes += [
                _failed(a, problems[a.topic.name], started) if a.topic.name in problems else _done(a, started)
                for a in batch
            ]
            made = sum(outcome.status is ActionStatus.DONE for outcome in outcomes)
            failed = f", {len(outcomes) - made} could not be" if made < len(outcomes) else ""
            self.progress(f"{made} of {len(creates)} topics created{failed}.")
        return outcomes + [self._one(action) for action in actions if not isinstance(action, CreateTopic)]

    def _cluster(self, cluster: str, actions: Sequence[Action], failed_topics: Sequence[str]) -> list[ActionOutcome]:
        """All that is to be done in one cluster, in the order of the plan.

        One that has stopped to answer gets no more calls, which would only wait for time-outs.
        """
        outcomes: list[ActionOutcome] = []
        for kind, same in groupby(actions, type):
            group = list(same)
            if kind is CreateConnector and failed_topics:
                # Connect would make the missing topic itself, with the wrong settings.
                outcomes += _skipped(group, f"topic {failed_topics[0]} could not be made")
                continue
            done, answers = self._restarts(group) if kind is RestartConnector else self._in_batches(cluster, group)
            outcomes += done
            if not answers:
                return outcomes + _skipped(actions[len(outcomes) :], _NO_ANSWER)
        return outcomes

    def _restarts(self, actions: Sequence[Action]) -> tuple[list[ActionOutcome], bool]:
        """One by one; the outcomes, and False when the cluster has stopped to answer."""
        outcomes: list[ActionOutcome] = []
        for action in actions:
            outcomes.append(self._one(action))
            if outcomes[-1].unreachable:
                return outcomes, False
            if outcomes[-1].status is ActionStatus.DONE and isinstance(action, RestartConnector):
                self.on_restart(action)
        return outcomes, True

    def _in_batches(self, cluster: str, actions: Sequence[Action]) -> tuple[list[ActionOutcome], bool]:
        """The outcomes, and False when the cluster has stopped to answer."""
        largest = max(1, self.ports.platform.settings.batch_size)
        size = min(largest, 25)
        outcomes: list[ActionOutcome] = []
        while batch := actions[len(outcomes) : len(outcomes) + size]:
            if time.monotonic() > self.deadline:
                return outcomes + _skipped(actions[len(outcomes) :], _OUT_OF_TIME), True
            self.ports.watch.check()
            started = time.monotonic()
            done = self.ports.watch.each([partial(self._perform, action) for action in batch], PARALLEL_CALLS)
            outcomes += done
            if all(outcome.unreachable for outcome in done):
                return outcomes, False
            came = [outcome.action for outcome in done if outcome.status is ActionStatus.DONE]
            # Those two leave no task that would be assigned.
            awaited = [
                a for a in came if isinstance(a, ConnectorAction) and not isinstance(a, DeleteConnector | GiveUpSlot)
            ]
            self._settle(cluster, [action.name for action in awaited])
            self.progress(f"Cluster {cluster}: {len(outcomes)} of {len(actions)} connectors changed.")
            size = next_size(size, time.monotonic() - started, largest)
        return outcomes, True

    def _settle(self, cluster: str, names: Sequence[str]) -> None:
        """Wait until the group has assigned what was just changed, so that rebalances do not pile up.

        A cluster that does not answer is not waited for: the next batch finds that out.
        """
        limit = min(time.monotonic() + SETTLE_LIMIT, self.deadline)
        missing = list(names)
        while missing:
            settled = self.ports.watch.each([partial(self._settled, cluster, n) for n in missing], PARALLEL_CALLS)
            missing = [name for name, there in zip(missing, settled, strict=True) if not there]
            if all(there is None for there in settled) or time.monotonic() > limit:
                return
            if missing:
                self.ports.watch.sleep(SETTLE_POLL)

    def _settled(self, cluster: str, name: str) -> bool | None:
        """None when that cannot be read."""
        try:
            connector = self.ports.connect[cluster].connector(name)
        except NotFound:
            return True  # deleted by somebody else meanwhile
        except Unavailable:
            return None
        busy = not connector.tasks or any(task.state in ("UNASSIGNED", "RESTARTING") for task in connector.tasks)
        return not busy or connector.state == "FAILED"

    def _migrations(self, actions: Sequence[Action]) -> list[ActionOutcome]:
        outcomes: list[ActionOutcome] = []
        while batch := actions[len(outcomes) : len(outcomes) + PARALLEL_MIGRATIONS]:
            if time.monotonic() > self.deadline:
                return outcomes + _skipped(actions[len(outcomes) :], _OUT_OF_TIME)
            self.ports.watch.check()
            outcomes += self.ports.watch.each([partial(self._perform, a) for a in batch], PARALLEL_MIGRATIONS)
            self.progress(f"{len(outcomes)} of {len(actions)} connectors moved.")
        return outcomes

    def _one(self, action: Action) -> ActionOutcome:
        if time.monotonic() > self.deadline:
            return _skipped([action], _OUT_OF_TIME)[0]
        self.ports.watch.check()
        return self._perform(action)

    def _perform(self, action: Action) -> ActionOutcome:
        started = time.monotonic()
        try:
            METHODS[type(action)](self.ports, action)
        except LockLost:
            raise
        except CdcError as error:
            return _failed(action, error, started)
        return _done(action, started)


def _skipped(actions: Iterable[Action], why: str) -> list[ActionOutcome]:
    return [ActionOutcome(action=action, status=ActionStatus.SKIPPED, error=why) for action in actions]


def _done(action: Action, started: float) -> ActionOutcome:
    return ActionOutcome(action=action, status=ActionStatus.DONE, seconds=time.monotonic() - started)


def _failed(action: Action, error: CdcError, started: float) -> ActionOutcome:
    return ActionOutcome(
        action=action,
        status=ActionStatus.FAILED,
        error=str(error),
        seconds=time.monotonic() - started,
        unreachable=isinstance(error, ConnectUnavailable | ConnectRebalancing),
    )
