"""Three ways to follow a leader that moved: by agents, by delete and recreate, by a restart after a loop."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from cdc_platform.clients.platform import Platform
from cdc_platform.connectors.config import desired_config
from cdc_platform.connectors.leader_files import file_name, parse
from cdc_platform.model.agent_report import reports_by_worker
from cdc_platform.model.topology import Address, Dataset, Shard
from tests.connectors.harness import Harness as ConnectorHarness
from tests.waiting import assert_eventually

# A control plane's loop, seconds, and how many calls it has open at once.
LOOP, PARALLEL = 60.0, 8


@dataclass(kw_only=True)
class Mover(ConnectorHarness):
    """Connectors on the stack, and what is done when their leader moves."""

    platform: Platform
    dataset: Dataset
    shards: tuple[Shard, ...]
    dice: random.Random = field(default_factory=lambda: random.Random(8))

    def begin(self) -> None:
        """Captures the shards."""
        self.topology = replace(
            self.topology, datasets={self.dataset.name: self.dataset}, shards={self.dataset.name: self.shards}
        )
        self._make_topics()
        for shard in self.shards:
            self.write_leader(shard)
        self.each(self.create, self.shards)
        assert_eventually(self.runs, f"all tasks of {self.dataset.name} run")

    def move(self, leader: Address, *, at_once: bool = False) -> dict[str, float]:
        """The leader of all shards is another; shard id to when ZooKeeper had that (monotonic).

        `at_once` between measurements: whoever works in a loop does not wait for its turn.
        """
        self.shards = tuple(replace(s, leader=leader, generation=s.generation + 1) for s in self.shards)
        at = time.monotonic()
        if not at_once:
            self.wait_for_turn()
        self.follow()
        return {shard.id: at for shard in self.shards}

    def wait_for_turn(self) -> None:
        """Nothing: this one hears of a move at once."""

    def follow(self) -> None:
        """Makes the connectors go to the leaders that `shards` names."""
        raise NotImplementedError

    def are_at(self, leader: Address) -> bool:
        """True when no task is left with another leader: `follow` has come to its end."""
        return self.runs()

    def config(self, shard: Shard) -> Mapping[str, str]:
        return desired_config(self.dataset, shard, self.stack.cluster(), self.settings)

    def create(self, shard: Shard) -> None:
        self.call("PUT", f"/connectors/{shard.name}/config", json=dict(self.config(shard)))

    def runs(self) -> bool:
        """True when all tasks do. One that failed (a busy source at the start) is started again, and told of."""
        found = httpx.get(f"{self.url}/connectors?expand=status", timeout=30).json()
        tasks = {s.name: found.get(s.name, {}).get("status", {}).get("tasks") for s in self.shards}
        for name, one in tasks.items():
            if one and one[0]["state"] == "FAILED":
                print(f"{name} failed and is restarted: {one[0]['trace'].partition(chr(10))[0][:200]}")
                self.call("POST", f"/connectors/{name}/tasks/0/restart")
        return all(one and one[0]["state"] == "RUNNING" for one in tasks.values())

    def call(self, method: str, path: str, **more: Any) -> None:
        """Asked again while the group rebalances, as any control plane must."""

        def done() -> bool:
            answer = httpx.request(method, f"{self.url}{path}", timeout=90, **more)
            if answer.status_code == httpx.codes.CONFLICT:
                return False
            answer.raise_for_status()
            return True

        assert_eventually(done, f"{method} {path}")

    def each(self, call: Callable[[Shard], None], shards: Iterable[Shard]) -> None:
        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(call, shards))


class Agents(Mover):
    """Ours: the leader is written into ZooKeeper, and the agents beside the workers do the rest."""

    def begin(self) -> None:
        store = self.platform.topology
        store.put_cluster(self.stack.cluster())
        store.put_dataset(self.dataset)
        for shard in self.shards:
            store.put_shard(shard)
        assert_eventually(
            lambda: all(self._is_written(shard) for shard in self.shards), "the agents wrote the leader files"
        )
        super().begin()

    def move(self, leader: Address, *, at_once: bool = False) -> dict[str, float]:
        moved = {}
        for shard in self.shards:
            self.platform.topology.set_leader(shard.dataset, shard.id, leader)
            moved[shard.id] = time.monotonic()
        return moved

    def write_leader(self, shard: Shard) -> None:
        """Nothing: the agents do it."""

    def are_at(self, leader: Address) -> bool:
        """By what the agent beside each task's worker reports, that of a topology as new as the last move.

        The agents of other workers say for a minute that the shard moves: its task might turn up there.
        """
        topology = self.platform.topology.load()
        reports = reports_by_worker(self.platform.topology.agents())
        found = httpx.get(f"{self.url}/connectors?expand=status", timeout=30).json()
        for shard in topology.shards[self.dataset.name]:
            tasks = found.get(shard.name, {}).get("status", {}).get("tasks")
            report = reports.get(tasks[0]["worker_id"]) if tasks else None
            if report is None or shard.name in report.moving or not report.has_written(topology, shard):
                return False
            if shard.leader != leader:
                return False
        return self.runs()

    def close(self) -> None:
        self.platform.topology.delete_dataset(self.dataset.name)
        super().close()

    def _is_written(self, shard: Shard) -> bool:
        for worker in self.stack.workers:
            path = self.stack.directory / "workers" / worker / "leaders" / file_name(shard.name)
            if not path.exists() or parse(path.read_text(), where=str(path)).leader != shard.leader:
                return False
        return True


class Recreate(Mover):
    """A control plane that hears of the move at once, deletes the connector and creates it with the new address."""

    def config(self, shard: Shard) -> Mapping[str, str]:
        there = {"database.hostname": shard.leader.host, "database.port": str(shard.leader.port)}
        return {**super().config(shard), **there}

    def follow(self) -> None:
        def again(shard: Shard) -> None:
            self.call("DELETE", f"/connectors/{shard.name}")
            self.create(shard)

        self.each(again, self.shards)


class Restart(Mover):
    """A loop of 60 s that sees the move at its next turn, and restarts the tasks by REST, one after another."""

    def wait_for_turn(self) -> None:
        time.sleep(self.dice.uniform(0, LOOP))

    def follow(self) -> None:
        for shard in self.shards:
            self.write_leader(shard)
            self.call("POST", f"/connectors/{shard.name}/tasks/0/restart")
