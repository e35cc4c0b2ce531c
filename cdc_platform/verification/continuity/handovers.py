"""The continuity ledger: was every step handed on? Pure, on arrays.

A state proof shows that the end is right. That no step between was lost is another claim, made of two:

- Transactions are whole. The source counts: a transaction's END says how many events each table has
  of it, and so many distinct ones must be in the table's topic. Kept are only transactions that do
  not balance yet, so an extension costs what is new. One that must have arrived, because the connector
  has committed a position behind it, and does not balance, is a break.
- Each task run resumed where its predecessor committed. The offset from which a run started must
  not lie behind all that was sent before it was born. One that was moved on in between (by hand, or
  restored from elsewhere) skips what lies between: a break with that range.

Numbers that are missing in a server's stream of transactions are no signal: only what a run started
from is compared with what was sent before. What nothing tells of is unknown, never a break.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from cdc_platform.model.fingerprints import fingerprint
from cdc_platform.model.position_codec import format_lsn, parse_lsn
from cdc_platform.model.positions import marked_initial, mysql_stream, parse_position
from cdc_platform.model.topology import Engine
from cdc_platform.verification.proof.change_events import OFFSET_BITS, Words

# An END as far as it is about one table. `stream` and `seq` are the position of the transaction's end, `place`
# is where the record is (`events.packed`), `time` its own (ms).
END = np.dtype(
    [
        ("transaction", "u8"), ("shard", "u4"), ("count", "u4"), ("stream", "u4"), ("seq", "u8"),
        ("place", "i8"), ("time", "i8"),
    ]
)  # fmt: skip

# So many distinct events of a transaction were sent by a task run.
SEEN = np.dtype(
    [("transaction", "u8"), ("shard", "u4"), ("run", "u4"), ("count", "u4"), ("place", "i8"), ("time", "i8")]
)

# How far transactions were sent, within a moment: `lane` is a GTID domain or server, or 0.
SENT = np.dtype([("shard", "u4"), ("lane", "u4"), ("seq", "u8"), ("first", "i8"), ("last", "i8")])

Rows = npt.NDArray[np.void]
LogPositions = Mapping[int, int]

# A task that starts is silent for longer than this before.
SILENCE_MS = 300
# A commit may be written by another machine's clock; a run's own first comes a flush interval after its birth.
CLOCKS_MS = 2_000


class BreakKind(StrEnum):
    """What does not hold."""

    TRANSACTION = "transaction"
    RESUME = "resume"
    FORGOTTEN = "forgotten_offset"
    ANEW = "began_anew"


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """A step that was not handed on.

    `range` names it in the source's terms. `run` is the task run that resumed behind it; `expected` and `found`
    are events of a transaction that is not whole.
    """

    shard: str
    kind: BreakKind
    range: str
    found_at: datetime
    run: str = ""
    expected: int = 0
    found: int = 0

    @property
    def id(self) -> str:
        """The same for the same break, whoever finds it."""
        text = "\n".join((self.shard, str(self.kind), self.range, self.run))
        return fingerprint(text, 12)

    def sentence(self) -> str:
        """It in one sentence."""
        match self.kind:
            case BreakKind.TRANSACTION:
                return f"{self.shard}: {self.range}: its END counts {self.expected} events, the topic has {self.found}"
            case BreakKind.RESUME:
                return f"{self.shard}: run {self.run} resumed behind what was sent before it: {self.range} was skipped"
            case BreakKind.ANEW:
                return (
                    f"{self.shard}: run {self.run} read the table anew, its predecessor had committed nothing of the "
                    f"stream: what changed after {self.range} until then came as rows only"
                )
        return f"{self.shard}: run {self.run} began without the offset that its predecessor had committed: {self.range}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardContinuity:
    """What the ledger says of a shard.

    `checked` transactions are whole, `open` ones not judged yet; `resumed` runs began where their
    predecessor had committed, of `unknown` ones nothing tells.
    """

    shard: str
    checked: int = 0
    open: int = 0
    resumed: int = 0
    unknown: int = 0
    breaks: tuple[Break, ...] = ()

    def unproven(self, proven: datetime | None) -> tuple[Break, ...]:
        """The breaks after which the shard was not proven yet. `proven`: when it last was."""
        return unproven_of(self.breaks, proven)


def unproven_of(breaks: Sequence[Break], proven: datetime | None) -> tuple[Break, ...]:
    """Those that were found after the shard was last proven."""
    return tuple(one for one in breaks if proven is None or proven <= one.found_at)


# Transactions


@dataclass(frozen=True, slots=True)
class Balance:
    """What is left of ENDs and of events, how many transactions of each shard (by number) are whole, and which."""

    checked: Mapping[int, int]
    ends: Rows
    seen: Rows
    closed: Words


def balance(ends: Rows, seen: Rows, closed: Words) -> Balance:
    """Transactions whose last END is matched by the events of one task run.

    A run that took over in mid-transaction sends the rest of it, and an END that counts only the rest:
    so the last END counts, and what one run sent is not added to what another did. What is sent again of
    those that were whole before (`closed`) is left out.
    """
    ends, seen = (rows[~np.isin(_words(rows), closed)] for rows in (ends, seen))
    ends, seen = _last_ends(ends), _by_run(seen)
    of_ends, of_seen = _words(ends), _words(seen)
    order = np.argsort(of_seen, kind="stable")
    ranked = of_seen[order]
    starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1])) if len(ranked) else np.zeros(0, np.int64)
    most = np.maximum.reduceat(seen["count"][order], starts) if len(starts) else np.zeros(0, np.uint32)
    keys = ranked[starts]
    at = np.searchsorted(keys, of_ends)
    known = at < len(keys)
    known[known] = keys[at[known]] == of_ends[known]
    found = np.zeros(len(ends), dtype=np.uint32)
    found[known] = most[at[known]]
    whole = found >= ends["count"]
    shards, counts = np.unique(ends["shard"][whole], return_counts=True)
    return Balance(
        dict(zip(shards.tolist(), counts.tolist(), strict=True)),
        ends[~whole],
        seen[~np.isin(of_seen, of_ends[whole])],
        of_ends[whole],
    )


def found_of(ends: Rows, seen: Rows) -> list[int]:
    """How many events of each END's transaction there are: the most of any one run."""
    most: dict[tuple[int, int], int] = defaultdict(int)
    for row in _by_run(seen):
        key = (int(row["shard"]), int(row["transaction"]))
        most[key] = max(most[key], int(row["count"]))
    return [most[int(row["shard"]), int(row["transaction"])] for row in ends]


def handed_on(engine: Engine, committed: str, ends: Rows) -> npt.NDArray[np.bool_]:
    """Which of these transactions lie at or before a committed position (text of a GTID set or an LSN).

    All of their records were acknowledged before the commit. Raises BadInput.
    """
    if engine is Engine.POSTGRES:
        reached: npt.NDArray[np.bool_] = ends["seq"] <= np.uint64(parse_lsn(committed))
        return reached
    return parse_position(engine, committed).sees(ends["stream"], ends["seq"])


def _last_ends(ends: Rows) -> Rows:
    order = np.lexsort((ends["place"], ends["transaction"], ends["shard"]))
    ends = ends[order]
    if not len(ends):
        return ends
    last = (ends["transaction"][1:] != ends["transaction"][:-1]) | (ends["shard"][1:] != ends["shard"][:-1])
    kept: Rows = ends[np.append(last, True)]
    return kept


def _by_run(seen: Rows) -> Rows:
    """Counts of one run in several partitions, and of several readings, in one."""
    order = np.lexsort((seen["run"], seen["transaction"], seen["shard"]))
    seen = seen[order]
    if not len(seen):
        return seen
    names = ("shard", "transaction", "run")
    new = np.any([seen[name][1:] != seen[name][:-1] for name in names], axis=0)
    starts = np.flatnonzero(np.append(True, new))
    found: Rows = seen[starts].copy()
    found["count"] = np.add.reduceat(seen["count"], starts)
    found["place"] = np.minimum.reduceat(seen["place"], starts)
    found["time"] = np.maximum.reduceat(seen["time"], starts)
    return found


def _words(rows: Rows) -> Words:
    """Shard and transaction in one number."""
    word = rows["transaction"] ^ (rows["shard"].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    spread: Words = (word ^ (word >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    return spread


def bucket_of(rows: Rows, buckets: int) -> npt.NDArray[np.uint64]:
    """In which of so many parts a row's transaction is: parts are balanced one by one, to bound memory."""
    parts: npt.NDArray[np.uint64] = (_words(rows) >> np.uint64(33)) % np.uint64(buckets)
    return parts


# Resumes


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing of a shard was sent between `after` and `until` (ms); before it, transactions up to `sent`."""

    after: int
    until: int
    sent: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Commit:
    """A source offset that a connector's task, or a person, wrote at that time (ms). None: it was deleted.

    `reading`: of an initial snapshot that has not ended. A task that starts from it reads everything anew.
    """

    at: int
    marks: Mapping[int, int] | None
    reading: bool = False


@dataclass(frozen=True, slots=True)
class Resumed:
    """How a task run began: `known` is False when nothing tells; `skipped` from (exclusive) and to by lane.

    `forgotten` is what was committed before and then deleted, `since` when the predecessor committed last (ms).
    `anew` is how far was sent before a run that had to begin with a snapshot.
    """

    known: bool
    skipped: tuple[LogPositions, LogPositions] | None = None
    forgotten: LogPositions | None = None
    anew: LogPositions | None = None
    since: int = 0


@dataclass(slots=True)
class ShardSent:
    """How far a shard's transactions were sent, carried from extension to extension: `quiet` are its last silences."""

    sent: dict[int, int] = field(default_factory=dict)
    last: int = 0
    quiet: list[Silence] = field(default_factory=list)

    def extend(self, rows: Rows, births: Collection[int], *, keep: int = 16) -> list[Silence]:
        """Take in rows of this shard (`SENT`); the silences in which those births may lie, old ones included."""
        rows = rows[np.argsort(rows["first"], kind="stable")]
        found = list(self.quiet)
        if len(rows):
            before = np.maximum.accumulate(np.append(self.last or rows["first"][0], rows["last"]))[:-1]
            gaps = np.flatnonzero(rows["first"] - before > SILENCE_MS)
            wanted = set(gaps[-keep:].tolist())
            for born in births:
                wanted.update(gaps[(before[gaps] <= born) & (born <= rows["first"][gaps])].tolist())
            at = 0
            for gap in sorted(wanted):
                self._raise(rows[at:gap])
                at = gap
                if self.sent:
                    found.append(Silence(int(before[gap]), int(rows["first"][gap]), dict(self.sent)))
            self._raise(rows[at:])
            self.last = max(self.last, int(rows["last"].max()))
        self.quiet = found[-keep:]
        return found

    def _raise(self, rows: Rows) -> None:
        for lane in np.unique(rows["lane"]).tolist():
            mark = int(rows["seq"][rows["lane"] == lane].max())
            self.sent[lane] = max(self.sent.get(lane, 0), mark)


def sent_before(born: int, shard: ShardSent, silences: Sequence[Silence]) -> Silence | None:
    """The silence in which a run was born (ms); None when nothing tells."""
    if shard.last and born > shard.last:
        return Silence(shard.last, born, dict(shard.sent))
    for silence in reversed(silences):
        if silence.after <= born <= silence.until:
            return silence
    return None


def resumed(commits: Sequence[Commit], sent: LogPositions | None, born: int, *, whole: bool = False) -> Resumed:
    """How a run began that was born then (ms), by the commits around its birth, in their order.

    The offset that it started from is the last one before. It is right when it lies within what was sent,
    or was committed twice: a task at rest commits the same again, a person writes once. Without an offset of
    the stream Debezium began with a snapshot: what its predecessor had sent does not join to that.

    Args:
        whole: the commits are all that there were since the predecessor's birth. Without one before this
            run, and with one after it, the predecessor was lost before its first.
    """
    before = [commit for commit in commits if commit.at <= born + CLOCKS_MS]
    if sent and before and before[-1].reading:
        return Resumed(known=True, anew=sent, since=before[-1].at)
    if sent and whole and commits and not before:
        return Resumed(known=True, anew=sent, since=born)
    if len(before) < 2:
        return Resumed(known=bool(before and before[-1].marks and sent and not _beyond(before[-1].marks, sent)))
    last, own = before[-2], before[-1]
    base = _joined(last.marks or {}, sent or {})
    if own.marks is None:
        return Resumed(known=True, forgotten=base or None, since=last.at)
    if sent is None and _beyond(own.marks, base):
        return Resumed(known=False)
    if not base or not _beyond(own.marks, base):
        return Resumed(known=True)
    return Resumed(known=True, skipped=(base, own.marks), since=last.at)


def _joined(one: LogPositions, other: LogPositions) -> dict[int, int]:
    return {lane: max(one.get(lane, 0), other.get(lane, 0)) for lane in {*one, *other}}


def _beyond(marks: LogPositions, base: LogPositions) -> bool:
    return any(mark > base.get(lane, 0) for lane, mark in marks.items())


def span_text(engine: Engine, base: LogPositions, until: LogPositions) -> str:
    """What lies behind `base` up to `until`, in the source's terms."""
    parts = []
    for lane, mark in sorted(until.items()):
        begin = base.get(lane, 0)
        if mark > begin and engine is Engine.POSTGRES:
            parts.append(f"LSN {format_lsn(begin)} to {format_lsn(mark)}")
        elif mark > begin:
            name = f"GTID domain {lane}" if engine is Engine.MARIADB else f"GTIDs of server {lane:08x}"
            parts.append(f"{name}, {begin + 1} to {mark}")
    return ", ".join(parts)


def positions_text(engine: Engine, marks: LogPositions) -> str:
    """The last transaction of each lane, in the source's terms."""
    if engine is Engine.POSTGRES:
        return ", ".join(f"LSN {format_lsn(mark)}" for mark in marks.values())
    names = {lane: f"GTID domain {lane}" if engine is Engine.MARIADB else f"server {lane:08x}" for lane in marks}
    return ", ".join(f"{names[lane]}, {mark}" for lane, mark in sorted(marks.items()))


def commit_of(engine: Engine, at: int, offset: Mapping[str, Any] | None) -> Commit:
    """A source offset of Connect's topic, written at that time (ms)."""
    return Commit(at, log_positions(engine, offset), reading=_is_reading(offset or {}))


def _is_reading(offset: Mapping[str, Any]) -> bool:
    """Seen: `snapshot: INITIAL` until it ends (MariaDB 3.5), `snapshot_completed: false` beside it (Postgres 3.7)."""
    return marked_initial(offset) and not (offset.get("snapshot_completed") or offset.get("last_snapshot_record"))


def log_positions(engine: Engine, offset: Mapping[str, Any] | None) -> dict[int, int] | None:
    """A connector's source offset as marks: the last transaction of each lane. None for a deleted one."""
    if offset is None:
        return None
    if engine is Engine.POSTGRES:
        lsn = offset.get("lsn_commit", offset.get("lsn"))
        return {} if lsn is None else {0: int(lsn)}
    found: dict[int, int] = {}
    for part in str(offset.get("gtids") or "").replace("\n", "").split(","):
        if engine is Engine.MYSQL and ":" in part:
            server, _, intervals = part.strip().partition(":")
            lane, mark = mysql_stream(server), int(intervals.replace(":", "-").rpartition("-")[2] or intervals)
        elif part.count("-") == 2:
            domain, _, number = part.strip().split("-")
            lane, mark = int(domain), int(number)
        else:
            continue
        found[lane] = max(found.get(lane, 0), mark)
    return found


def transaction_of(engine: Engine, text: str) -> tuple[int, int]:
    """(stream, number) of a transaction by its id in BEGIN and END: `0-1-7`, `uuid:7`, `txid:lsn`. Raises ValueError.

    On Postgres the stream is the 32-bit transaction id, the number the LSN.
    """
    if engine is Engine.MARIADB:
        domain, _, number = text.split("-")
        return int(domain), int(number)
    first, _, number = text.partition(":")
    if engine is Engine.MYSQL:
        return mysql_stream(first), int(number)
    return int(first) & 0xFFFFFFFF, int(number)


def record_location(place: int) -> str:
    """Partition and offset of a packed place."""
    partition, offset = divmod(place, 1 << OFFSET_BITS)
    return f"partition {partition}, offset {offset}"
