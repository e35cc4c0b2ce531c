"""A dataset of real shards that the platform captures, and the ways to look at it from outside."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg

from cdc_platform.clients.kafka.offset_history import OffsetTopics
from cdc_platform.clients.kafka.topic_records import TopicRecords
from cdc_platform.clients.platform import Platform
from cdc_platform.connectors.identity import identity
from cdc_platform.connectors.leader_files import LeaderFile, file_name, parse
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Address, BootstrapMode, Dataset, Engine, Shard, Table, TopicSpec
from cdc_platform.reconciler import run_pass as reconciler
from cdc_platform.settings import Settings
from cdc_platform.verification.continuity.breaks import ShardContinuity
from cdc_platform.verification.continuity.ledger import count_and_keep
from cdc_platform.verification.duplicates.causes import Blame, blame
from cdc_platform.verification.duplicates.deliveries import DeliveryReader
from cdc_platform.verification.duplicates.delivery_store import TopicDeliveries
from cdc_platform.verification.duplicates.transaction_takeovers import OffsetTakeovers
from cdc_platform.verification.proof.completeness import plan_verification, verify_shards
from cdc_platform.verification.proof.verdicts import ShardVerdict, Verdict
from cdc_platform.wiring import open_ledger, open_platform, verification_of
from tests.faults.far_proxy import FarProxy
from tests.faults.sources import Sources
from tests.tcp_proxy import TcpProxy
from tests.waiting import assert_eventually

TABLE = "items"
FIRST_ROWS = 50
DEADLINE = 240.0


@dataclass(kw_only=True)
class Harness:
    """One dataset on the stack's sources; its leader files come from agents, its connectors from the control plane."""

    directory: Path
    platform: Platform
    cache: Path
    engine: Engine = Engine.MARIADB
    count: int = 2
    more: Mapping[str, Any] = field(default_factory=dict)
    name: str = field(default_factory=lambda: f"f{secrets.token_hex(3)}")

    def __post_init__(self) -> None:
        stack = self.stack
        self.sources = Sources(directory=self.directory, engine=self.engine)
        self.dataset = Dataset(
            name=self.name,
            engine=self.engine,
            tables=(Table(name=TABLE),),
            clusters=(stack.cluster().name,),
            **{
                "credentials": stack.credentials(self.engine, self.name),
                "topics": TopicSpec(partitions=2, replication=1),
                "bootstrap": BootstrapMode.SNAPSHOT,
                **self.more,
            },
        )
        self.shards = tuple(
            Shard(dataset=self.name, id=f"{n:05d}", leader=self.sources.primary, database=f"{self.name}_{n:05d}")
            for n in range(self.count)
        )

    def lead_through(self, proxy: TcpProxy | FarProxy) -> None:
        """All shards are reached through a proxy, which is pointed at their server."""
        primary = self.sources.primary
        proxy.target = (primary.host, primary.port)
        self.shards = tuple(replace(shard, leader=Address.parse(proxy.address)) for shard in self.shards)

    @property
    def stack(self) -> Stack:
        """As it is now: a promotion changes it."""
        return Stack.load(self.directory)

    @property
    def settings(self) -> Settings:
        return self.platform.settings

    @property
    def topic(self) -> str:
        return self.dataset.topic(self.dataset.tables[0])

    def make(self) -> None:
        """Databases with first rows, and the topology: agents' files and the control plane's connectors follow."""
        for shard in self.shards:
            self.sources.create(shard.database, FIRST_ROWS)
        store = self.platform.topology
        store.put_cluster(self.stack.cluster())
        store.put_dataset(self.dataset)
        for shard in self.shards:
            store.put_shard(shard)
        assert_eventually(
            lambda: all(self.leader_of(s) is not None for s in self.shards), "the agents wrote the leader files"
        )
        assert_eventually(lambda: set(self.states().values()) == {"RUNNING"}, f"all tasks of {self.name} run")

    def clean(self) -> None:
        """Everything away, and a pass that takes the shrinkage for meant. A slot that is still held is waited for."""
        self.platform.topology.delete_dataset(self.name)
        client = self.platform.connect(self.stack.cluster())
        for shard in self.shards:
            client.delete(shard.name)
        meant = reconciler.policy_of(self.platform, allow_deletes=self.count, accept_shrink=True)
        reconciler.reconcile(self.platform, owner="the fault suite", policy=meant, wait_for_lock=60.0)
        for shard in self.shards:
            if self.engine is Engine.POSTGRES:
                self._drop_slot(shard)
            else:
                with self.sources.admin() as run:
                    run(f"DROP DATABASE IF EXISTS {shard.database}")

    def _drop_slot(self, shard: Shard) -> None:
        slot = identity(self.settings, self.dataset, shard).slot
        end = time.monotonic() + 60
        with self.sources.admin() as run:
            while run("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", slot):
                try:
                    run("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s", slot)
                    run(
                        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s",
                        slot,
                    )
                except psycopg.Error:
                    assert time.monotonic() < end, f"{slot} stays in use"
                    time.sleep(0.2)

    # What Connect says, by a plain client

    def get(self, path: str) -> Any:
        """A GET of Connect's REST API from any worker that answers; None when none does or for a 404."""
        for url in self.stack.connect_urls:
            try:
                answer = httpx.get(f"{url}{path}", timeout=5)
            except httpx.HTTPError:
                continue
            if answer.is_success:
                return answer.json()
        return None

    def call(self, method: str, path: str, **more: Any) -> None:
        """A change by hand, asked again while the group rebalances."""

        def done() -> bool:
            for url in self.stack.connect_urls:
                try:
                    answer = httpx.request(method, f"{url}{path}", timeout=30, **more)
                except httpx.HTTPError:
                    continue
                if answer.status_code != httpx.codes.CONFLICT:
                    answer.raise_for_status()
                    return True
            return False

        assert_eventually(done, f"{method} {path}")

    def statuses(self) -> dict[str, Any]:
        """Shard name to its task's status; without those that have no task."""
        found = self.get("/connectors?expand=status") or {}
        tasks = {name: one["status"]["tasks"] for name, one in found.items() if "status" in one}
        return {s.name: tasks[s.name][0] for s in self.shards if tasks.get(s.name)}

    def states(self) -> dict[str, str | None]:
        """Shard name to its task's state; None without a task."""
        known = self.statuses()
        return {shard.name: known[shard.name]["state"] if shard.name in known else None for shard in self.shards}

    def home(self, shard: Shard) -> str | None:
        """The worker on which the shard's task runs; None while it runs nowhere."""
        status = self.statuses().get(shard.name)
        if status is None or status["state"] != "RUNNING":
            return None
        port = int(status["worker_id"].rpartition(":")[2])
        stack = self.stack
        return next(name for name in stack.workers if stack.launches[name].ports["connect"] == port)

    def leader_of(self, shard: Shard) -> LeaderFile | None:
        """What the leader file says on all workers; None while one has none, or another."""
        found = set()
        for worker in self.stack.workers:
            path = self.directory / "workers" / worker / "leaders" / file_name(shard.name)
            found.add(parse(path.read_text(), where=str(path)) if path.exists() else None)
        return found.pop() if len(found) == 1 else None

    def offset(self, shard: Shard) -> dict[str, Any]:
        """The committed source offset."""
        found = (self.get(f"/connectors/{shard.name}/offsets") or {}).get("offsets")
        return dict(found[0]["offset"]) if found else {}

    def streams_from(self, shard: Shard) -> bool:
        """True once an offset is committed that is not a snapshot's."""
        found = self.offset(shard)
        return bool(found) and not found.get("snapshot")

    # What the platform says

    def verify(self, run_id: str) -> tuple[ShardVerdict, ...]:
        """Verdicts of all shards, a pending one asked again until the deadline."""
        end = time.monotonic() + DEADLINE
        while True:
            topology = self.platform.topology.load()
            found: list[ShardVerdict] = []
            for part in plan_verification(topology, self.name, TABLE):
                found += verify_shards(verification_of(self.platform), topology, part, run_id=run_id)
            if all(one.verdict is not Verdict.PENDING for one in found) or time.monotonic() > end:
                return tuple(found)
            run_id += "+"

    def continuity(self) -> ShardContinuity:
        """What the ledger says of the only shard."""
        with open_ledger(self.platform) as outside:
            _, found = count_and_keep(outside, self.platform.topology.load(), self.name, TABLE, run_id="faults")
        assert not found.problem, found.problem
        (shard,) = found.shards
        return shard

    def blames(self, moved: Mapping[str, tuple[datetime, ...]]) -> list[Blame]:
        """Duplicates by cause; `moved`: shard id to when its leader was seen to have moved."""
        records = TopicRecords(self.settings.kafka, self.topic, traced=True)
        try:
            bounds = records.bounds()
            seen = TopicDeliveries(
                self.cache,
                self.settings.platform,
                self.topic,
                bounds.topic_id,
                sorted(bounds.partitions),
                self.takeovers(),
            )
            reader = lambda: DeliveryReader(self.engine)  # noqa: E731
            seen.extend(records, reader, dict(bounds.partitions), lambda done, total: None)
        finally:
            records.close()
        return blame(seen.counts(), {shard.id: moved.get(shard.id, ()) for shard in self.shards})

    def takeovers(self) -> OffsetTakeovers | None:
        """As the platform asks how task runs began."""
        topology = self.platform.topology.load()
        known = OffsetTakeovers(OffsetTopics(self.settings.kafka), topology, topology.dataset(self.name))
        return known if self.engine.reads_binlog else None


def open_site_platform(stack: Stack, cache: Path) -> Any:
    """The stack's platform, as its agents know it, with a cache of the test's own."""
    return open_platform(replace(stack.settings(), cache_dir=str(cache), connect_timeout=30.0))
