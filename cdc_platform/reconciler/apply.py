"""Apply a plan: one lane a cluster, bounded batches, every action with an outcome."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from cdc_platform.clients.platform import Platform
from cdc_platform.clients.protocols import Connect
from cdc_platform.connectors.identity import identity
from cdc_platform.connectors.tables import INCLUDE_LIST
from cdc_platform.errors import CdcError, ConnectRebalancing, ConnectUnavailable, LockLost, NotFound, Unavailable
from cdc_platform.model.naming import ShardName
from cdc_platform.model.topology import Topology
from cdc_platform.planning.plan import (
    Action,
    AddPartitions,
    AlterTopic,
    CreateConnector,
    CreateTopic,
    DeleteConnector,
    MigrateConnector,
    Plan,
    RestartConnector,
    ResumeConnector,
    StopAndResumeConnector,
    UpdateConnector,
)
from cdc_platform.reconciler.batch_size import next_size
from cdc_platform.reconciler.lock_watch import LockWatch, Tell
from cdc_platform.reconciler.migration import bounce, migrate, wait_stopped
from cdc_platform.reconciler.report import ActionOutcome

# Calls in flight at once to one Connect cluster: its herder works serially anyway.
PARALLEL_CALLS = 16
PARALLEL_MOVES = 4
TOPICS_AT_ONCE = 500
SETTLE_LIMIT = 60.0
SETTLE_POLL = 0.5

_OUT_OF_TIME = "the pass's time is used up, the next pass goes on"


@dataclass(kw_only=True)
class Applier:
    """Applies one plan under one lock.

    `deadline` is on the monotonic clock. `on_restart` is called after each restart
    that came through, before the next one, so that a control plane killed in
    between repeats at most one call.
    """

    platform: Platform
    fence: LockWatch
    topology: Topology
    deadline: float
    progress: Tell
    on_restart: Callable[[RestartConnector], None]
    outcomes: list[ActionOutcome] = field(default_factory=list)
    _clients: dict[str, Connect] = field(default_factory=dict)

    def apply(self, plan: Plan) -> tuple[ActionOutcome, ...]:
        """Do it. Raises LockLost as soon as the lock may be another's; what was done stays done.

        Clusters do not wait for each other: a slow one costs only its own shards.
        """
        failed_topics = self._topics(
            [a for a in plan.actions if isinstance(a, CreateTopic | AddPartitions | AlterTopic)]
        )
        lanes: dict[str, list[Action]] = {}
        moves: list[Action] = []
        for action in plan.actions:
            if isinstance(action, MigrateConnector):
                moves.append(action)
            elif not isinstance(action, CreateTopic | AddPartitions | AlterTopic):
                lanes.setdefault(action.cluster, []).append(action)
        for cluster in {*lanes, *(c for m in moves if isinstance(m, MigrateConnector) for c in (m.source, m.target))}:
            self._clients[cluster] = self.platform.connect(self.topology.clusters[cluster]).fenced(self.fence.check)
        self.fence.each([partial(self._lane, c, actions, failed_topics) for c, actions in lanes.items()], len(lanes))
        self._moves(moves)
        return tuple(self.outcomes)

    def _topics(self, actions: Sequence[Action]) -> list[str]:
        creates = [a for a in actions if isinstance(a, CreateTopic)]
        failed: list[str] = []
        for at in range(0, len(creates), TOPICS_AT_ONCE):
            batch = creates[at : at + TOPICS_AT_ONCE]
            self.fence.check()
            started = time.monotonic()
            try:
                self.platform.kafka.create_topics([a.topic for a in batch])
                self.outcomes += [_done(a, started) for a in batch]
            except CdcError as error:
                self.outcomes += [_failed(a, error, started) for a in batch]
                failed += [a.topic.name for a in batch]
            self.progress(f"{at + len(batch)} of {len(creates)} topics created.")
        for action in actions:
            if not isinstance(action, CreateTopic):
                self._one(action)
        return failed

    def _lane(self, cluster: str, actions: Sequence[Action], failed_topics: Sequence[str]) -> None:
        """All that is to be done in one cluster, in the order of the plan."""
        for restart in [a for a in actions if isinstance(a, RestartConnector)]:
            if self._one(restart):
                self.on_restart(restart)
            elif self._gone(restart, actions):
                return
        for kind in (ResumeConnector, CreateConnector, UpdateConnector, StopAndResumeConnector, DeleteConnector):
            group = [a for a in actions if isinstance(a, kind)]
            if kind is CreateConnector and failed_topics:
                # Connect would make the missing topic itself, with the wrong settings.
                self._skip(group, f"topic {failed_topics[0]} could not be made")
            elif group and not self._in_batches(cluster, group):
                self._skip_rest(actions)
                return

    def _gone(self, last: Action, actions: Sequence[Action]) -> bool:
        """True when the cluster has stopped to answer: the rest of its lane would only wait for time-outs."""
        outcome = next(o for o in reversed(self.outcomes) if o.action is last)
        if not outcome.unreachable:
            return False
        self._skip_rest(actions)
        return True

    def _skip_rest(self, actions: Sequence[Action]) -> None:
        known = {id(outcome.action) for outcome in self.outcomes}
        self._skip(
            [a for a in actions if id(a) not in known],
            "its cluster does not answer or rebalances, the next pass goes on",
        )

    def _in_batches(self, cluster: str, actions: Sequence[Action]) -> bool:
        """False when the cluster has stopped to answer."""
        largest = max(1, self.platform.settings.batch_size)
        size, at = min(largest, 25), 0
        while at < len(actions):
            batch = actions[at : at + size]
            if time.monotonic() > self.deadline:
                self._skip(actions[at:], _OUT_OF_TIME)
                return True
            self.fence.check()
            started = time.monotonic()
            done = self.fence.each([partial(self._perform, action) for action in batch], PARALLEL_CALLS)
            self.outcomes += done
            if all(outcome.unreachable for outcome in done):
                return False
            if not isinstance(batch[0], DeleteConnector):
                names = [o.action.name for o in done if o.status == "done"]  # type: ignore[union-attr]
                self._settle(cluster, names)
            at += len(batch)
            self.progress(f"Cluster {cluster}: {at} of {len(actions)} connectors changed.")
            size = next_size(size, time.monotonic() - started, largest)
        return True

    def _settle(self, cluster: str, names: Sequence[str]) -> None:
        """Wait until the group has assigned what was just changed, so that rebalances do not pile up.

        A cluster that does not answer is not waited for: the next batch finds that out.
        """
        limit = min(time.monotonic() + SETTLE_LIMIT, self.deadline)
        missing = list(names)
        while missing:
            settled = self.fence.each([partial(self._settled, cluster, name) for name in missing], PARALLEL_CALLS)
            missing = [name for name, there in zip(missing, settled, strict=True) if not there]
            if all(there is None for there in settled) or time.monotonic() > limit:
                return
            if missing:
                self.fence.sleep(SETTLE_POLL)

    def _settled(self, cluster: str, name: str) -> bool | None:
        """None when that cannot be read."""
        try:
            seen = self._clients[cluster].connector(name)
        except NotFound:
            return True  # somebody deleted it meanwhile
        except Unavailable:
            return None
        busy = not seen.tasks or any(task.state in ("UNASSIGNED", "RESTARTING") for task in seen.tasks)
        return not busy or seen.state == "FAILED"

    def _moves(self, moves: Sequence[Action]) -> None:
        for at in range(0, len(moves), PARALLEL_MOVES):
            if time.monotonic() > self.deadline:
                self._skip(moves[at:], _OUT_OF_TIME)
                return
            self.fence.check()
            batch = moves[at : at + PARALLEL_MOVES]
            self.outcomes += self.fence.each([partial(self._perform, move) for move in batch], PARALLEL_MOVES)
            self.progress(f"{min(at + PARALLEL_MOVES, len(moves))} of {len(moves)} connectors moved.")

    def _one(self, action: Action) -> bool:
        if time.monotonic() > self.deadline:
            self._skip([action], _OUT_OF_TIME)
            return False
        self.fence.check()
        outcome = self._perform(action)
        self.outcomes.append(outcome)
        return outcome.status == "done"

    def _skip(self, actions: Sequence[Action], why: str) -> None:
        self.outcomes += [ActionOutcome(action=action, status="skipped", error=why) for action in actions]

    def _perform(self, action: Action) -> ActionOutcome:
        started = time.monotonic()
        try:
            self._call(action)
        except LockLost:
            raise
        except CdcError as error:
            return _failed(action, error, started)
        return _done(action, started)

    def _call(self, action: Action) -> None:
        match action:
            case CreateTopic():
                self.platform.kafka.create_topics([action.topic])
            case AddPartitions():
                self.platform.kafka.add_partitions(action.topic, action.total)
            case AlterTopic():
                changes = {key: wanted for key, (_, wanted) in action.changes.items()}
                self.platform.kafka.alter_topic_config(action.topic, changes)
            case CreateConnector():
                self._clients[action.cluster].create(action.name, action.config)
            case UpdateConnector():
                self._publish(action)
                self._clients[action.cluster].update(action.name, action.config)
            case RestartConnector():
                self._restart(action)
            case ResumeConnector():
                self._clients[action.cluster].resume(action.name)
            case StopAndResumeConnector():
                bounce(action.name, self._clients[action.cluster], self.fence)
            case MigrateConnector():
                migrate(action, self._clients[action.source], self._clients[action.target], self.fence)
            case DeleteConnector():
                self._delete(action)

    def _publish(self, action: UpdateConnector) -> None:
        """A shard whose list of tables changes: its publication goes first, or its task would fail (SourceLogs)."""
        dataset_name, shard_id = ShardName.parse(action.name)
        dataset = self.topology.datasets.get(dataset_name)
        if INCLUDE_LIST not in action.changes or self.platform.sources is None or dataset is None:
            return
        for shard in self.topology.shards.get(dataset_name, ()):
            if shard.id == shard_id:
                own = identity(self.platform.settings, dataset, shard)
                self.platform.sources.publish(dataset, shard, own)

    def _restart(self, action: RestartConnector) -> None:
        client = self._clients[action.cluster]
        if not action.unwell:
            client.restart_failed(action.name)
            return
        try:
            client.restart_task(action.name, 0)
        except NotFound:
            bounce(action.name, client, self.fence)  # it has no task: a resume makes one

    def _delete(self, action: DeleteConnector) -> None:
        """Stop, forget the offsets (else a re-created name resumes at a stale place), delete, clean up."""
        client = self._clients[action.cluster]
        try:
            client.stop(action.name)
            wait_stopped(client, action.name, self.fence)
            client.reset_offsets(action.name)
        except NotFound:
            pass  # gone already: only what it left behind remains to be removed
        client.delete(action.name)
        if action.left_topics:
            self.fence.check()
            self.platform.kafka.delete_topics(action.left_topics)


def _done(action: Action, started: float) -> ActionOutcome:
    return ActionOutcome(action=action, status="done", seconds=time.monotonic() - started)


def _failed(action: Action, error: CdcError, started: float) -> ActionOutcome:
    return ActionOutcome(
        action=action,
        status="failed",
        error=str(error),
        seconds=time.monotonic() - started,
        unreachable=isinstance(error, ConnectUnavailable | ConnectRebalancing),
    )
