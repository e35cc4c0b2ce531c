"""How full the log is that a source keeps for a shard, how fast it grows, and when that is too much. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cdc_platform.model.positions import Committed, parse_position
from cdc_platform.model.source_facts import RetainedLog
from cdc_platform.model.source_log import SourceLog, WhenFull

# Of what it may keep: an alert, and the slot is given up where the topology says so.
_ALERT, _FULL = 0.5, 0.9
# Of what a slot keeps: a connector that has less than that to read is not why.
_READ = 0.1
# Slots that keep less are not remembered from one round to the next.
LITTLE = 64 << 20


@dataclass(frozen=True, slots=True)
class LogSeen:
    """What one round saw of a log: bytes kept, and bytes written in all."""

    at: datetime
    bytes: int
    written: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogState:
    """A shard's log now. `full`: what may be kept, in bytes; `seconds_left` until the connector's place is lost.

    None: not known, or not in sight. `lost`: it is lost already, and why.
    """

    bytes: int
    full: int | None
    seconds_left: float | None
    hazard: str = ""
    lost: str = ""
    give_up: bool = False


def slot_state(log: RetainedLog, limits: SourceLog, before: LogSeen | None, now: datetime) -> LogState:
    """A Postgres slot's. It fills while it keeps more from one round to the next."""
    bounds = [size for size in (log.left and log.left + log.bytes, limits.full_bytes) if size]
    full = min(bounds, default=None)
    seconds = (now - before.at).total_seconds() if before else 0.0
    growth = max(0.0, (log.bytes - before.bytes) / seconds) if before and seconds > 0 else 0.0
    left = max(0, full - log.bytes) / growth if full is not None and growth else None
    text = lost = ""
    if log.state == "lost":
        lost = "its slot is lost: the server has removed WAL that the connector has not read"
    elif log.state == "unreserved":
        text = f"its slot keeps {_size(log.bytes)} of WAL, more than it may: the next checkpoint removes what it needs"
    elif full is not None and (log.bytes > _ALERT * full or (left is not None and left < limits.alert_seconds)):
        until = f", in {_duration(left)} at the rate of now" if left is not None else ""
        text = f"its slot keeps {_size(log.bytes)} of WAL and is full at {_size(full)}{until}"
    elif full is None and log.bytes > _UNBOUNDED:
        text = f"its slot keeps {_size(log.bytes)} of WAL without a bound; how much disk is free is not known"
    if text and log.unread is not None and log.unread < _READ * log.bytes:
        text += "; its connector has read nearly all of it: an open or prepared transaction keeps the rest"
    give_up = limits.when_full is WhenFull.GIVE_UP_SLOT and full is not None and log.bytes >= _FULL * full
    return LogState(bytes=log.bytes, full=full, seconds_left=left, hazard=text, lost=lost, give_up=give_up)


# An unbounded slot beyond this is reported.
_UNBOUNDED = 16 << 30


def binlog_state(
    log: RetainedLog,
    limits: SourceLog,
    before: LogSeen | None,
    behind: float | None,
    now: datetime,
    committed: Committed | None = None,
) -> LogState:
    """That of a server's binlogs, which are purged by age, by their size in all, or by hand.

    Args:
        behind: seconds since the last change that the connector has handed on; None: not known.
        committed: the connector's place, where that was asked: the binlogs that are kept are held against it.
    """
    seconds = (now - before.at).total_seconds() if before else 0.0
    rate = (log.written - before.written) / seconds if before and seconds > 0 else 0.0
    ages = [age for age in (log.seconds, log.left / rate if log.left and rate > 0 else None) if age]
    kept = min(ages, default=None)
    left = None if kept is None or behind is None else max(0.0, kept - behind)
    text = ""
    if kept and left is not None and behind and (behind > _ALERT * kept or left < min(limits.alert_seconds, kept / 2)):
        text = (
            f"the connector is {_duration(behind)} behind, and the server keeps binlogs for {_duration(kept)}: "
            f"in {_duration(left)} what it still needs is purged"
        )
    elif committed is not None and _needs(committed, log, 1):
        text = (
            f"the connector still needs {log.begins[0].name}, the oldest binlog that the server keeps, which it purges"
            " next"
        )
    lost = ""
    if committed is not None and _needs(committed, log, 0):
        lost = f"the server has purged binlogs that the connector has not read: the oldest is {log.begins[0].name}"
    return LogState(bytes=log.bytes, full=None, seconds_left=0.0 if lost else left, hazard=text, lost=lost)


def _needs(committed: Committed, log: RetainedLog, number: int) -> bool:
    """True when the connector has to read something from before the binlog of this number, from the oldest on.

    By GTIDs where both sides have them; else by the binlogs' names, which count up.
    """
    if committed.busy or number >= len(log.begins):
        return False
    begin = log.begins[number]
    if committed.position and begin.position:
        return not committed.reached(parse_position(committed.engine, begin.position))
    return bool(committed.file) and not committed.position and _number(committed.file or "") < _number(begin.name)


def _number(file: str) -> int:
    digits = file.rpartition(".")[2]
    return int(digits) if digits.isdigit() else 0


def _size(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.0f} MiB"


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"
