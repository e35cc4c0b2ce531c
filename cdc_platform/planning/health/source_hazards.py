"""What of a source's log or tables loses changes, will lose them, or stops the connector. Pure.

Facts come from one short question to each shard's leader every few minutes (`reconciler/source_round.py`); what is
found stands in a record of the shard until a later answer says otherwise. Each kind is described in
`source_hazard_kinds.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from cdc_platform.model.naming import some_of
from cdc_platform.model.source_facts import SourceFacts
from cdc_platform.model.topology import EMPTY, Dataset, Engine, Topology
from cdc_platform.planning.health.log_guard import LogState
from cdc_platform.planning.health.source_hazard_kinds import KINDS, HazardKind
from cdc_platform.planning.records import Kept, Record, Writer

# Gaps kept of a shard, the newest.
MOST_GAPS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Hazard:
    """One thing that is wrong now. `table` is empty for what concerns all of the shard's tables."""

    kind: HazardKind
    text: str
    cure: str
    since: datetime
    table: str = ""

    def sentence(self) -> str:
        """It with its cure."""
        return f"{self.kind}: {self.text}. {self.cure}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Changes of a table (all tables: empty) that no stream has seen, found last at `found_at`.

    It counts until a proof that began later. `since` keeps gaps of the same kind apart.
    """

    kind: HazardKind
    since: datetime
    found_at: datetime
    text: str
    table: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRecord(Record):
    """Remembered of a shard's source: what is wrong, what was lost, and the numbers of the tables seen (Postgres).

    `agreed` and `place` as in `SourceFacts`. `publish`: a pass can add what the publication lacks. `give_up`: its slot
    is to go before the server is full. `left_out` are tables that are not captured, and why.
    """

    kept = Kept("source", Writer.REPORT, with_connector=True)

    hazards: tuple[Hazard, ...] = ()
    gaps: tuple[Gap, ...] = ()
    tables: Mapping[str, int] = EMPTY
    agreed: Mapping[str, tuple[int, int]] = EMPTY
    publish: bool = False
    give_up: bool = False
    left_out: Mapping[str, str] = EMPTY
    place: str = ""

    def about(self, table: str) -> SourceRecord:
        """What of it concerns one table."""
        own = ("", table)
        hazards = tuple(hazard for hazard in self.hazards if hazard.table in own)
        return replace(self, hazards=hazards, gaps=tuple(gap for gap in self.gaps if gap.table in own))

    @property
    def losing(self) -> Hazard | None:
        """A hazard by which changes are being lost now."""
        return next((hazard for hazard in self.hazards if KINDS[hazard.kind].loses), None)


def judged(
    dataset: Dataset,
    facts: SourceFacts,
    before: SourceRecord | None,
    *,
    captured: bool,
    now: datetime,
    log: LogState | None = None,
    streaming: Collection[str] | None = None,
    shared_with: Sequence[str] = (),
) -> SourceRecord:
    """The shard's record after an answer of its source.

    Args:
        captured: its connector has run before.
        streaming: the tables that its connector is to read now, none of which is left out: that would lose what
            comes. Without it what was left out before stays so.
        shared_with: other shards that read its database.
    """
    before = before or SourceRecord()
    left_out = before.left_out if streaming is None else refused_tables(facts, streaming)
    started = {(hazard.kind, hazard.table): hazard.since for hazard in reversed(before.hazards)}
    hazards = tuple(
        replace(hazard, since=started.get((hazard.kind, hazard.table), now))
        for hazard in (
            *_hazards(dataset, facts, before, left_out, captured=captured, log=log, now=now),
            *_shared(facts, shared_with, now),
        )
    )
    numbers = {name: table.number for name, table in facts.tables.items() if table.number}
    gaps = {(gap.kind, gap.table, gap.since): gap for gap in before.gaps}
    for gap in _gaps(hazards, before, numbers, now) if captured else ():
        gaps[gap.kind, gap.table, gap.since] = gap
    kept = sorted(gaps.values(), key=lambda gap: gap.found_at)[-MOST_GAPS:]
    lacking = any(hazard.kind is HazardKind.UNPUBLISHED for hazard in hazards)
    return SourceRecord(
        hazards=hazards,
        gaps=tuple(kept),
        tables={**before.tables, **numbers} if captured else EMPTY,
        agreed=facts.agreed,
        publish=lacking and not facts.unpublishable,
        give_up=log is not None and log.give_up,
        left_out=left_out,
        place=facts.place,
    )


def refused_tables(facts: SourceFacts, streaming: Collection[str]) -> dict[str, str]:
    """The tables that a connector must not begin to capture, with why; `streaming` are those that it does already."""
    return {name: str(no) for name, table in facts.tables.items() if name not in streaming and (no := table.refusal)}


def with_left_out(topology: Topology, records: Mapping[str, SourceRecord]) -> Topology:
    """The topology, its shards without the tables that their sources cannot have captured.

    A shard of which no table would be left keeps all: its connector is refused as a whole.
    """
    lacking = {name: record.left_out for name, record in records.items() if record.left_out}
    if not lacking:
        return topology
    shards = {}
    for name, listed in topology.shards.items():
        tables = {table.name for table in topology.datasets[name].tables} if name in topology.datasets else set()
        shards[name] = tuple(
            replace(shard, left_out=no) if (no := lacking.get(shard.name)) and tables - no.keys() else shard
            for shard in listed
        )
    return replace(topology, shards=shards)


def given_up(record: SourceRecord, now: datetime) -> SourceRecord:
    """The record of a shard whose slot was just dropped."""
    text = "its slot was given up: what is changed from then on until it is bootstrapped is lost"
    gap = Gap(kind=HazardKind.SLOT_GIVEN_UP, since=now, found_at=now, text=text)
    return replace(record, gaps=(*record.gaps, gap)[-MOST_GAPS:], give_up=False)


def new_gaps(before: SourceRecord | None, after: SourceRecord) -> tuple[Gap, ...]:
    """Those of one table that began with this answer."""
    known = {(gap.kind, gap.table, gap.since) for gap in (before.gaps if before else ())}
    return tuple(gap for gap in after.gaps if gap.table and (gap.kind, gap.table, gap.since) not in known)


def _shared(facts: SourceFacts, others: Sequence[str], now: datetime) -> Iterator[Hazard]:
    if others:
        kind = HazardKind.SHARED_DATABASE
        text = f"its database ({facts.place}) is also read by {some_of(sorted(others), 4)}"
        yield Hazard(kind=kind, text=text, cure=KINDS[kind].cure, since=now)


def _gaps(hazards: Sequence[Hazard], before: SourceRecord, numbers: Mapping[str, int], now: datetime) -> Iterator[Gap]:
    for hazard in hazards:
        if KINDS[hazard.kind].loses:
            yield Gap(kind=hazard.kind, table=hazard.table, since=hazard.since, found_at=now, text=hazard.text)
    for hazard in before.hazards:
        if KINDS[hazard.kind].loses and all((h.kind, h.table) != (hazard.kind, hazard.table) for h in hazards):
            # It is over; what happened up to now is in no earlier proof.
            text = f"{hazard.text}, until {now:%Y-%m-%d %H:%M:%S}Z"
            yield Gap(kind=hazard.kind, table=hazard.table, since=hazard.since, found_at=now, text=text)
    for name, number in numbers.items():
        if before.tables.get(name, number) != number:
            text = f"another table took the name {name}: what its predecessor held and it does not came as no change"
            yield Gap(kind=HazardKind.REPLACED, table=name, since=now, found_at=now, text=text)


def _lost(facts: SourceFacts, log: LogState | None) -> str:
    """Why the connector cannot go on from its place; empty where it can."""
    if facts.slotless:
        return "the leader has no slot of the connector's name: what is changed is lost"
    return log.lost if log is not None else ""


def _hazards(
    dataset: Dataset,
    facts: SourceFacts,
    before: SourceRecord,
    left_out: Mapping[str, str],
    *,
    captured: bool,
    log: LogState | None,
    now: datetime,
) -> Iterator[Hazard]:
    def hazard(kind: HazardKind, table: str, text: str, cure: str = "") -> Hazard:
        return Hazard(kind=kind, table=table, text=text, cure=cure or KINDS[kind].cure, since=now)

    for table in dataset.tables:
        name = f"{table.schema or 'public'}.{table.name}" if dataset.engine is Engine.POSTGRES else table.name
        found = facts.tables.get(table.name)
        if found is None:
            if table.name in before.tables:
                yield hazard(HazardKind.ABSENT, table.name, f"{name} is not there any more: dropped, renamed or moved")
            continue
        if table.name in left_out:
            no = found.refusal
            why, cure = (no.why, no.cure) if no is not None else (left_out[table.name], "")
            yield hazard(HazardKind.LEFT_OUT, table.name, f"{name} is not captured: {why}", cure and f"{cure}.")
            continue
        if captured and not found.published:
            text = f"the publication lacks {name}: its changes are lost"
            yield hazard(HazardKind.UNPUBLISHED, table.name, text, facts.unpublishable)
        elif captured and found.withheld:
            text = f"the publication withholds changes of {name} ({found.withheld}): they are lost"
            yield hazard(HazardKind.UNPUBLISHED, table.name, text, facts.unpublishable)
        for key in found.cascades:
            text = f"the foreign key {key} of {name} changes rows below the binlog: those changes are lost"
            yield hazard(HazardKind.CASCADE, table.name, text)
        if table.name in facts.unlogged:
            text = f"the definition of {name} changed without the log: {facts.unlogged[table.name]}"
            yield hazard(HazardKind.UNLOGGED, table.name, text)
        for text in found.unreadable:
            yield hazard(HazardKind.UNREADABLE, table.name, f"{name}: {text}")
        if found.unfit is not None:
            yield hazard(HazardKind.UNFIT, table.name, f"{name}: {found.unfit.why}", f"{found.unfit.cure}.")
    for setting, value in facts.settings.items():
        yield hazard(HazardKind.LOG_SETTINGS, "", f"{setting} is {value} on the leader: changes are lost")
    if log is not None and log.hazard and captured:
        yield hazard(HazardKind.LOG_FILLING, "", log.hazard)
    if captured and (lost := _lost(facts, log)):
        yield hazard(HazardKind.LOG_LOST, "", lost)
    for twin in facts.twins:
        yield hazard(HazardKind.CASE_TWIN, "", f"table {twin} differs from a captured one in case only")
