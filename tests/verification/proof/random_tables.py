"""Random tables, settings and changes, and what a plain reader of source and topic makes of them.

Nothing here uses the proof's canonical forms: a source's row is what its driver gives, a topic's is JSON, and each
type has a way of its own to compare the two.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from cdc_platform.model.topology import Engine

_EPOCH = datetime(1970, 1, 1)
_TEXTS = ("", "a", " a ", "A", "ä", "€uro", "😀", "a\\b", 'q"q', "it's", "line\nline", "null", "true", "0", "\t|,")


def _text(dice: random.Random) -> str:
    return "".join(dice.choice(_TEXTS) for _ in range(dice.randrange(4)))


def _integers(bits: int, *, unsigned: bool = False) -> Callable[[random.Random], int]:
    least, most = (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return lambda dice: dice.choice((0, 1, least, most, dice.randint(least, most)))


def _moment(dice: random.Random, first: int, last: int) -> datetime:
    return datetime(first, 1, 2) + timedelta(
        days=dice.randrange((last - first) * 365),
        seconds=dice.randrange(86400),
        microseconds=dice.choice((0, 500000, 1, 120000)),
    )


def _micros(span: timedelta) -> int:
    return span // timedelta(microseconds=1)


def _moment_of(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def _day(days: int) -> date:
    return date(1970, 1, 1) + timedelta(days)


def _dates(dice: random.Random) -> date:
    return _moment(dice, 1000, 9998).date()


def _moments(dice: random.Random) -> datetime:
    return _moment(dice, 1000, 9998)


def _seconds(dice: random.Random) -> datetime:
    return _moments(dice).replace(microsecond=0)


def _spans(dice: random.Random) -> timedelta:
    return timedelta(seconds=dice.randint(-3020399, 3020398), microseconds=dice.choice((0, 5)))


def _hex(dice: random.Random) -> str:
    return f"{dice.getrandbits(128):032x}"


def _plain(found: datetime) -> datetime:
    return found.astimezone(UTC).replace(tzinfo=None)


def _instant(text: str) -> datetime:
    """An ISO moment of the wire, at UTC."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC).replace(tzinfo=None)


@dataclass(frozen=True)
class Kind:
    """A column's type: its values to write, and what the topic's value and the driver's both become."""

    type: str
    make: Callable[[random.Random], Any]
    wire: Callable[[Any], Any] = lambda value: value
    driver: Callable[[Any], Any] = lambda value: value
    key: bool = False


_INT = Kind("INT", _integers(32), key=True)
_BIG = Kind("BIGINT", _integers(64), key=True)
_DEC = Kind("DECIMAL(20,5)", lambda dice: Decimal(dice.randint(-(10**9), 10**9)).scaleb(-5), Decimal, key=True)
_DATE = Kind("DATE", _dates, _day, key=True)
_VARCHAR = Kind("VARCHAR(60)", _text)
_DOUBLE = "DOUBLE", lambda dice: dice.choice((0.0, 0.1, 1e-300, 1.7e300, -2.5, dice.random()))

_BINLOG = (
    _INT, _BIG, _DEC, _DATE, _VARCHAR,
    Kind("TINYINT", _integers(8)),
    Kind("BIGINT UNSIGNED", _integers(64, unsigned=True)),
    Kind("DOUBLE", _DOUBLE[1], float, float),
    Kind("TEXT CHARACTER SET utf8mb4", _text),
    Kind("VARBINARY(40)", lambda dice: dice.randbytes(dice.randrange(30)), bytes.fromhex, bytes, key=True),
    Kind("LONGBLOB", lambda dice: dice.randbytes(dice.randrange(3000)), bytes.fromhex, bytes),
    Kind("DATETIME(6)", _moments, _moment_of, key=True),
    Kind("DATETIME", _seconds, _moment_of),
    Kind("TIMESTAMP(6) NULL", lambda dice: _moment(dice, 1971, 2037), _instant),
    Kind("TIME(6)", _spans, int, _micros),
    Kind("ENUM('b','a','zö ')", lambda dice: dice.choice(("b", "a", "zö"))),
    Kind("YEAR", lambda dice: dice.randint(1901, 2155)),
    Kind("JSON", lambda dice: json.dumps({"k": _text(dice), "n": dice.randrange(99)}), json.loads, json.loads),
)  # fmt: skip
_POSTGRES = (
    _INT, _BIG, _DEC, _VARCHAR,
    Kind("DATE", _dates, _day, key=True),
    Kind("SMALLINT", _integers(16)),
    Kind("BOOLEAN", lambda dice: dice.random() < 0.5),
    Kind("DOUBLE PRECISION", _DOUBLE[1], float),
    Kind("TEXT", _text, key=True),
    Kind("BYTEA", lambda dice: dice.randbytes(dice.randrange(5000)), bytes.fromhex, bytes),
    Kind("UUID", _hex, lambda text: text.replace("-", ""), lambda found: found.hex, key=True),
    Kind("TIMESTAMP(6)", _moments, _moment_of),
    Kind("TIMESTAMPTZ", lambda dice: _moments(dice).replace(tzinfo=UTC), _instant, _plain, key=True),
    Kind("JSONB", lambda dice: json.dumps({"k": _text(dice), "n": dice.randrange(99)}), json.loads),
    Kind("INT[]", lambda dice: [dice.randrange(99) for _ in range(dice.randrange(4))]),
    Kind("TEXT[]", lambda dice: [_text(dice) for _ in range(dice.randrange(4))]),
)  # fmt: skip
KINDS: Mapping[Engine, tuple[Kind, ...]] = {
    Engine.MARIADB: _BINLOG,
    Engine.MYSQL: _BINLOG,
    Engine.POSTGRES: _POSTGRES,
}
# Of the sessions that write.
SESSIONS: Mapping[Engine, tuple[str, ...]] = {
    Engine.MARIADB: (
        "SET time_zone = '-05:00'", "SET time_zone = '+09:30'", "SET sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'",
        "SET character_set_server = latin1", "SET collation_connection = utf8mb4_bin", "SET gtid_domain_id = 7",
        "SET binlog_annotate_row_events = OFF", "SET timestamp = 1000000000", "SET alter_algorithm = 'COPY'",
        "SET foreign_key_checks = 0, unique_checks = 0",
    ),
    Engine.MYSQL: (
        "SET time_zone = '-05:00'", "SET time_zone = '+09:30'", "SET sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'",
        "SET collation_connection = utf8mb4_bin", "SET binlog_transaction_compression = ON",
        "SET binlog_rows_query_log_events = ON", "SET timestamp = 1000000000", "SET unique_checks = 0",
    ),
    Engine.POSTGRES: (
        "SET DateStyle = 'SQL, DMY'", "SET TimeZone = 'Asia/Kolkata'", "SET bytea_output = 'escape'",
        "SET extra_float_digits = -3", "SET IntervalStyle = 'sql_standard'", "SET synchronous_commit = off",
        "SET client_encoding = 'UTF8'", "SET search_path = ''", "SET standard_conforming_strings = on",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class RandomTable:
    """Columns k (the key) and c0, c1, ...; `identity`: a further statement after it is made."""

    key: Kind
    columns: tuple[Kind, ...]
    identity: str = ""

    @classmethod
    def throw(cls, dice: random.Random, engine: Engine) -> RandomTable:
        kinds = KINDS[engine]
        identity = "ALTER TABLE t REPLICA IDENTITY FULL" if engine is Engine.POSTGRES and dice.random() < 0.7 else ""
        keys = [kind for kind in kinds if kind.key]
        return cls(dice.choice(keys), tuple(dice.choice(kinds) for _ in range(dice.randint(2, 7))), identity)

    @property
    def create(self) -> str:
        columns = "".join(f", c{n} {kind.type}" for n, kind in enumerate(self.columns))
        return f"CREATE TABLE t (k {self.key.type} NOT NULL PRIMARY KEY{columns})"

    @property
    def names(self) -> tuple[str, ...]:
        return ("k", *(f"c{n}" for n in range(len(self.columns))))

    def row(self, dice: random.Random) -> list[Any]:
        """Values to insert; a NULL now and then."""
        return [self.key.make(dice), *(None if dice.random() < 0.15 else kind.make(dice) for kind in self.columns)]

    def from_source(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        kinds = (self.key, *self.columns)
        return tuple(None if value is None else kind.driver(value) for kind, value in zip(kinds, row, strict=True))

    def from_topic(self, after: Mapping[str, Any]) -> tuple[Any, ...]:
        kinds = (self.key, *self.columns)
        values = (after[name] for name in self.names)
        return tuple(None if value is None else kind.wire(value) for kind, value in zip(kinds, values, strict=True))


def differences(
    table: RandomTable, source: list[tuple[Any, ...]], records: list[list[tuple[bytes | None, bytes | None]]]
) -> tuple[int, int, int]:
    """Missing, extra and mismatched rows, as a reader by key sees source and topic."""
    rows = {row[0]: row for row in map(table.from_source, source)}
    last = [dict(part) for part in records]
    live = [json.loads(value) for part in last for value in part.values() if value is not None]
    folded = {row[0]: row for row in (table.from_topic(event["after"]) for event in live if event["op"] != "d")}
    common = rows.keys() & folded.keys()
    return len(rows) - len(common), len(folded) - len(common), sum(rows[key] != folded[key] for key in common)
