"""The proof that a topic is complete: bracket, fold, compare, look again.

Nothing here trusts a clock. Time only ends waiting, and what ends so is
`pending` or `unverifiable`, never `proven` or `mismatched`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

from cdc_platform.canonical.columns import Shape
from cdc_platform.clients.kafka.topic_records import Records, TopicBounds
from cdc_platform.errors import CdcError, NotFound, TopologyError
from cdc_platform.model.positions import Position
from cdc_platform.model.topology import Cluster, Dataset, Shard, Table, Topology
from cdc_platform.snapshots.run_records import Watermark, watermarks
from cdc_platform.verification.ports import Progress, Report, VerificationPolicy, VerificationPorts
from cdc_platform.verification.proof.committed_offsets import ConnectorOffsets, ConnectorProgress
from cdc_platform.verification.proof.connection_pool import Connections
from cdc_platform.verification.proof.differing_columns import samples
from cdc_platform.verification.proof.fold_files import Drifted
from cdc_platform.verification.proof.scan import Scan, remove_old_scans
from cdc_platform.verification.proof.shard_proof import KeyReread, ShardProof, combined
from cdc_platform.verification.proof.topic_fold import TopicFold
from cdc_platform.verification.proof.verdict_rules import VerdictRules
from cdc_platform.verification.proof.verdicts import ShardVerdict, Verdict


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
        ports, dataset, table, topology.clusters, run_id, policy or VerificationPolicy.of(dataset), report or _silent
    )
    return run.verify(shards)


def _silent(progress: Progress) -> None:
    """Nobody wants to know."""


class _Run:
    def __init__(
        self,
        ports: VerificationPorts,
        dataset: Dataset,
        table: Table,
        clusters: Mapping[str, Cluster],
        run_id: str,
        policy: VerificationPolicy,
        report: Report,
    ) -> None:
        self._ports = ports
        self._dataset, self._table = dataset, table
        self._topic = dataset.topic(table)
        self._connectors = ConnectorOffsets(ports.platform, dataset, clusters)
        self._run_id, self._policy, self._report = run_id, policy, report
        self._cache = Path(ports.platform.settings.cache_dir)
        self._reached: dict[str, ConnectorProgress] = {}
        self._conclusions = VerdictRules(dataset, table, run_id, self._policy)
        self._connections = Connections(self._policy.server_connections)

    def verify(self, shards: Sequence[Shard]) -> tuple[ShardVerdict, ...]:
        started = time.monotonic()
        verdicts: dict[str, ShardVerdict] = {}
        with self._records() as records:
            try:
                records.bounds()
                watermarks = self._watermarks()
            except NotFound:
                return self._all(shards, f"there is no topic {self._topic}")
            except CdcError as error:
                return self._all(shards, str(error))
            cases = self._open(shards, verdicts)
            try:
                if cases:
                    remove_old_scans(self._cache, self._run_id)
                for shape, group in _by_shape(cases):
                    verdicts.update(self._verify(records, shape, group, watermarks))
            finally:
                for case in cases:
                    case.source.close()
        seconds = time.monotonic() - started
        return tuple(replace(verdicts[shard.id], seconds=round(seconds, 3)) for shard in shards)

    @contextmanager
    def _records(self) -> Iterator[Records]:
        records = self._ports.records(self._topic)
        try:
            yield records
        finally:
            records.close()

    def _watermarks(self) -> Mapping[str, Watermark]:
        found = watermarks(self._ports.platform.state.read(), self._dataset.name)
        return {shard: mark for (table, shard), mark in found.items() if table == self._table.name}

    def _open(self, shards: Sequence[Shard], verdicts: dict[str, ShardVerdict]) -> list[ShardProof]:
        def opened(shard: Shard) -> ShardProof | ShardVerdict:
            try:
                source = self._ports.source(self._dataset, shard, self._table)
            except CdcError as error:
                return self._conclusions.plain(shard, Verdict.UNVERIFIABLE, str(error))
            try:
                found = source.inspect()
                if found.shape is None:
                    source.close()
                    reason = "; ".join(found.problems)
                    return self._conclusions.plain(shard, Verdict.UNVERIFIABLE, reason, warnings=found.warnings)
                scan = self._scan(shard, found.shape)
                # A run that goes on has brackets from before: the fold keeps all that they can need.
                fence = scan.since or source.position()
                return ShardProof(shard, source, str(self._conclusions.address(shard)), found, scan, fence)
            except (CdcError, OSError) as error:
                source.close()
                return self._conclusions.plain(shard, Verdict.UNVERIFIABLE, _told(error))

        cases = []
        for shard, found in zip(shards, self._parallel(opened, shards), strict=True):
            if isinstance(found, ShardProof):
                cases.append(found)
            else:
                verdicts[shard.id] = found
        return cases

    def _verify(
        self, records: Records, shape: Shape, cases: list[ShardProof], watermarks: Mapping[str, Watermark]
    ) -> dict[str, ShardVerdict]:
        settings = self._ports.platform.settings
        topic = TopicFold(self._cache, settings.platform, self._topic, shape, records)
        self._read(cases)
        alive = [case for case in cases if case.failed is None]
        try:
            self._judge(topic, records, alive)
            topic.still(records.bounds())
        except (CdcError, OSError) as error:
            for case in alive:
                case.failed = case.failed or _told(error)
        found = {}
        for case in cases:
            found[case.shard.id] = self._conclusions.of(
                case, self._reached.get(case.shard.id, ConnectorProgress()), topic, watermarks.get(case.shard.id)
            )
            if found[case.shard.id].verdict is not Verdict.PENDING:
                case.scan.discard()
        return found

    def _judge(self, topic: TopicFold, records: Records, alive: list[ShardProof]) -> None:
        """Fold up to the fences, compare, and look again at what differs."""
        fences = {case.shard.id: case.fence for case in alive}
        ready = self._reach(alive)
        if not ready:
            return
        bounds = self._extend(topic, records, fences)
        for case in ready:
            case.compare(topic, self._policy.slab_rows)
        for again in range(self._policy.rereads):
            differing = [case for case in ready if case.failed is None and case.differences and case.differences.any]
            if not differing:
                break
            self._look_again(topic, records, fences, differing)
            if again == 0 and self._drifted(topic, differing):
                topic.project()
                topic.extend(bounds, fences, self._topic_progress)
                for case in differing:
                    case.compare(topic, self._policy.slab_rows)
        for case in ready:
            if case.failed is None and self._altered(case):
                case.failed = "the table was altered while it was read: run the verification again"

    def _read(self, cases: list[ShardProof]) -> None:
        total = sum(max(case.inspection.rows, case.scan.rows) for case in cases)
        done, lock = sum(case.scan.rows for case in cases), Lock()

        def progress(rows: int) -> None:
            nonlocal done
            with lock:
                done += rows
                self._report(Progress(stage="source", done=done, total=max(total, done)))

        def read(case: ShardProof) -> None:
            try:
                case.read(self._connections, progress, self._policy.chunk_rows)
            except (CdcError, OSError) as error:
                case.failed = _told(error)

        list(self._parallel(read, cases))

    def _reach(self, cases: Sequence[ShardProof]) -> list[ShardProof]:
        """The cases whose connectors have got to all of their goals; the others keep what they said."""
        if not cases:
            return []
        sources = {case.shard.id: case.source for case in cases}
        found = self._connectors.wait(
            [(case.shard, case.goals) for case in cases],
            self._policy.reach_seconds,
            self._reach_progress,
            lambda shard, committed: sources[shard.id].beyond(committed),
        )
        self._reached.update(found)
        return [case for case in cases if found[case.shard.id].at is not None]

    def _extend(self, topic: TopicFold, records: Records, fences: Mapping[str, Position]) -> TopicBounds:
        """Take in all that the topic holds now; after `_reach`, that is all up to the goals."""
        bounds = records.bounds()
        topic.extend(bounds, fences, self._topic_progress)
        return bounds

    def _look_again(
        self, topic: TopicFold, records: Records, fences: Mapping[str, Position], cases: Sequence[ShardProof]
    ) -> None:
        looks: list[KeyReread] = []
        few, many = list[ShardProof](), list[ShardProof]()
        for case in cases:
            differences = case.differences or combined([])
            known = len(differences.keys())
            all_known = known == sum(differences.counts)
            (few if all_known and known <= self._policy.reread_keys else many).append(case)

        def look(case: ShardProof) -> KeyReread | None:
            try:
                return case.look_again(topic)
            except CdcError as error:
                case.failed = str(error)
                return None

        # One after the other: a second look reads the topic, whose client is not shared.
        for case in few:
            found = look(case)
            if found is not None:
                looks.append(found)
        ready = {case.shard.id for case in self._reach([found.case for found in looks])}
        self._extend(topic, records, fences)
        for found in looks:
            if found.case.shard.id in ready:
                found.compare(topic)
        for case in many:
            self._rescan(topic, records, fences, case)

    def _rescan(self, topic: TopicFold, records: Records, fences: Mapping[str, Position], case: ShardProof) -> None:
        """Too many keys to read one by one: read the whole table again."""
        case.scan.discard()
        case.scan = self._scan(case.shard, case.shape)
        self._read([case])
        if case.failed is None and self._reach([case]):
            self._extend(topic, records, fences)
            case.compare(topic, self._policy.slab_rows)

    def _drifted(self, topic: TopicFold, cases: Sequence[ShardProof]) -> bool:
        if topic.projected:
            return False
        try:
            for case in cases:
                if case.failed is None:
                    samples(case, topic, self._policy.samples)
        except Drifted:
            return True
        return False

    def _altered(self, case: ShardProof) -> bool:
        try:
            now = case.source.inspect()
        except CdcError as error:
            case.failed = str(error)
            return False
        return now.shape is None or now.shape.fingerprint != case.shape.fingerprint

    def _all(self, shards: Sequence[Shard], reason: str) -> tuple[ShardVerdict, ...]:
        return tuple(self._conclusions.plain(shard, Verdict.UNVERIFIABLE, reason) for shard in shards)

    def _scan(self, shard: Shard, shape: Shape) -> Scan:
        return Scan(self._cache, (self._run_id, self._dataset.name, self._table.name, shard.id), shape)

    def _parallel(self, call: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        if len(items) < 2:
            return [call(item) for item in items]
        with ThreadPoolExecutor(self._policy.sources_at_once, thread_name_prefix="source") as pool:
            return list(pool.map(call, items))

    def _topic_progress(self, done: int, total: int) -> None:
        self._report(Progress(stage="topic", done=done, total=total))

    def _reach_progress(self, done: int, total: int) -> None:
        self._report(Progress(stage="reach", done=done, total=total))


def _told(error: CdcError | OSError) -> str:
    """The reason. Clients translate what is theirs: an OSError is of the cache's files."""
    return str(error) if isinstance(error, CdcError) else f"the cache cannot be used: {error}"


def _by_shape(cases: Sequence[ShardProof]) -> list[tuple[Shape, list[ShardProof]]]:
    """Shards may differ for a while, as a migration goes through them: each shape has a fold of its own."""
    groups: dict[str, tuple[Shape, list[ShardProof]]] = {}
    for case in cases:
        groups.setdefault(case.shape.fingerprint, (case.shape, []))[1].append(case)
    return list(groups.values())
