"""The continuity ledger: was every step handed on? Pure, on arrays.

A state proof shows that the end is right. That no logged step between was lost is another claim, made of two:

- Transactions are whole. The source counts: a transaction's END says how many events each table has
  of it, and so many distinct ones must be in the table's topic. Kept are only transactions that do
  not balance yet, so an extension costs what is new. One that must have arrived, because the connector
  has committed a position behind it, and does not balance, is a break.
- Each task run resumed where its predecessor committed. The offset from which a run started must
  not lie behind all that was sent before it started. One that was moved on in between (by hand, or
  restored from elsewhere) skips what lies between: a break with that range.

Numbers that are missing in a server's stream of transactions are not a signal: only what a run started
from is compared with what was sent before. Without evidence the state is `unknown`, never a break.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cdc_platform.verification.continuity.committed_positions import Commit, LogPositions
from cdc_platform.verification.continuity.transaction_balance import Rows

# How far transactions were sent, within a moment: `log` is a GTID domain or server, or 0 (Postgres).
SENT = np.dtype([("shard", "u4"), ("log", "u4"), ("seq", "u8"), ("first", "i8"), ("last", "i8")])


# A task that starts is silent for longer than this before.
SILENCE_MS = 300
# A commit may be written by another machine's clock; a run's own first comes a flush interval after its start.
CLOCKS_MS = 2_000


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing of a shard was sent between `after` and `until` (ms); before it, transactions up to `sent`."""

    after: int
    until: int
    sent: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Resumed:
    """How a task run began: `known` is False without evidence; `skipped` from (exclusive) and to, by log.

    `forgotten` is what was committed before and then deleted, `since` when the predecessor committed last (ms).
    `from_scratch` is how far was sent before a run that had to begin with a snapshot.
    """

    known: bool
    skipped: tuple[LogPositions, LogPositions] | None = None
    forgotten: LogPositions | None = None
    from_scratch: LogPositions | None = None
    since: int = 0


@dataclass(slots=True)
class ShardSent:
    """How far a shard's transactions were sent, carried from extension to extension: `quiet` are its last silences."""

    sent: dict[int, int] = field(default_factory=dict)
    last: int = 0
    quiet: list[Silence] = field(default_factory=list)

    def extend(self, rows: Rows, starts: Collection[int], *, keep: int = 16) -> list[Silence]:
        """Take in rows of this shard (`SENT`); the silences in which those starts may lie, old ones included."""
        rows = rows[np.argsort(rows["first"], kind="stable")]
        found = list(self.quiet)
        if len(rows):
            before = np.maximum.accumulate(np.append(self.last or rows["first"][0], rows["last"]))[:-1]
            gaps = np.flatnonzero(rows["first"] - before > SILENCE_MS)
            chosen = set(gaps[-keep:].tolist())
            for started in starts:
                chosen.update(gaps[(before[gaps] <= started) & (started <= rows["first"][gaps])].tolist())
            at = 0
            for gap in sorted(chosen):
                self._raise(rows[at:gap])
                at = gap
                if self.sent:
                    found.append(Silence(int(before[gap]), int(rows["first"][gap]), dict(self.sent)))
            self._raise(rows[at:])
            self.last = max(self.last, int(rows["last"].max()))
        self.quiet = found[-keep:]
        return found

    def _raise(self, rows: Rows) -> None:
        for log in np.unique(rows["log"]).tolist():
            position = int(rows["seq"][rows["log"] == log].max())
            self.sent[log] = max(self.sent.get(log, 0), position)


def sent_before(started: int, shard: ShardSent, silences: Sequence[Silence]) -> Silence | None:
    """The silence in which a run started (ms); None when there is none."""
    if shard.last and started > shard.last:
        return Silence(shard.last, started, dict(shard.sent))
    for silence in reversed(silences):
        if silence.after <= started <= silence.until:
            return silence
    return None


def resumed(commits: Sequence[Commit], sent: LogPositions | None, started: int, *, whole: bool = False) -> Resumed:
    """How a run began that started then (ms), by the commits around its start, in their order.

    The offset that it started from is the last one before. It is right when it lies within what was sent,
    or was committed twice: a task at rest commits the same again, an operator writes once. Without an offset of
    the stream Debezium began with a snapshot: what its predecessor had sent does not join to that.

    Args:
        whole: the commits are all that there were since the predecessor's start. Without one before this
            run, and with one after it, the predecessor was lost before its first.
    """
    before = [commit for commit in commits if commit.at <= started + CLOCKS_MS]
    if sent and before and before[-1].reading:
        return Resumed(known=True, from_scratch=sent, since=before[-1].at)
    if sent and whole and commits and not before:
        return Resumed(known=True, from_scratch=sent, since=started)
    if len(before) < 2:
        return Resumed(known=bool(before and before[-1].positions and sent and not _beyond(before[-1].positions, sent)))
    last, own = before[-2], before[-1]
    base = _joined(last.positions or {}, sent or {})
    if own.positions is None:
        return Resumed(known=True, forgotten=base or None, since=last.at)
    if sent is None and _beyond(own.positions, base):
        return Resumed(known=False)
    if not base or not _beyond(own.positions, base):
        return Resumed(known=True)
    return Resumed(known=True, skipped=(base, own.positions), since=last.at)


def _joined(one: LogPositions, other: LogPositions) -> dict[int, int]:
    return {log: max(one.get(log, 0), other.get(log, 0)) for log in {*one, *other}}


def _beyond(positions: LogPositions, base: LogPositions) -> bool:
    return any(position > base.get(log, 0) for log, position in positions.items())
