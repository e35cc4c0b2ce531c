"""What a connector of another tool captures, and what of it a proof lacks. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cdc_platform.connectors.engines.registry import ENGINES, wire_format
from cdc_platform.connectors.identity import SHARD_KEY_FIELD
from cdc_platform.connectors.tables import INCLUDE_LIST
from cdc_platform.model.naming import some_of
from cdc_platform.model.secret_references import is_reference
from cdc_platform.model.topology import Engine

_CONVERTERS = ("key.converter", "value.converter")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")
# Most options named of those that spell values otherwise.
_NAMED = 4


@dataclass(frozen=True, slots=True)
class Point:
    """Something that a proof needs and the connector does not have."""

    what: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoptable:
    """A Debezium connector as its config describes it.

    `tables` are (database or schema, table); None: they are named by patterns, or not at all. `database` is the one
    that it reads; None when there are several or it is not known. `host`: HOST:PORT, None for a reference.
    `lacks` keeps it from being proven as it is.
    """

    name: str
    engine: Engine
    tables: tuple[tuple[str, str], ...] | None
    database: str | None
    host: str | None
    user: str
    password: str = field(repr=False)
    lacks: tuple[Point, ...]


def engine_of(config: Mapping[str, str]) -> Engine | None:
    """The engine of a Debezium connector that can be watched; None for any other connector."""
    found = config.get("connector.class")
    return next((engine for engine, facts in ENGINES.items() if facts.connector_class == found), None)


def adoptable(name: str, config: Mapping[str, str]) -> Adoptable | None:
    """The connector, or None when its class is not one of Debezium's for MariaDB, MySQL or Postgres."""
    engine = engine_of(config)
    if engine is None:
        return None
    tables = _tables(config.get(INCLUDE_LIST, ""))
    databases = sorted({container for container, _ in tables or ()})
    if engine is Engine.POSTGRES:
        database = config.get("database.dbname")
    else:
        database = databases[0] if len(databases) == 1 else None
    host, port = config.get("database.hostname", ""), config.get("database.port", "")
    standard = "5432" if engine is Engine.POSTGRES else "3306"
    literal = bool(host) and not is_reference(host) and not is_reference(port)
    return Adoptable(
        name=name,
        engine=engine,
        tables=tables,
        database=database if database and _NAME.fullmatch(database) else None,
        host=f"{host}:{port or standard}" if literal else None,
        user=config.get("database.user", ""),
        password=config.get("database.password", ""),
        lacks=(*_routing(config), *_format(config, engine), *_what(config, engine, tables, databases)),
    )


def _tables(text: str) -> tuple[tuple[str, str], ...] | None:
    """The tables of `table.include.list`, None when one of its entries is a pattern."""
    found = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        plain = re.sub(r"^\(\?-i:(.*)\)$", r"\1", entry).replace(r"\.", ".")
        container, dot, table = plain.partition(".")
        if not (dot and _NAME.fullmatch(container) and _NAME.fullmatch(table)):
            return None
        found.append((container, table))
    return tuple(found) or None


def _transforms(config: Mapping[str, str]) -> dict[str, str]:
    """The transforms by name, with the last part of their class."""
    names = filter(None, (name.strip() for name in config.get("transforms", "").split(",")))
    return {name: config.get(f"transforms.{name}.type", "").rpartition(".")[2] for name in names}


def _routing(config: Mapping[str, str]) -> list[Point]:
    points = []
    transforms = _transforms(config)
    fields = {
        config.get(f"transforms.{name}.static.field", "").rstrip("!?")
        for name, kind in transforms.items()
        if kind == "InsertField$Key"
    }
    if SHARD_KEY_FIELD not in fields:
        points.append(
            Point("key", f"its keys do not name the shard (field {SHARD_KEY_FIELD}): rows of two shards are one key")
        )
        prefix = config.get("topic.prefix", config.get("database.server.name", "?"))
        points.append(
            Point(
                "topic", f"it writes to {prefix}.<database or schema>.<table>, not to one topic a table of all shards"
            )
        )
    unwrap = sorted(name for name, kind in transforms.items() if kind.startswith("ExtractNewRecordState"))
    if unwrap:
        points.append(
            Point("envelope", f"transform {unwrap[0]} leaves the row only: position, operation and old values are gone")
        )
    ours = {"InsertField$Key", "RegexRouter", "InsertHeader", "ExtractNewRecordState"}
    others = sorted(f"{name} ({kind})" for name, kind in transforms.items() if kind not in ours)
    if others:
        points.append(
            Point("transforms", f"{some_of(others, _NAMED)}: what they make of a row is not known to a proof")
        )
    return points


def _format(config: Mapping[str, str], engine: Engine) -> list[Point]:
    points = []
    wanted = wire_format(engine)
    for option in _CONVERTERS:
        has = config.get(option)
        if has is None:
            points.append(
                Point("format", f"{option} is the workers' default, which its config does not show: JSON is read")
            )
        elif has != wanted[option]:
            points.append(Point("format", f"{option} is {has.rpartition('.')[2]}: JSON is read, nothing else"))
    differ = sorted(
        f"{option}={config.get(option, '(default)')}, not {value}"
        for option, value in wanted.items()
        if not option.startswith(("key.converter", "value.converter", "header.converter"))
        and config.get(option) != value
    )
    if differ:
        points.append(Point("values", f"{len(differ)} options spell values otherwise: {some_of(differ, _NAMED)}"))
    return points


def _what(
    config: Mapping[str, str], engine: Engine, tables: Sequence[tuple[str, str]] | None, databases: Sequence[str]
) -> list[Point]:
    points = []
    if tables is None:
        points.append(Point("tables", f"{INCLUDE_LIST} does not name each table: a dataset does"))
    if engine is not Engine.POSTGRES and len(databases) > 1:
        points.append(Point("shard", f"it reads {len(databases)} databases ({some_of(databases, 3)}): a shard is one"))
    if config.get("heartbeat.interval.ms", "0") == "0":
        points.append(Point("heartbeat", "it sends none: that it lives is known by Connect's word alone"))
    if not is_reference(config.get("database.hostname", "")):
        points.append(Point("leader", "its config holds the server's address: it follows no new leader by itself"))
    return points


def continues_at(engine: Engine, offsets: Sequence[Mapping[str, object]]) -> str | None:
    """The position from which a new connector may stream on where this one is; None where no new one can.

    A Postgres slot begins when it is made, and a file and its position are those of one server.
    """
    for entry in offsets:
        offset = entry.get("offset")
        if engine is not Engine.POSTGRES and isinstance(offset, Mapping) and offset.get("gtids"):
            return str(offset["gtids"]).replace("\n", "")
    return None
