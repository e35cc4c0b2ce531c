"""The proof that a topic is complete: scan in brackets, fold, compare, read again.

Nothing here trusts a clock. Time only ends waiting, and what ends so is
`pending` or `unverifiable`, never `proven` or `mismatched`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from cdc_platform.canonical.columns import Shape
from cdc_platform.clients.kafka.topic_records import Records
from cdc_platform.errors import CdcError, NotFound, TopologyError
from cdc_platform.model.topology import Dataset, Shard, Table, Topology
from cdc_platform.snapshots.run_records import Watermark, watermarks
from cdc_platform.verification.ports import Report, VerificationPolicy, VerificationPorts
from cdc_platform.verification.proof.committed_offsets import ConnectorOffsets
from cdc_platform.verification.proof.scan import Scan, remove_old_scans
from cdc_platform.verification.proof.shard_proof import ShardProof
from cdc_platform.verification.proof.source_causes import source_records, with_causes
from cdc_platform.verification.proof.table_proof import TableProof, in_parallel, reason_of
from cdc_platform.verification.proof.topic_fold import TopicFold
from cdc_platform.verification.proof.verdict_rules import VerdictRules
from cdc_platform.verification.proof.verdicts import ForeignRows, ShardVerdict, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRange:
    """Part of a verification: some shards of one table. Values only, to be sent to another process."""

    dataset: str
    table: str
    shards: tuple[str, ...]


def plan_verification(
    topology: Topology,
    dataset: str,
    table: str,
    shards: Sequence[str] | None = None,
    *,
    range_size: int = 100,
) -> tuple[ShardRange, ...]:
    """The table's shards (all, or those named) in ranges. Raises TopologyError for a name that is not there."""
    known = topology.dataset(dataset)
    known.table(table)
    if range_size < 1:
        raise TopologyError(f"{range_size} is no size of a range.", field="range_size", cure="Use 1 or more.")
    ids = [shard.id for shard in topology.shards.get(dataset, ())]
    if shards is not None:
        ids = [topology.shard(dataset, shard).id for shard in dict.fromkeys(shards)]
    return tuple(
        ShardRange(dataset=dataset, table=table, shards=tuple(ids[at : at + range_size]))
        for at in range(0, len(ids), range_size)
    )


def verify_shards(
    ports: VerificationPorts,
    topology: Topology,
    part: ShardRange,
    *,
    run_id: str,
    policy: VerificationPolicy | None = None,
    report: Report | None = None,
) -> tuple[ShardVerdict, ...]:
    """A verdict for each shard of the range, in its order.

    Idempotent: called again with the same `run_id` it goes on where it was
    killed. What goes wrong with one shard is its verdict; what goes wrong with
    the topic is raised or becomes the verdict of all.

    Raises:
        TopologyError: no such dataset, table or shard, or a bad policy.
    """
    dataset = topology.dataset(part.dataset)
    table = dataset.table(part.table)
    shards = [topology.shard(part.dataset, shard) for shard in part.shards]
    run = _Run(
        ports,
        dataset,
        table,
        frozenset(shard.id for shard in topology.shards.get(part.dataset, ())),
        run_id,
        policy or VerificationPolicy.of(dataset),
        report or (lambda progress: None),
        ConnectorOffsets(ports.platform, dataset, topology.clusters),
    )
    return run.verify(shards)


@dataclass(frozen=True, slots=True)
class _Run:
    ports: VerificationPorts
    dataset: Dataset
    table: Table
    known: frozenset[str]
    run_id: str
    policy: VerificationPolicy
    report: Report
    offsets: ConnectorOffsets

    @property
    def _topic(self) -> str:
        return self.dataset.topic(self.table)

    @property
    def _cache(self) -> Path:
        return Path(self.ports.platform.settings.cache_dir)

    @property
    def _rules(self) -> VerdictRules:
        return VerdictRules(self.dataset, self.table, self.run_id, self.policy)

    def verify(self, shards: Sequence[Shard]) -> tuple[ShardVerdict, ...]:
        started = time.monotonic()
        with closing(self.ports.records(self._topic)) as records:
            try:
                records.bounds()
                watermarks = self._watermarks()
                sources = source_records(self.ports.platform, self.dataset, self.table, shards)
            except NotFound:
                return self._all(shards, f"there is no topic {self._topic}")
            except CdcError as error:
                return self._all(shards, str(error))
            opened = in_parallel(self._open, shards, self.policy.sources_at_once)
            proofs = [found for found in opened if isinstance(found, ShardProof)]
            verdicts = {found.shard: found for found in opened if isinstance(found, ShardVerdict)}
            try:
                if proofs:
                    remove_old_scans(self._cache, self.run_id)
                for shape, group in _by_shape(proofs):
                    verdicts.update(self._verify(records, shape, group, watermarks))
            finally:
                for proof in proofs:
                    proof.source.close()
        seconds = time.monotonic() - started
        return tuple(
            with_causes(replace(verdicts[shard.id], seconds=round(seconds, 3)), sources.get(shard.id))
            for shard in shards
        )

    def _watermarks(self) -> Mapping[str, Watermark]:
        found = watermarks(self.ports.platform.state.read(), self.dataset.name)
        return {shard: mark for (table, shard), mark in found.items() if table == self.table.name}

    def _open(self, shard: Shard) -> ShardProof | ShardVerdict:
        try:
            source = self.ports.source(self.dataset, shard, self.table)
        except CdcError as error:
            return self._rules.plain(shard, Verdict.UNVERIFIABLE, str(error))
        try:
            found = source.inspect()
            if found.shape is None:
                source.close()
                reason = "; ".join(found.problems)
                return self._rules.plain(shard, Verdict.UNVERIFIABLE, reason, warnings=found.warnings)
            scan = self._scan(shard, found.shape)
            # A run that goes on has brackets from before: the fold keeps all that they can need.
            opened_at = scan.start or source.position()
            return ShardProof(shard, source, str(self._rules.address(shard)), found, found.shape, scan, opened_at)
        except (CdcError, OSError) as error:
            source.close()
            return self._rules.plain(shard, Verdict.UNVERIFIABLE, reason_of(error))

    def _verify(
        self, records: Records, shape: Shape, proofs: Sequence[ShardProof], watermarks: Mapping[str, Watermark]
    ) -> dict[str, ShardVerdict]:
        topic = TopicFold(self._cache, self.ports.platform.settings.platform, self._topic, shape, records)
        table = TableProof(topic, records, self.offsets, self.policy, self.report, self._rescan)
        verdicts = {}
        concluded = table.conclude(proofs)
        foreign = self._foreign(topic)
        for found in concluded:
            shard = found.proof.shard.id
            verdicts[shard] = self._rules.of(found, topic, watermarks.get(shard))
            if foreign is not None:
                verdicts[shard] = replace(verdicts[shard], foreign_rows=foreign.rows, foreign_shards=foreign.shards)
            if verdicts[shard].verdict is not Verdict.PENDING:
                found.proof.scan.discard()
        return verdicts

    def _foreign(self, topic: TopicFold) -> ForeignRows | None:
        """Rows of shards that the topology lacks, where the topic was folded; None where it was not."""
        try:
            counts = self._counts_of_foreign(topic) if topic.folded else None
        except (CdcError, OSError):
            return None  # The verdicts say what is wrong with topic or cache.
        return None if counts is None else ForeignRows(rows=sum(counts.values()), shards=tuple(sorted(counts)))

    def _counts_of_foreign(self, topic: TopicFold) -> dict[str, int]:
        batch = self.policy.slab_rows
        counts = {shard: sum(map(len, topic.live(shard, batch))) for shard in topic.others(self.known)}
        if any(counts.values()):
            # A shard may have been added since this verification began.
            now = self.ports.platform.topology.load().shards.get(self.dataset.name, ())
            counts = {shard: count for shard, count in counts.items() if shard not in {one.id for one in now}}
        return {shard: count for shard, count in counts.items() if count}

    def _all(self, shards: Sequence[Shard], reason: str) -> tuple[ShardVerdict, ...]:
        return tuple(self._rules.plain(shard, Verdict.UNVERIFIABLE, reason) for shard in shards)

    def _rescan(self, proof: ShardProof) -> ShardProof:
        """The same with a scan that has read nothing yet."""
        proof.scan.discard()
        return replace(proof, scan=self._scan(proof.shard, proof.shape))

    def _scan(self, shard: Shard, shape: Shape) -> Scan:
        return Scan(self._cache, (self.run_id, self.dataset.name, self.table.name, shard.id), shape)


def _by_shape(proofs: Sequence[ShardProof]) -> list[tuple[Shape, list[ShardProof]]]:
    """Shards may differ for a while, as a migration goes through them: each shape has a fold of its own."""
    groups: dict[str, tuple[Shape, list[ShardProof]]] = {}
    for proof in proofs:
        groups.setdefault(proof.shape.fingerprint, (proof.shape, []))[1].append(proof)
    return list(groups.values())
