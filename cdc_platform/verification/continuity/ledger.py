"""The use case: keep a table's continuity ledger up, at the cost of what is new.

Events come from what the duplicates' check has read (`delivery_store.py`), ENDs from the
transactions' topic, committed offsets from Connect. Breaks go to the state topic under
`continuity/<dataset>/<table>/<shard>`, for the sensor that starts the proof: the ledger itself is a cache.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from cdc_platform.clients.kafka.offset_history import OffsetHistories
from cdc_platform.clients.kafka.topic_records import Records, TopicBounds
from cdc_platform.clients.platform import Platform
from cdc_platform.clients.protocols import StateStore
from cdc_platform.connectors.identity import table_topic, transaction_topic
from cdc_platform.errors import CdcError, NotFound
from cdc_platform.model.topology import Dataset, Shard, Table, Topology
from cdc_platform.planning.health.source_hazards import Gap, SourceRecord
from cdc_platform.reconciler.state_records import read_memory
from cdc_platform.verification.continuity.breaks import Break, BreakKind, ShardContinuity
from cdc_platform.verification.continuity.handovers import SENT
from cdc_platform.verification.continuity.ledger_store import LedgerStore, codes, numbered
from cdc_platform.verification.continuity.task_resumes import BEFORE_MS, Resumes
from cdc_platform.verification.continuity.transaction_balance import SEEN, Rows, found_of, handed_on
from cdc_platform.verification.continuity.transaction_counts import TOGETHER
from cdc_platform.verification.continuity.transaction_topic import EndReader, decoded, furthest
from cdc_platform.verification.duplicates.delivery_batches import HORIZON_MS
from cdc_platform.verification.duplicates.delivery_store import TopicDeliveries
from cdc_platform.verification.duplicates.duplicate_count import TableDuplicates, count_duplicates
from cdc_platform.verification.proof.change_events import location_text, packed, partition_offsets
from cdc_platform.verification.proof.committed_offsets import ConnectorOffsets

log = logging.getLogger(__name__)

CONTINUITY = "continuity/"

# Events without an END are kept so long: an END comes within moments, or was never asked for.
_UNENDED_MS = 86_400_000
# What compaction or retention may have thinned out at the beginning of a topic is not judged.
_EDGE_MS = 86_400_000
_MOST_BREAKS = 20
_KEPT = timedelta(days=7)
_ASK_AT_ONCE = 16

_METADATA = "provide.transaction.metadata"


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerPorts:
    """The ports systems. `records` reads a topic with headers and times; `store` writes the state topic under
    a name of its own.
    """

    platform: Platform
    records: Callable[[str], Records]
    offsets: OffsetHistories
    store: Callable[[str], StateStore]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableContinuity:
    """One table's ledger. `problem` says why there is none."""

    dataset: str
    table: str
    shards: tuple[ShardContinuity, ...] = ()
    problem: str = ""


def count_and_keep(
    ports: LedgerPorts,
    topology: Topology,
    dataset: str,
    table: str,
    *,
    run_id: str,
) -> tuple[TableDuplicates, TableContinuity]:
    """Count the table's duplicates, and keep its ledger up with what was read for that.

    Raises:
        As `count_duplicates`; Fenced: another process keeps the same ledger.
    """
    found = topology.dataset(dataset)
    update = _LedgerUpdate(ports, topology, found, found.table(table))
    return update.keep(
        lambda: count_duplicates(ports.platform, ports.records, ports.offsets, topology, dataset, table, run_id=run_id)
    )


def breaks_on_record(
    records: Mapping[str, Mapping[str, Any]], dataset: str, table: str
) -> dict[str, tuple[Break, ...]]:
    """Shard to its breaks, from the state topic: what the ledger found, and the gaps that passes found at sources."""
    found = _breaks_found(records, dataset, table)
    sources = {key: document for key, document in records.items() if key.startswith(SourceRecord.key_of(f"{dataset}."))}
    for name, record in read_memory(sources).of(SourceRecord).items():
        if gaps := record.about(table).gaps:
            shard = name.partition(".")[2]
            found[shard] = (*found.get(shard, ()), *(_of_gap(shard, gap) for gap in gaps))
    return found


def _of_gap(shard: str, gap: Gap) -> Break:
    range_ = f"{gap.kind} since {gap.since:%Y-%m-%d %H:%M:%S}Z: {gap.text}"
    return Break(shard=shard, kind=BreakKind.NOT_CAPTURED, range=range_, found_at=gap.found_at)


def _breaks_found(records: Mapping[str, Mapping[str, Any]], dataset: str, table: str) -> dict[str, tuple[Break, ...]]:
    prefix = f"{CONTINUITY}{dataset}/{table}/"
    return {
        key.removeprefix(prefix): tuple(msgspec.convert(one, Break) for one in document["breaks"])
        for key, document in records.items()
        if key.startswith(prefix)
    }


class _LedgerUpdate:
    def __init__(self, ports: LedgerPorts, topology: Topology, dataset: Dataset, table: Table) -> None:
        self._ports = ports
        self._topology = topology
        self._dataset, self._table = dataset, table
        self._shards = {shard.id: shard for shard in topology.shards.get(dataset.name, ())}
        self._connectors = ConnectorOffsets(ports.platform, dataset, topology.clusters)
        self._topic = transaction_topic(ports.platform.settings, dataset)
        self._now = datetime.now(UTC)

    def keep(self, count: Callable[[], TableDuplicates]) -> tuple[TableDuplicates, TableContinuity]:
        if str(self._dataset.connector.get(_METADATA, "true")).lower() == "false":
            return count(), self._without("the dataset has switched transaction metadata off")
        records = self._ports.records(self._topic)
        try:
            try:
                records.bounds()
            except NotFound as error:
                return count(), self._without(str(error))
            return self._kept(records, count)
        finally:
            records.close()

    def _kept(self, records: Records, count: Callable[[], TableDuplicates]) -> tuple[TableDuplicates, TableContinuity]:
        settings = self._ports.platform.settings
        cache, topic = Path(settings.cache_dir), table_topic(self._dataset, self._table)
        table_records = self._ports.records(topic)
        try:
            table = table_records.bounds()
        finally:
            table_records.close()
        store = LedgerStore(cache, settings.platform, topic, table.topic_id)
        with store.lock():
            # First what is committed: all of that is below the ends that are asked for next. Then the
            # transactions', then (in `count`) the table's: of an END that is read most events are, too.
            committed = self._committed(store)
            bounds = records.bounds()
            duplicates = count()
            deliveries = TopicDeliveries(cache, settings.platform, topic, table.topic_id, sorted(table.partitions))
            cut = any(begin for begin, _ in table.partitions.values())
            known = self._recorded(self._extended(store, records, bounds, deliveries, committed, cut=cut))
            return duplicates, self._continuity(store, known)

    def _continuity(self, store: LedgerStore, breaks: Mapping[str, tuple[Break, ...]]) -> TableContinuity:
        state = store.state
        ends, _ = store.open_rows()
        waiting = np.bincount(ends["shard"], minlength=len(state.shards)).tolist()
        number = codes(state.shards)
        return TableContinuity(
            dataset=self._dataset.name,
            table=self._table.name,
            shards=tuple(
                ShardContinuity(
                    shard=shard,
                    checked=state.ledger(shard).checked,
                    open=waiting[number[shard]] if shard in number else 0,
                    resumed=state.ledger(shard).resumed,
                    unknown=state.ledger(shard).unknown,
                    breaks=breaks.get(shard, ()),
                )
                for shard in self._shards
            ),
        )

    def _extended(
        self,
        store: LedgerStore,
        records: Records,
        bounds: TopicBounds,
        deliveries: TopicDeliveries,
        committed: Mapping[int, str],
        *,
        cut: bool,
    ) -> list[Break]:
        state = store.state
        if state.topic_id != bounds.topic_id:
            state.topic_id, state.next = bounds.topic_id, {}
        first_time = not state.file
        # The events of older transactions were handed over to a ledger that is lost.
        lost = max((part.state().handed_over for part in deliveries.partitions()), default=0) if first_time else 0
        store.begin()
        sent = self._read_ends(store, records, bounds)
        self._take_transaction_counts(store, deliveries)
        found = store.balanced()
        for code, checked in found.checked.items():
            state.ledger(state.shards[code]).checked += checked
        edge = state.newest - HORIZON_MS + _EDGE_MS if first_time or cut else 0
        edge = max(edge, lost + BEFORE_MS if lost else 0)
        ends = found.ends[found.ends["time"] >= edge]
        ends, broken = self._judged(store, records, ends, found.seen, committed)
        seen = found.seen[found.seen["time"] >= state.newest - _UNENDED_MS]
        broken += Resumes(
            platform=self._ports.platform,
            offsets=self._ports.offsets,
            topology=self._topology,
            dataset=self._dataset,
            table=self._table,
            shards=self._shards,
            now=self._now,
        ).judge(store, deliveries, sent)
        store.save(ends, seen, found.closed)
        for part in deliveries.partitions():
            with part.directory.lock() as locked:
                if locked:
                    part.drop_transaction_counts(state.taken.get(part.partition, []))
        return broken

    # Transactions

    def _committed(self, store: LedgerStore) -> dict[int, str]:
        """Number of each shard with open transactions to the position that its connector has committed."""
        ends, _ = store.open_rows()
        asked = [
            (code, self._shards[store.state.shards[code]])
            for code in np.unique(ends["shard"]).tolist()
            if store.state.shards[code] in self._shards
        ]
        with ThreadPoolExecutor(_ASK_AT_ONCE, thread_name_prefix="ledger") as pool:
            answers = pool.map(lambda item: self._position(item[1]), asked)
            return {code: answer for (code, _), answer in zip(asked, answers, strict=True) if answer is not None}

    def _position(self, shard: Shard) -> str | None:
        """What its connector has committed; None when that is not known: its transactions stay open."""
        try:
            found = self._connectors.committed(shard).committed
        except CdcError as error:
            log.warning("%s: what its connector has committed is not known: %s", shard.name, error)
            return None
        return None if found is None else found.position

    def _read_ends(self, store: LedgerStore, records: Records, bounds: TopicBounds) -> Rows:
        """Write the new ENDs down; how far each shard was sent, moment by moment."""
        reader = EndReader(self._dataset, self._table, self._shards, store.state.shards)
        sent = [np.zeros(0, dtype=SENT)]
        for partition, (begin, end) in sorted(bounds.partitions.items()):
            for batch in records.read(partition, max(begin, store.state.next.get(partition, 0)), end):
                ends, progress = reader.read(partition, batch)
                store.write_down("ends", ends)
                sent.append(furthest(progress))
                store.state.newest = max(store.state.newest, batch.times[-1])
            store.state.next[partition] = end
        return np.concatenate(sent)

    def _take_transaction_counts(self, store: LedgerStore, deliveries: TopicDeliveries) -> None:
        state = store.state
        shards, known_runs = dict(codes(state.shards)), dict(codes(state.runs))
        for part in deliveries.partitions():
            taken = set(state.taken.get(part.partition, []))
            files = part.transaction_counts()
            spans = part.counts().spans
            shard_of = np.array([numbered(state.shards, shards, span.shard) for span in spans], dtype=np.uint32)
            run_of = np.array(
                [numbered(state.runs, known_runs, f"{span.shard} {span.run}") for span in spans], dtype=np.uint32
            )
            for name, rows in files:
                if name in taken:
                    continue
                seen = np.zeros(len(rows), dtype=SEEN)
                for column in ("transaction", "count", "time"):
                    seen[column] = rows[column]
                together, run = (rows["run"] & TOGETHER) != 0, rows["run"] & ~TOGETHER
                seen["shard"], seen["run"] = shard_of[run], run_of[run]
                for shard in np.unique(seen["shard"][together]).tolist():
                    one = numbered(state.runs, known_runs, f"{state.shards[shard]} *")
                    seen["run"][together & (seen["shard"] == shard)] = one
                seen["record"] = rows["offset"] | packed(part.partition, 0)
                store.write_down("seen", seen)
            state.taken[part.partition] = [name for name, _ in files]

    def _judged(
        self, store: LedgerStore, records: Records, ends: Rows, seen: Rows, committed: Mapping[int, str]
    ) -> tuple[Rows, list[Break]]:
        """Transactions that must have arrived and are not whole are breaks, and open no longer."""
        done = np.zeros(len(ends), dtype=np.bool_)
        for code, position in committed.items():
            own = ends["shard"] == code
            done[own] = handed_on(self._dataset.engine, position, ends[own])
        broken = ends[done]
        names = self._names(records, broken)
        found = [
            Break(
                shard=store.state.shards[int(end["shard"])],
                kind=BreakKind.TRANSACTION,
                range=f"transaction {name} (its END: {location_text(int(end['record']))})",
                found_at=self._now,
                expected=int(end["count"]),
                found=count,
            )
            for end, count, name in zip(broken, found_of(broken, seen), names, strict=True)
        ]
        return ends[~done], found

    def _names(self, records: Records, ends: Rows) -> list[str]:
        """The ids of these transactions, as their ENDs have them."""
        found = []
        for partition, offset in partition_offsets(ends, "record"):
            _, value = records.fetch(partition, [offset]).get(offset, (None, None))
            found.append(decoded(value).id or "?" if value else "?")
        return found

    # Records

    def _recorded(self, fresh: Collection[Break]) -> dict[str, tuple[Break, ...]]:
        """The breaks of each shard, the new ones recorded."""
        records = self._ports.platform.state.read()
        known = _breaks_found(records, self._dataset.name, self._table.name)
        changed: dict[str, tuple[Break, ...]] = {}
        for one in fresh:
            before = changed.get(one.shard, known.get(one.shard, ()))
            if one.id not in {other.id for other in before}:
                kept = [other for other in before if self._now - other.found_at < _KEPT]
                changed[one.shard] = (*kept, one)[-_MOST_BREAKS:]
        if changed:
            prefix = f"{CONTINUITY}{self._dataset.name}/{self._table.name}/"
            store = self._ports.store(f"ledger-{self._dataset.name}-{self._table.name}")
            store.write(
                {f"{prefix}{shard}": {"breaks": list(map(_document, breaks))} for shard, breaks in changed.items()}
            )
        return {**breaks_on_record(records, self._dataset.name, self._table.name), **changed}

    def _without(self, problem: str) -> TableContinuity:
        return TableContinuity(dataset=self._dataset.name, table=self._table.name, problem=problem)


def _document(one: Break) -> dict[str, Any]:
    return {**asdict(one), "kind": str(one.kind), "found_at": one.found_at.isoformat()}
