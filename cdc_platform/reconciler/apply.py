"""Apply a plan: bounded batches, the lock checked before each, every action with an outcome."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from cdc_platform.clients.platform import Platform
from cdc_platform.clients.protocols import Connect, ControlLock
from cdc_platform.errors import CdcError, LockLost, NotFound, Unavailable
from cdc_platform.plan import (
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
    UpdateConnector,
)
from cdc_platform.reconciler.batches import next_size
from cdc_platform.reconciler.migrate import migrate, wait_stopped
from cdc_platform.reconciler.report import Outcome
from cdc_platform.topology import Cluster

Progress = Callable[[str], None]

# Calls in flight at once to one Connect cluster: its herder works serially anyway.
PARALLEL_CALLS = 16
SETTLE_LIMIT = 60.0
SETTLE_POLL = 0.5


@dataclass(kw_only=True)
class Applier:
    """Applies one plan under one lock.

    `on_restart` is called after each restart that came through, before the next
    one, so that a control plane killed in between repeats at most one call.
    """

    platform: Platform
    lock: ControlLock
    clusters: Mapping[str, Cluster]
    deadline: float
    progress: Progress
    on_restart: Callable[[RestartConnector], None]
    outcomes: list[Outcome] = field(default_factory=list)

    def apply(self, plan: Plan) -> tuple[Outcome, ...]:
        """Do it. Raises LockLost as soon as the lock may be another's; what was done stays done."""
        topics = [a for a in plan.actions if isinstance(a, CreateTopic | AddPartitions | AlterTopic)]
        failed_topics = self._topics(topics)
        for restart in [a for a in plan.actions if isinstance(a, RestartConnector)]:
            if self._one(restart):
                self.on_restart(restart)
        for kind in (ResumeConnector, CreateConnector, UpdateConnector):
            by_cluster: dict[str, list[Action]] = {}
            for action in plan.actions:
                if isinstance(action, kind):
                    by_cluster.setdefault(action.cluster, []).append(action)
            for cluster, actions in by_cluster.items():
                if kind is CreateConnector and failed_topics:
                    # Connect would make the missing topic itself, with the wrong settings.
                    self._skip(actions, f"topic {failed_topics[0]} could not be made")
                else:
                    self._in_batches(cluster, actions)
        for action in plan.actions:
            if isinstance(action, MigrateConnector | DeleteConnector):
                self._one(action)
        return tuple(self.outcomes)

    def _topics(self, actions: Sequence[Action]) -> list[str]:
        if not actions:
            return []
        self.lock.check()
        creates = [a for a in actions if isinstance(a, CreateTopic)]
        failed: list[str] = []
        if creates:
            self.progress(f"Creating {len(creates)} topics.")
            started = time.monotonic()
            try:
                self.platform.kafka.create_topics([a.topic for a in creates])
                self.outcomes += [_done(a, started) for a in creates]
            except CdcError as error:
                self.outcomes += [_failed(a, error, started) for a in creates]
                failed = [a.topic.name for a in creates]
        for action in actions:
            if not isinstance(action, CreateTopic):
                self._one(action)
        return failed

    def _in_batches(self, cluster: str, actions: Sequence[Action]) -> None:
        largest = max(1, self.platform.settings.batch_size)
        size, at = min(largest, 25), 0
        while at < len(actions):
            batch = actions[at : at + size]
            if time.monotonic() > self.deadline:
                self._skip(actions[at:], "the pass's time is used up, the next pass goes on")
                return
            self.lock.check()
            started = time.monotonic()
            with ThreadPoolExecutor(max_workers=PARALLEL_CALLS, thread_name_prefix="apply") as pool:
                done = list(pool.map(self._perform, batch))
            self.outcomes += done
            names = [o.action.name for o in done if o.status == "done"]  # type: ignore[union-attr]
            self._settle(cluster, names)
            at += len(batch)
            self.progress(f"Cluster {cluster}: {at} of {len(actions)} connectors changed.")
            size = next_size(size, time.monotonic() - started, largest)

    def _settle(self, cluster: str, names: Sequence[str]) -> None:
        """Wait until the group has assigned what was just changed, so that rebalances do not pile up."""
        client = self._client(cluster)
        limit = min(time.monotonic() + SETTLE_LIMIT, self.deadline)
        missing = set(names)
        while missing and time.monotonic() < limit:
            self.lock.check()
            try:
                seen = client.connectors()
            except Unavailable:
                seen = {}
            missing = {
                name
                for name in missing
                if name not in seen
                or not seen[name].tasks
                or any(task.state in ("UNASSIGNED", "RESTARTING") for task in seen[name].tasks)
            }
            missing -= {name for name in missing if name in seen and seen[name].state == "FAILED"}
            if missing:
                time.sleep(SETTLE_POLL)

    def _one(self, action: Action) -> bool:
        if time.monotonic() > self.deadline:
            self._skip([action], "the pass's time is used up, the next pass goes on")
            return False
        self.lock.check()
        outcome = self._perform(action)
        self.outcomes.append(outcome)
        return outcome.status == "done"

    def _skip(self, actions: Sequence[Action], why: str) -> None:
        self.outcomes += [Outcome(action=action, status="skipped", error=why) for action in actions]

    def _client(self, cluster: str) -> Connect:
        return self.platform.connect(self.clusters[cluster])

    def _perform(self, action: Action) -> Outcome:
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
                self._client(action.cluster).create(action.name, action.config)
            case UpdateConnector():
                self._client(action.cluster).update(action.name, action.config)
            case RestartConnector():
                self._client(action.cluster).restart_failed(action.name)
            case ResumeConnector():
                self._client(action.cluster).resume(action.name)
            case MigrateConnector():
                migrate(action, self._client(action.source), self._client(action.target), self.lock)
            case DeleteConnector():
                self._delete(action)

    def _delete(self, action: DeleteConnector) -> None:
        """Stop, forget the offsets (else a re-created name resumes at a stale place), delete, clean up."""
        client = self._client(action.cluster)
        try:
            client.stop(action.name)
            wait_stopped(client, action.name)
            client.reset_offsets(action.name)
        except NotFound:
            pass  # gone already: only what it left behind remains to be removed
        client.delete(action.name)
        if action.left_topics:
            self.platform.kafka.delete_topics(action.left_topics)


def _done(action: Action, started: float) -> Outcome:
    return Outcome(action=action, status="done", seconds=time.monotonic() - started)


def _failed(action: Action, error: CdcError, started: float) -> Outcome:
    return Outcome(action=action, status="failed", error=str(error), seconds=time.monotonic() - started)
