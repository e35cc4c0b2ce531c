"""The proof of shards whose tables have one shape: scan, wait for connectors, fold, compare, read again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TypeVar

from cdc_platform.clients.kafka.topic_records import Records, TopicBounds
from cdc_platform.errors import CdcError
from cdc_platform.model.positions import Position
from cdc_platform.verification.ports import Progress, Report, VerificationPolicy
from cdc_platform.verification.proof.committed_offsets import ConnectorOffsets, ConnectorProgress
from cdc_platform.verification.proof.connection_pool import Connections
from cdc_platform.verification.proof.differing_columns import has_drifted
from cdc_platform.verification.proof.shard_proof import Compared, Concluded, KeysRead, Scanned, ShardProof
from cdc_platform.verification.proof.topic_fold import TopicFold

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(slots=True)
class TableProof:
    """Takes shards of one table from one stage of their proof to the next; keeps the last value of each stage by shard.

    `rescan` makes a proof that reads the table from scratch of one that has read it.
    """

    topic: TopicFold
    records: Records
    offsets: ConnectorOffsets
    policy: VerificationPolicy
    report: Report
    rescan: Callable[[ShardProof], ShardProof]
    _starts: dict[str, Position] = field(init=False, default_factory=dict)
    _proofs: dict[str, ShardProof] = field(init=False, default_factory=dict)
    _scanned: dict[str, Scanned] = field(init=False, default_factory=dict)
    _progress: dict[str, ConnectorProgress] = field(init=False, default_factory=dict)
    _compared: dict[str, Compared] = field(init=False, default_factory=dict)
    _failed: dict[str, str] = field(init=False, default_factory=dict)

    def conclude(self, proofs: Sequence[ShardProof]) -> list[Concluded]:
        """All that the shards' verdicts go by, in their order. What goes wrong with one is in its `failed`."""
        self._proofs = {proof.shard.id: proof for proof in proofs}
        scanned = self._scan(proofs)
        self._starts = {one.proof.shard.id: one.proof.opened_at for one in scanned}
        try:
            self._compare(scanned)
            self.topic.check_unchanged(self.records.bounds())
        except (CdcError, OSError) as error:
            for one in scanned:
                self._failed.setdefault(one.proof.shard.id, reason_of(error))
        return [
            Concluded(
                proof=proof,
                scanned=self._scanned.get(shard),
                progress=self._progress.get(shard, ConnectorProgress()),
                compared=self._compared.get(shard),
                failed=self._failed.get(shard),
            )
            for shard, proof in self._proofs.items()
        ]

    def _compare(self, scanned: Sequence[Scanned]) -> None:
        """Fold up to the targets, compare, and read again what differs."""
        ready = self._caught_up(scanned)
        if not ready:
            return
        bounds = self._extend()
        for one in ready:
            self._keep(one.compare(self.topic, self.policy.slab_rows))
        shards = [one.proof.shard.id for one in ready]
        for again in range(self.policy.rereads):
            differing = [self._compared[shard] for shard in shards if shard not in self._failed]
            differing = [one for one in differing if one.differences.any]
            if not differing:
                break
            self._read_again(differing)
            if again == 0 and self._has_drifted(differing):
                self.topic.project()
                self.topic.extend(bounds, self._starts, self._topic_progress)
                for shard in (one.proof.shard.id for one in differing):
                    if shard not in self._failed:
                        self._keep(self._scanned[shard].compare(self.topic, self.policy.slab_rows))
        for shard in shards:
            if shard not in self._failed:
                self._check_not_altered(self._proofs[shard])

    def _scan(self, proofs: Sequence[ShardProof]) -> list[Scanned]:
        """Read the tables; those that cannot be read fail."""
        connections = Connections(self.policy.server_connections)
        total = sum(max(proof.inspection.rows, proof.scan.rows) for proof in proofs)
        done, lock = sum(proof.scan.rows for proof in proofs), Lock()

        def progress(rows: int) -> None:
            nonlocal done
            with lock:
                done += rows
                self.report(Progress(stage="source", done=done, total=max(total, done)))

        def read(proof: ShardProof) -> Scanned | None:
            try:
                return proof.read(connections, progress, self.policy.chunk_rows)
            except (CdcError, OSError) as error:
                self._failed[proof.shard.id] = reason_of(error)
                return None

        found = [one for one in in_parallel(read, proofs, self.policy.sources_at_once) if one is not None]
        self._scanned |= {one.proof.shard.id: one for one in found}
        return found

    def _caught_up(self, scanned: Sequence[Scanned]) -> list[Scanned]:
        """Those whose connectors have committed all of their targets."""
        if not scanned:
            return []
        sources = {one.proof.shard.id: one.proof.source for one in scanned}
        found = self.offsets.wait(
            [(one.proof.shard, one.targets) for one in scanned],
            self.policy.reach_seconds,
            lambda done, total: self.report(Progress(stage="reach", done=done, total=total)),
            lambda shard, committed: sources[shard.id].beyond(committed),
        )
        self._progress |= found
        return [one for one in scanned if found[one.proof.shard.id].caught_up_at is not None]

    def _extend(self) -> TopicBounds:
        """Take in all that the topic holds now; once the connectors have caught up, that is all up to the targets."""
        bounds = self.records.bounds()
        self.topic.extend(bounds, self._starts, self._topic_progress)
        return bounds

    def _read_again(self, differing: Sequence[Compared]) -> None:
        """Compare once more: single keys where they are few and all known, else the whole table."""
        read: list[KeysRead] = []
        rescans: list[Compared] = []
        # One after the other: finding keys reads the topic, whose client is not shared.
        for one in differing:
            known = len(one.differences.keys())
            if known != sum(one.differences.counts) or known > self.policy.reread_keys:
                rescans.append(one)
                continue
            try:
                read.append(one.read_again(self.topic))
            except CdcError as error:
                self._failed[one.proof.shard.id] = str(error)
        self._scanned |= {keys.scanned.proof.shard.id: keys.scanned for keys in read}
        ready = {one.proof.shard.id for one in self._caught_up([keys.scanned for keys in read])}
        self._extend()
        for keys in read:
            if keys.scanned.proof.shard.id in ready:
                self._keep(keys.compare(self.topic))
        for one in rescans:
            proof = self.rescan(one.proof)
            self._proofs[proof.shard.id] = proof
            for scanned in self._scan([proof]):
                self._compared[proof.shard.id] = replace(one, scanned=scanned)
                if self._caught_up([scanned]):
                    self._extend()
                    self._keep(scanned.compare(self.topic, self.policy.slab_rows))

    def _keep(self, compared: Compared) -> None:
        shard = compared.proof.shard.id
        self._compared[shard] = compared
        if compared.problem is not None:
            self._failed[shard] = compared.problem

    def _has_drifted(self, differing: Sequence[Compared]) -> bool:
        shards = [one.proof.shard.id for one in differing]
        return any(
            has_drifted(self._compared[shard], self.topic, self.policy.samples)
            for shard in shards
            if shard not in self._failed
        )

    def _check_not_altered(self, proof: ShardProof) -> None:
        try:
            now = proof.source.inspect()
        except CdcError as error:
            self._failed[proof.shard.id] = str(error)
            return
        if now.shape is None or now.shape.fingerprint != proof.shape.fingerprint:
            self._failed[proof.shard.id] = "the table was altered while it was read: run the verification again"

    def _topic_progress(self, done: int, total: int) -> None:
        self.report(Progress(stage="topic", done=done, total=total))


def reason_of(error: CdcError | OSError) -> str:
    """The reason. Clients translate what is theirs: an OSError is of the cache's files."""
    return str(error) if isinstance(error, CdcError) else f"the cache cannot be used: {error}"


def in_parallel(call: Callable[[Item], Result], items: Sequence[Item], most: int) -> list[Result]:
    """The results in the items' order; so many calls at once."""
    if len(items) < 2:
        return [call(item) for item in items]
    with ThreadPoolExecutor(most, thread_name_prefix="source") as pool:
        return list(pool.map(call, items))
