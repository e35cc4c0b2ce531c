"""What a MariaDB or MySQL server says of its own replication."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cdc_platform.model.topology import Engine

# Both have old and new names of the columns, and each server only one of them.
_THREADS = (("Replica_IO_Running", "Slave_IO_Running"), ("Replica_SQL_Running", "Slave_SQL_Running"))
_BEHIND = ("Seconds_Behind_Source", "Seconds_Behind_Master")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicationChannel:
    """One source that a server applies.

    `running`: at least one of its two threads runs, or tries to. `behind` in seconds; None: a thread has stopped
    or has lost the source.
    """

    running: bool
    behind: float | None


def replication_status(engine: Engine) -> str:
    """The statement that shows all channels: MariaDB 10.5 to 12, MySQL from 8.0.22 on."""
    return "SHOW ALL SLAVES STATUS" if engine is Engine.MARIADB else "SHOW REPLICA STATUS"


def prepared_status(engine: Engine) -> str:
    """The statement that lists prepared XA transactions; MySQL demands XA_RECOVER_ADMIN."""
    return "XA RECOVER FORMAT='SQL'" if engine is Engine.MARIADB else "XA RECOVER CONVERT XID"


def prepared_names(engine: Engine, rows: Sequence[Sequence[Any]]) -> tuple[str, ...]:
    """The answer to `prepared_status` as XA ROLLBACK takes them."""
    if engine is Engine.MARIADB:
        return tuple(str(row[3]) for row in rows)
    return tuple(_xid(*row) for row in rows)


def _xid(kind: int, first: int, second: int, data: str | bytes) -> str:
    """MySQL gives both parts as one number in hex."""
    digits = (data.decode() if isinstance(data, bytes) else data).removeprefix("0x")
    parts = [f"X'{digits[: 2 * first]}'", f"X'{digits[2 * first : 2 * (first + second)]}'"]
    return ",".join([*parts, str(kind)])


def channels(cursor: Any) -> Sequence[ReplicationChannel]:
    """The answer to `replication_status`; none for a server that follows no other."""
    names = [column[0] for column in cursor.description or ()]
    return [_channel(dict(zip(names, row, strict=True))) for row in cursor.fetchall()]


def _channel(row: Mapping[str, Any]) -> ReplicationChannel:
    threads = [_value(row, names) for names in _THREADS]
    behind = _value(row, _BEHIND)
    return ReplicationChannel(
        running=any(state not in (None, "No") for state in threads),
        behind=None if behind is None else float(behind),
    )


def _value(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)
