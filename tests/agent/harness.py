"""The agent as tests run it: ZooKeeper in memory, a worker that records its restarts, a thread for each life."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from cdc_platform.agent.agent_loop import Agent, Identity
from cdc_platform.agent.journal import Journal
from cdc_platform.agent.leader_directory import LeaderDirectory
from cdc_platform.connectors.leader_files import LeaderFile
from cdc_platform.errors import LockHeld
from cdc_platform.model.agent_report import AgentReport
from cdc_platform.model.observed import ObservedTask
from cdc_platform.testing import InMemoryTopologyStore, InMemoryZooKeeper

ID = "127.0.0.1:8083"


class Worker:
    """A Connect worker: which tasks it shows, and with which file content each was last started."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.shown: dict[str, tuple[ObservedTask, ...]] = {}
        self.restarted: list[tuple[str, str]] = []
        self.failures: list[Exception] = []
        self.down: Exception | None = None

    def show(self, name: str, worker: str = ID, state: str = "RUNNING") -> None:
        self.shown[name] = (ObservedTask(id=0, state=state, worker=worker),)

    def tasks(self) -> Mapping[str, tuple[ObservedTask, ...]]:
        if self.down:
            raise self.down
        return dict(self.shown)

    def restart_task(self, name: str, task: int) -> None:
        if self.failures:
            raise self.failures.pop(0)
        text = (self.directory / f"{name}.properties").read_text()
        self.restarted.append((name, text.split("\n")[0].removeprefix("host=")))


class Harness:
    """A ZooKeeper, a worker and as many lives of the agent as a test wants."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.zookeeper = InMemoryZooKeeper()
        self.store = InMemoryTopologyStore(self.zookeeper)
        self.worker = Worker(path)
        self.agents: list[tuple[Agent, threading.Thread, InMemoryTopologyStore]] = []
        self.errors: list[Exception] = []
        self.hosts: tuple[str, ...] = ("*",)

    def start(self, name: str = "w0", connect_worker: str = ID, worker: Worker | None = None) -> Agent:
        session = InMemoryTopologyStore(self.zookeeper)
        identity = Identity(worker=name, connect_worker=connect_worker, connect_url=f"http://{connect_worker}")
        directory = LeaderDirectory(self.path, owner=name)
        agent = Agent(identity, session, directory, Journal(self.path, name), worker or self.worker, hosts=self.hosts)

        def run() -> None:
            try:
                agent.run()
            except LockHeld as error:
                self.errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        self.agents.append((agent, thread, session))
        return agent

    def stop(self) -> None:
        for agent, thread, session in self.agents:
            agent.stop()
            thread.join(20)
            assert not thread.is_alive()
            session.close()
        self.agents.clear()

    def files(self) -> dict[str, LeaderFile | None]:
        return LeaderDirectory(self.path, owner="test").read()

    def report(self, name: str = "w0") -> AgentReport | None:
        document = self.store.agents().get(name)
        return AgentReport.from_document(document) if document else None

    def synced(self) -> bool:
        report = self.report()
        return report is not None and report.synced >= self.store.load().zxid and not report.moving
