"""The agent's loop: load, check new leaders, write the files that differ and may be written, restart, report.

Level-based: each round does all of it.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from cdc_platform.agent.journal import Journal, OldLeader, Remembered
from cdc_platform.agent.leader_directory import LeaderDirectory
from cdc_platform.agent.leader_gate import LeaderCheck, LeaderGate
from cdc_platform.agent.split_brain_watch import OldLeaders
from cdc_platform.agent.task_restarter import Restarter, Worker
from cdc_platform.clients.protocols import AgentRegistration, TopologyStore
from cdc_platform.connectors.leader_files import LeaderFile
from cdc_platform.connectors.source_servers import is_permitted_host
from cdc_platform.errors import LockHeld, Unavailable
from cdc_platform.failover.repointing import FilePlan, baseline, desired_files, leftover_files, moved, plan_files
from cdc_platform.model.agent_report import AgentReport
from cdc_platform.model.topology import Address, Topology

log = logging.getLogger(__name__)

# A round without a change: reports that the agent lives, and finds what no watch shows (a file deleted by hand).
_ROUND_SECONDS = 30.0
_RETRY_SECONDS = 2.0
# Files written before restarts begin.
_BATCH = 500
# Least time between two reports: many changes at once are one.
_REPORT_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who the agent is. `connect_worker` is the worker's id in Connect (host:port)."""

    worker: str
    connect_worker: str
    connect_url: str


class Agent:
    """One agent. `run` returns when `stop` was called. Leaders elsewhere than on `hosts`, patterns, get no file.

    Raises:
        LockHeld: another agent has taken this worker.
    """

    def __init__(
        self,
        identity: Identity,
        store: TopologyStore,
        directory: LeaderDirectory,
        journal: Journal,
        worker: Worker,
        *,
        restart_parallel: int = 2,
        check: LeaderCheck | None = None,
        old_leaders: OldLeaders | None = None,
        hosts: Sequence[str] = ("*",),
    ) -> None:
        self._identity = identity
        self._store = store
        self._directory = directory
        self._journal = journal
        self._worker = worker
        self._check = check
        self._old_leaders = old_leaders
        self._hosts = tuple(hosts)
        self._refused: dict[str, str] = {}
        self._wake = threading.Event()
        self._restarter = Restarter(
            worker,
            identity.connect_worker,
            parallel=restart_parallel,
            settled=self._on_settled,
            restarted=self._on_restarted if old_leaders else None,
        )
        self._gate = (
            LeaderGate(check.obstacle, opened=self._on_opened, quiet=self._wake.set) if check is not None else None
        )
        self._came_from: dict[str, Address] = {}
        self._resumed: Mapping[str, OldLeader] = {}
        self._stop = threading.Event()
        self._applied: dict[str, LeaderFile] = {}
        self._applying = threading.Lock()
        self._registration: AgentRegistration | None = None
        self._reported = -_ROUND_SECONDS
        self._started = datetime.now(UTC)
        self._asking = ThreadPoolExecutor(max_workers=1, thread_name_prefix="connectors")
        self._connectors: Future[Mapping[str, object]] | None = None
        self._asked_about: frozenset[str] = frozenset()

    def stop(self) -> None:
        """Ask `run` to end. May be called from a signal handler."""
        self._stop.set()
        self._wake.set()

    def run(self) -> None:
        """Keep the files until stopped. An outage of ZooKeeper leaves them as they are."""
        known = self._journal.read()
        self._applied, self._resumed = dict(known.applied), known.old
        parts = [part for part in (self._restarter, self._gate, self._old_leaders) if part is not None]
        for part in parts:
            part.start()
        unwatch = None
        quiet = False
        try:
            while not self._stop.is_set():
                self._wake.clear()
                try:
                    unwatch = unwatch or self._store.watch(self._wake.set)
                    pause = self._round(self._store.load(), quiet=quiet)
                except (Unavailable, OSError) as error:
                    log.warning("the leader files stay as they are: %s", error)
                    pause = _RETRY_SECONDS
                quiet = not self._wake.wait(pause)
        finally:
            if unwatch:
                unwatch()
            for part in parts:
                part.stop()
            self._asking.shutdown(wait=False, cancel_futures=True)
            self._sign_off()

    def _round(self, topology: Topology, *, quiet: bool) -> float:
        """Do what is to be done; returns how long to wait for a change, seconds."""
        for learner in (self._check, self._old_leaders):
            if learner is not None:
                learner.learn(topology)
        if self._old_leaders is not None and self._resumed:
            self._old_leaders.resume(self._resumed)
            self._resumed = {}
        desired = desired_files(topology)
        found = self._directory.read()
        with self._applying:
            self._applied = baseline(self._applied, found, desired)
        connectors = self._known_connectors(desired, found) if quiet else None
        plan = plan_files(desired, found, topology.problems, connectors)
        self._refuse(plan.write)
        failed: dict[str, str] = {}
        asked = {name: leader for name, leader in moved(plan.write, found).items() if name not in self._refused}
        waiting = asked.keys() - self._gate.ask(asked) if self._gate is not None else frozenset()
        waiting |= self._refused.keys()
        names = sorted(plan.write.keys() - waiting)
        for batch in (names[at : at + _BATCH] for at in range(0, len(names), _BATCH)):
            failed |= self._directory.write({name: plan.write[name] for name in batch})
            # Restarts of the first need not wait until the last of thousands is written.
            self._follow({name: desired[name] for name in batch if name not in failed})
        unsure = failed.keys() | waiting | set(plan.ahead)
        self._follow({name: leader for name, leader in desired.items() if name not in unsure})
        # Before the journal is written: what a report calls done is then in the journal.
        moving = self._moving()
        self._remember()
        self._directory.remove(plan.remove)
        self._say(plan, len(names), failed, desired, found)
        due = self._reported + _REPORT_SECONDS - time.monotonic()
        if due > 0:
            return due
        self._report(topology, len(desired), frozenset(unsure), frozenset(plan.ahead), moving)
        return _RETRY_SECONDS if failed else _ROUND_SECONDS

    def _refuse(self, write: Mapping[str, LeaderFile]) -> None:
        """Leaders at hosts that no operator permits: tasks would send their login there."""
        before, self._refused = (
            self._refused,
            {
                name: f"its leader {leader.leader} is not among the permitted hosts. "
                "Cure: Correct the topology, or add the host to source_hosts of the agent's settings."
                for name, leader in write.items()
                if not is_permitted_host(leader.leader.host, self._hosts)
            },
        )
        for name in sorted(self._refused.keys() - before.keys())[:10]:
            log.error("the leader file of %s is not written: %s", name, self._refused[name])

    def _remember(self) -> None:
        with self._applying:
            applied = self._applied
        # Asked after it: what counts as applied here is watched already.
        old = self._old_leaders.watching() if self._old_leaders else {}
        self._journal.write(Remembered(applied=applied, old=old))

    def _say(
        self,
        plan: FilePlan,
        written: int,
        failed: Mapping[str, str],
        desired: Mapping[str, LeaderFile],
        found: Mapping[str, LeaderFile | None],
    ) -> None:
        if written or plan.remove:
            log.info("%d leader files written, %d removed", written - len(failed), len(plan.remove))
        for name, reason in sorted(failed.items())[:10]:
            log.error("the leader file of %s was not written: %s", name, reason)
        for name in plan.ahead[:10]:
            log.error(
                "the leader file of %s is newer (%s) than ZooKeeper (%s) and is kept; if ZooKeeper is right "
                "(it was restored or rebuilt), remove the file",
                name, found[name], desired[name],
            )  # fmt: skip

    def _known_connectors(
        self, desired: Mapping[str, LeaderFile], found: Mapping[str, LeaderFile | None]
    ) -> frozenset[str] | None:
        """The connectors of the cluster, if a file might be removed and they are known.

        Asked in the background: a slow answer must not delay a failover.
        """
        asked, self._connectors = self._connectors, None
        leftover = leftover_files(desired, found)
        if not leftover:
            return None
        if asked is not None and asked.done() and not asked.cancelled() and asked.exception() is None:
            # The answer may be a round old: it says nothing about the connector of a file that has come since.
            return frozenset(asked.result()) | (leftover - self._asked_about)
        if asked is not None and not asked.done():
            self._connectors = asked
        else:
            self._connectors, self._asked_about = self._asking.submit(self._worker.tasks), leftover
        return None

    def _follow(self, written: Mapping[str, LeaderFile]) -> None:
        """Hand moves to the restarter; all other files count as applied."""
        with self._applying:
            moves = moved(written, self._applied)
            self._came_from |= {name: self._applied[name].leader for name in moves}
            self._applied = self._applied | {name: leader for name, leader in written.items() if name not in moves}
        self._restarter.add(moves)

    def _on_opened(self, name: str, leader: LeaderFile) -> None:
        try:
            failed = self._directory.write({name: leader})
        except OSError as error:
            failed = {name: str(error)}
        if failed:
            # The loop tries again.
            log.error("the leader file of %s was not written: %s", name, failed[name])
            return
        self._follow({name: leader})

    def _on_settled(self, settled: Mapping[str, LeaderFile]) -> None:
        with self._applying:
            self._applied = self._applied | {name: leader for name, leader in settled.items() if name in self._applied}
            for name in settled:
                self._came_from.pop(name, None)
        self._wake.set()  # journal and report are the loop's

    def _on_restarted(self, name: str) -> None:
        with self._applying:
            old = self._came_from.get(name)
        if old is not None and self._old_leaders is not None:
            self._old_leaders.add({name: old})

    def _moving(self) -> dict[str, int]:
        """Shards whose tasks do not run with their new leader yet, and its generation."""
        asked = self._gate.waiting() if self._gate else {}
        return {name: leader.generation for name, leader in (asked | self._restarter.waiting()).items()}

    def _report(
        self,
        topology: Topology,
        files: int,
        unsynced: frozenset[str],
        ahead: frozenset[str],
        moving: Mapping[str, int],
    ) -> None:
        blocked = self._gate.blocked() if self._gate else {}
        report = AgentReport(
            connect_worker=self._identity.connect_worker,
            connect_url=self._identity.connect_url,
            leader_dir=str(self._directory.path),
            pid=os.getpid(),
            host=socket.gethostname(),
            started=self._started,
            reported=datetime.now(UTC),
            synced=topology.zxid,
            files=files,
            unsynced=unsynced,
            ahead=ahead,
            moving=moving,
            problem=self._restarter.problem,
            blocked=self._refused | {name: str(obstacle) for name, obstacle in blocked.items()},
            split={name: split.text for name, split in self._old_leaders.split().items()} if self._old_leaders else {},
        )
        if self._registration is None:
            self._registration = self._store.register_agent(self._identity.worker, report.to_document())
            log.info("registered as %s; %d leader files are up to date", self._identity.worker, files)
        else:
            self._registration.update(report.to_document())
        self._reported = time.monotonic()

    def _sign_off(self) -> None:
        if self._registration is not None:
            try:
                self._registration.close()
            except (Unavailable, LockHeld) as error:
                log.info("the registration ends with the session: %s", error)
