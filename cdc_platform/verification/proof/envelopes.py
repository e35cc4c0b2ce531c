"""Debezium's envelopes, as far as the proof needs them. By engine, with and without a schema beside them."""

from __future__ import annotations

import msgspec

_NULL = msgspec.Raw(b"null")


class BinlogSource(msgspec.Struct, gc=False):
    """`source` of MariaDB's and MySQL's events, as far as it is needed."""

    gtid: str | None = None
    file: str | None = None
    pos: int = 0
    row: int | None = 0
    snapshot: str | bool | None = None


class PostgresSource(msgspec.Struct, gc=False):
    """`source` of Postgres' events, as far as it is needed."""

    txId: int | None = None
    lsn: int | None = None
    snapshot: str | bool | None = None


class BinlogEvent(msgspec.Struct, gc=False):
    """The envelope of a MariaDB or MySQL event."""

    op: str
    source: BinlogSource
    after: msgspec.Raw = _NULL


class PostgresEvent(msgspec.Struct, gc=False):
    """The envelope of a Postgres event."""

    op: str
    source: PostgresSource
    after: msgspec.Raw = _NULL


def wrapped(kind: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """The same below `payload`, with its schema beside it."""
    return msgspec.defstruct(f"Wrapped{kind.__name__}", [("payload", kind)], gc=False)
