"""Keys found in a topic, as text that the source compares with its own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from cdc_platform.canonical import wire_values as wire
from cdc_platform.canonical.columns import Column, Shape
from cdc_platform.model.topology import Engine

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _bare(token: bytes) -> str:
    return token.decode()


def _day(token: bytes) -> str:
    return (_EPOCH + timedelta(days=int(token))).strftime("%Y-%m-%d")


def _moment(token: bytes) -> str:
    return (_EPOCH + timedelta(microseconds=int(token))).strftime("%Y-%m-%d %H:%M:%S.%f")


def _clock(token: bytes) -> str:
    micros = int(token)
    seconds, fraction = divmod(abs(micros), 1_000_000)
    sign = "-" if micros < 0 else ""
    return f"{sign}{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{fraction:06d}"


def _zoned(token: bytes) -> str:
    return wire.text_of(token).replace("T", " ").rstrip("Z")


def _bytea(token: bytes) -> str:
    return "\\x" + wire.text_of(token)


def _hex(token: bytes) -> str:
    return wire.text_of(token).upper()


def _numeric(token: bytes) -> str:
    text = wire.text_of(token)
    return {"NAN": "NaN", "POSITIVE_INFINITY": "Infinity", "NEGATIVE_INFINITY": "-Infinity"}.get(text, text)


_MARIADB: dict[str, Callable[[bytes], str]] = {
    **dict.fromkeys(("tinyint", "smallint", "mediumint", "int", "integer", "bigint", "year"), _bare),
    **dict.fromkeys(("char", "varchar", "tinytext", "text", "mediumtext", "longtext", "uuid"), wire.text_of),
    **dict.fromkeys(("decimal", "numeric"), wire.text_of),
    **dict.fromkeys(("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"), _hex),
    "date": _day,
    "time": _clock,
    "datetime": _moment,
    "timestamp": _zoned,
}
_POSTGRES: dict[str, Callable[[bytes], str]] = {
    **dict.fromkeys(("int2", "int4", "int8", "oid", "bool"), _bare),
    **dict.fromkeys(("varchar", "text", "bpchar", "name", "char", "citext", "uuid", "inet", "cidr"), wire.text_of),
    **dict.fromkeys(("macaddr", "macaddr8", "ltree"), wire.text_of),
    "numeric": _numeric,
    "bytea": _bytea,
    "date": _day,
    "time": _clock,
    "timestamp": _moment,
    "timestamptz": lambda token: wire.text_of(token),
}


def _reader(engine: Engine, column: Column) -> Callable[[bytes], str] | None:
    if engine.reads_binlog:
        return _MARIADB.get(column.type)
    return wire.text_of if column.kind == "enum" else _POSTGRES.get(column.type)


def readable_key(engine: Engine, column: Column) -> bool:
    """True when a key column of this type can be looked up by what the topic says."""
    return _reader(engine, column) is not None


def source_key(shape: Shape, tokens: dict[str, bytes]) -> tuple[str, ...] | None:
    """The key as the source takes it; None when the value is beyond what can be written (a year past 9999)."""
    try:
        parts = []
        for name in shape.key:
            read = _reader(shape.engine, shape.column(name))
            if read is None:
                return None
            parts.append(read(tokens[name]))
    except (OverflowError, ValueError):
        return None
    return tuple(parts)
