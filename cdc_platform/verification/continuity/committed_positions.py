"""Source offsets that Connect committed, as the last transaction of each of the source's logs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cdc_platform.model.position_codec import format_lsn
from cdc_platform.model.positions import MySqlPosition, marked_initial, mysql_stream, mysql_transaction
from cdc_platform.model.topology import Engine

# Of each log of a source (GTID domain, server, or 0 on Postgres) the last transaction: its number, or LSN.
LogPositions = Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Commit:
    """A source offset that a connector's task, or an operator, wrote at that time (ms); `positions` None: deleted.

    `reading`: of an initial snapshot that has not ended. A task that starts from it reads everything again.
    """

    at: int
    positions: LogPositions | None
    reading: bool = False


def span_text(engine: Engine, base: LogPositions, until: LogPositions) -> str:
    """What lies behind `base` up to `until`, in the source's terms."""
    parts = []
    for log, position in sorted(until.items()):
        begin = base.get(log, 0)
        if position > begin and engine is Engine.POSTGRES:
            parts.append(f"LSN {format_lsn(begin)} to {format_lsn(position)}")
        elif position > begin:
            name = f"GTID domain {log}" if engine is Engine.MARIADB else f"GTIDs of server {log:08x}"
            parts.append(f"{name}, {begin + 1} to {position}")
    return ", ".join(parts)


def positions_text(engine: Engine, positions: LogPositions) -> str:
    """The last transaction of each log, in the source's terms."""
    if engine is Engine.POSTGRES:
        return ", ".join(f"LSN {format_lsn(position)}" for position in positions.values())
    names = {log: f"GTID domain {log}" if engine is Engine.MARIADB else f"server {log:08x}" for log in positions}
    return ", ".join(f"{names[log]}, {position}" for log, position in sorted(positions.items()))


def commit_of(engine: Engine, at: int, offset: Mapping[str, Any] | None) -> Commit:
    """A source offset of Connect's topic, written at that time (ms)."""
    return Commit(at, log_positions(engine, offset), reading=_is_reading(offset or {}))


def _is_reading(offset: Mapping[str, Any]) -> bool:
    """Debezium has `snapshot: INITIAL` until it ends (MariaDB 3.5), and
    `snapshot_completed: false` beside it (Postgres 3.7).
    """
    return marked_initial(offset) and not (offset.get("snapshot_completed") or offset.get("last_snapshot_record"))


def log_positions(engine: Engine, offset: Mapping[str, Any] | None) -> dict[int, int] | None:
    """The last transaction of each log, by a connector's source offset. None for a deleted one."""
    if offset is None:
        return None
    if engine is Engine.POSTGRES:
        lsn = offset.get("lsn_commit", offset.get("lsn"))
        return {} if lsn is None else {0: int(lsn)}
    found: dict[int, int] = {}
    gtids = str(offset.get("gtids") or "")
    if engine is Engine.MYSQL:
        for source, intervals in MySqlPosition.parse(gtids).sets:
            log = mysql_stream(source)
            found[log] = max(found.get(log, 0), intervals[-1][1])
        return found
    for part in gtids.split(","):
        if part.count("-") == 2:
            domain, _, number = part.strip().split("-")
            found[int(domain)] = max(found.get(int(domain), 0), int(number))
    return found


def transaction_of(engine: Engine, text: str) -> tuple[int, int]:
    """(stream, number) of a transaction by its id in BEGIN and END: `0-1-7`, `uuid:7`, `txid:lsn`. Raises ValueError.

    On Postgres the stream is the 32-bit transaction id, the number the LSN.
    """
    if engine is Engine.MARIADB:
        domain, _, number = text.split("-")
        return int(domain), int(number)
    if engine is Engine.MYSQL:
        return mysql_transaction(text)
    first, _, number = text.partition(":")
    return int(first) & 0xFFFFFFFF, int(number)
