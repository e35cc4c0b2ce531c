"""Source positions: GTIDs of MariaDB and MySQL, transaction visibility and LSNs of Postgres.

A position answers two questions, and no clock is asked for either:

- which events does a reader of the source see there (`sees`), and
- has a connector, by the offset that Connect has committed, handed everything
  up to there to Kafka (`Committed.reached`).

Events are given as arrays: `stream` and `seq`. For MariaDB they are the GTID's
domain and sequence number, for MySQL a number made of the server's UUID and the
transaction number, for Postgres the 32-bit transaction id and the LSN.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cdc_platform.model.position_codec import bad_position, format_lsn, parse_gtids, parse_lsn, saved_offset
from cdc_platform.model.topology import Engine

Streams = npt.NDArray[np.uint32]
Sequences = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_INTERVALS = re.compile(r"([a-z_][a-z0-9_]{0,31}:)?\d+(-\d+)?(:([a-z_][a-z0-9_]{0,31}:)?\d+(-\d+)?)*")
_SNAPSHOT = re.compile(r"(\d+):(\d+):((?:\d+(?:,\d+)*)?)")


class Position(Protocol):
    """A place in the history of one source. `str()` and `parse_position` are inverse."""

    def sees(self, stream: Streams, seq: Sequences) -> Mask:
        """True for each event whose transaction is visible to a reader here."""

    def covers(self, other: Any) -> bool:
        """True when a reader here sees all that one at `other`, of the same engine, sees."""


@dataclass(frozen=True, slots=True)
class MariaDbPosition:
    """`@@gtid_binlog_pos`: the last transaction of each domain, as (domain, server, sequence).

    Sequence numbers grow within a domain whatever server writes
    (`gtid_strict_mode`; https://mariadb.com/kb/en/gtid/).
    """

    gtids: tuple[tuple[int, int, int], ...]

    @classmethod
    def parse(cls, text: str) -> MariaDbPosition:
        """Read `0-1-50,1-1-7`; empty is the beginning. Raises BadInput."""
        last: dict[int, tuple[int, int, int]] = {}
        for domain, server, sequence in parse_gtids(text):
            if domain not in last or last[domain][2] < sequence:
                last[domain] = (domain, server, sequence)
        return cls(tuple(last[domain] for domain in sorted(last)))

    def __str__(self) -> str:
        return ",".join(f"{domain}-{server}-{sequence}" for domain, server, sequence in self.gtids)

    def sees(self, stream: Streams, seq: Sequences) -> Mask:
        """True for each event of a transaction at or before this position."""
        seen: Mask = seq == 0
        for domain, _, last in self.gtids:
            seen |= (stream == domain) & (seq <= np.uint64(last))
        return seen

    def followed_by(self, groups: Sequence[str]) -> MariaDbPosition:
        """This position, then the event groups of these GTIDs, as long as none is left out between."""
        last = {domain: (domain, server, sequence) for domain, server, sequence in self.gtids}
        for domain, server, sequence in (gtid for group in groups for gtid in parse_gtids(group)):
            if domain not in last or sequence > last[domain][2] + 1:
                break
            if sequence == last[domain][2] + 1:
                last[domain] = (domain, server, sequence)
        return MariaDbPosition(tuple(last[domain] for domain in sorted(last)))

    def covers(self, other: MariaDbPosition) -> bool:
        """True when nothing of `other` is missing here."""
        last = {domain: sequence for domain, _, sequence in self.gtids}
        return all(last.get(domain, 0) >= sequence for domain, _, sequence in other.gtids)


@dataclass(frozen=True, slots=True)
class MySqlPosition:
    """`@@gtid_executed`: per source the executed transaction numbers, as closed intervals.

    A source is a server's UUID, with a tag where the transaction has one (8.3 and later): `uuid:tag`.
    The `stream` of an event is `mysql_stream` of it.
    """

    sets: tuple[tuple[str, tuple[tuple[int, int], ...]], ...]

    @classmethod
    def parse(cls, text: str) -> MySqlPosition:
        """Read `uuid:1-5:7,uuid:1-3:tag:1`; empty is the beginning. Raises BadInput."""
        found: dict[str, list[tuple[int, int]]] = {}
        for part in "".join(text.split()).lower().split(",") if text.strip() else ():
            uuid, _, rest = part.partition(":")
            source = uuid
            if not _UUID.fullmatch(uuid) or not _INTERVALS.fullmatch(rest):
                raise bad_position(text, "MySQL GTID set")
            for item in rest.split(":"):
                if item[0].isdigit():
                    first, _, last = item.partition("-")
                    found.setdefault(source, []).append((int(first), int(last or first)))
                else:
                    source = f"{uuid}:{item}"
        return cls(tuple((source, _merged(found[source])) for source in sorted(found)))

    def __str__(self) -> str:
        return ",".join(
            ":".join([uuid, *(f"{a}-{b}" if a != b else f"{a}" for a, b in intervals)]) for uuid, intervals in self.sets
        )

    def sees(self, stream: Streams, seq: Sequences) -> Mask:
        """True for each event of an executed transaction."""
        seen: Mask = seq == 0
        for uuid, intervals in self.sets:
            own = stream == mysql_stream(uuid)
            for first, last in intervals:
                seen |= own & (seq >= np.uint64(first)) & (seq <= np.uint64(last))
        return seen

    def followed_by(self, groups: Sequence[str]) -> MySqlPosition:
        """This set, and the transactions of these GTIDs, which need not be the next ones."""
        return MySqlPosition.parse(",".join(filter(None, (str(self), *groups))))

    def covers(self, other: MySqlPosition) -> bool:
        """True when nothing of `other` is missing here."""
        mine = dict(self.sets)
        return all(
            any(a <= first and last <= b for a, b in mine.get(uuid, ()))
            for uuid, intervals in other.sets
            for first, last in intervals
        )


@dataclass(frozen=True, slots=True)
class PostgresPosition:
    """The snapshot of one statement, with WAL insert positions read before and after it was taken.

    LSNs of rows are not in commit order, so visibility goes by transaction: an
    event is visible when its transaction had ended as the snapshot was taken.
    `in_progress` holds 64-bit ids of top-level transactions, and so does an
    event, modulo 2^32 (pgoutput's Begin message). Ids are compared on the circle
    of 2^32; `before` tells an event of long ago from one of the future: what a
    transaction of the future writes lies behind it.
    """

    xmin: int
    xmax: int
    in_progress: tuple[int, ...]
    before: int
    after: int

    @classmethod
    def of(cls, snapshot: str, before: str, after: str) -> PostgresPosition:
        """From `pg_current_snapshot()::text` and two `pg_lsn::text`. Raises BadInput."""
        found = _SNAPSHOT.fullmatch(snapshot)
        if not found:
            raise bad_position(snapshot, "Postgres snapshot")
        xmin, xmax, listed = found.groups()
        running = tuple(int(xid) for xid in listed.split(",")) if listed else ()
        return cls(int(xmin), int(xmax), running, parse_lsn(before), parse_lsn(after))

    @classmethod
    def parse(cls, text: str) -> PostgresPosition:
        """Read what `str()` gave. Raises BadInput."""
        snapshot, _, lsns = text.partition("@")
        before, _, after = lsns.partition("..")
        return cls.of(snapshot, before, after)

    def __str__(self) -> str:
        running = ",".join(str(xid) for xid in self.in_progress)
        return f"{self.xmin}:{self.xmax}:{running}@{format_lsn(self.before)}..{format_lsn(self.after)}"

    def sees(self, stream: Streams, seq: Sequences) -> Mask:
        """True for each event of a transaction that had ended when the snapshot was taken."""
        ahead = (stream - np.uint32(self.xmax & 0xFFFFFFFF)).view(np.int32) >= 0
        started = ~ahead | (seq <= np.uint64(self.before))
        running = np.array([xid & 0xFFFFFFFF for xid in self.in_progress], dtype=np.uint32)
        return started & ~np.isin(stream, running) if len(running) else started

    def covers(self, other: PostgresPosition) -> bool:
        """True when no transaction that had ended there is still to come or running here."""
        return self.xmax >= other.xmax and all(
            xid >= other.xmax or xid in other.in_progress for xid in self.in_progress
        )


def _merged(intervals: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(intervals):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return tuple(merged)


def mysql_stream(source: str) -> int:
    """The number that stands for a MySQL source: the first 32 bits of its UUID, or a checksum of UUID and tag."""
    return zlib.crc32(source.lower().encode()) if ":" in source else int(source[:8], 16)


def mysql_transaction(gtid: str) -> tuple[int, int]:
    """`uuid:number` or `uuid:tag:number` as (`mysql_stream`, number)."""
    source, _, number = gtid.rpartition(":")
    return mysql_stream(source), int(number)


def furthest(positions: Sequence[Position]) -> Position:
    """The one that covers the others: positions of one server follow each other. There must be one at least."""
    found = positions[0]
    for position in positions[1:]:
        if position.covers(found):
            found = position
    return found


def parse_position(engine: Engine, text: str) -> Position:
    """Read a position that `str()` wrote. Raises BadInput."""
    kinds: dict[Engine, type[MariaDbPosition] | type[MySqlPosition] | type[PostgresPosition]] = {
        Engine.MARIADB: MariaDbPosition,
        Engine.MYSQL: MySqlPosition,
        Engine.POSTGRES: PostgresPosition,
    }
    return kinds[engine].parse(text)


# What an offset says of a snapshot; `INCREMENTAL` where it was committed within a chunk's window.
SNAPSHOT = "snapshot"


def marked_initial(offset: Mapping[str, Any]) -> bool:
    """True for a committed offset that says `snapshot`, and does not mean a chunk of an incremental one.

    Seen with Debezium 3.5.0, MariaDB: a task that starts at an offset from within a window keeps
    `snapshot: INCREMENTAL` in all its offsets until another window closes, however long it has streamed since.
    """
    said = offset.get(SNAPSHOT)
    return bool(said) and str(said).upper() != "INCREMENTAL"


@dataclass(frozen=True, slots=True)
class Committed:
    """What a connector's committed source offset says.

    `position` is the text of a GTID set or an LSN, None when nothing is known.
    `busy` names a snapshot that is under way: until it ends, rows are missing
    from the topic and nobody has lost them. `file` and `place` are where the
    position stands in the binlog of the server that the connector reads.
    """

    engine: Engine
    position: str | None
    busy: str | None = None
    file: str | None = None
    place: int = 0

    @classmethod
    def parse(cls, engine: Engine, offset: Mapping[str, Any] | None) -> Committed:
        """Read the `offset` object of `GET /connectors/NAME/offsets` (Debezium 3.5 to 3.7)."""
        if not offset:
            return cls(engine, None)
        busy = None
        if marked_initial(offset) and offset.get("snapshot_completed") is not True:
            busy = "initial snapshot"
        elif offset.get("incremental_snapshot_collections") or offset.get("incremental_snapshot_maximum_key"):
            busy = "incremental snapshot"
        if engine.reads_binlog:
            gtids = offset.get("gtids")
            return cls(engine, str(gtids) if gtids else None, busy, offset.get("file"), int(offset.get("pos") or 0))
        # All transactions that committed at or before lsn_commit were handed on. Before the
        # first one there is only `lsn`: the place of the snapshot.
        lsn = offset.get("lsn_commit")
        if lsn is None and "lsn_proc" not in offset:
            lsn = offset.get("lsn")
        return cls(engine, None if lsn is None else format_lsn(int(lsn)), busy)

    @classmethod
    def answered(cls, engine: Engine, offsets: Iterable[Mapping[str, Any]]) -> Committed:
        """By the `offsets` that `GET /connectors/NAME/offsets` gave: a connector of ours has one source partition."""
        return cls.parse(engine, saved_offset(offsets))

    def reached(self, position: Position) -> bool:
        """True when everything that a reader at `position` sees was handed to Kafka before the commit."""
        if self.position is None:
            return False
        if isinstance(position, PostgresPosition):
            return parse_lsn(self.position) >= position.after
        if isinstance(position, MariaDbPosition):
            return MariaDbPosition.parse(self.position).covers(position)
        if isinstance(position, MySqlPosition):
            return MySqlPosition.parse(self.position).covers(position)
        raise TypeError(f"no position: {position!r}")
