"""The tables of a shard as Debezium's options name them: regular expressions, matched whole, case ignored."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from cdc_platform.model.topology import Dataset, Engine, Shard, Table

DEFAULT_SCHEMA = "public"
INCLUDE_LIST = "table.include.list"
MESSAGE_KEYS = "message.key.columns"


# All that the names of databases, schemas, tables, columns and shards may hold beside letters, digits, `_` and `-`.
_SPECIAL = str.maketrans({char: "\\" + char for char in r"\.$*+?()[]{}|^"})


def literal(text: str) -> str:
    """The text as a Java (and Python) regular expression that matches just it."""
    # An identifier holds nothing special: ten thousand shards name the same tables.
    return text if text.isidentifier() else text.translate(_SPECIAL)


def container(dataset: Dataset, shard: Shard, table: Table) -> str:
    """What qualifies the table's name: its schema in Postgres, else the shard's database."""
    return (table.schema or DEFAULT_SCHEMA) if dataset.engine is Engine.POSTGRES else shard.database


def include_list(dataset: Dataset, shard: Shard) -> str:
    """`table.include.list`: just the dataset's tables that are not left out, and not one whose name differs in case."""
    return ",".join(_exactly(dataset.engine, _qualified(dataset, shard, table)) for table in shard.captured(dataset))


def twins(found: Collection[str], tables: Collection[str]) -> tuple[str, ...]:
    """Those of a binlog server's tables that a connector would take for one of these, all as `<database>.<table>`.

    It ignores the case of ASCII letters only.
    """
    folded = {_fold(table) for table in tables if not _is_exact(Engine.MARIADB, table)}
    return tuple(sorted(name for name in found if name not in tables and _fold(name) in folded))


def _fold(name: str) -> str:
    return "".join(char.lower() if char.isascii() else char for char in name)


def _is_exact(engine: Engine, name: str) -> bool:
    return engine is Engine.POSTGRES or name == name.lower()


def _exactly(engine: Engine, name: str) -> str:
    """The expression with case regarded, though Debezium compiles it without.

    A name with capitals is left as it is on MariaDB and MySQL: a server that keeps names in small letters
    (`lower_case_table_names=1`) shows the table by another one.
    """
    return f"(?-i:{name})" if _is_exact(engine, name) else name


def captured_tables(dataset: Dataset, shard: Shard, config: Mapping[str, str] | None) -> frozenset[str]:
    """The dataset's tables that a connector's configuration names; none when there is no connector."""
    named = _named((config or {}).get(INCLUDE_LIST, ""))
    return frozenset(table.name for table in dataset.tables if _qualified(dataset, shard, table) in named)


def uncaptured(
    dataset: Dataset, shard: Shard, tables: Collection[str], config: Mapping[str, str] | None
) -> tuple[str, ...]:
    """Which of these tables a connector's configuration lacks; none when there is no connector."""
    if config is None:
        return ()
    named = captured_tables(dataset, shard, config)
    return tuple(t.name for t in shard.captured(dataset) if t.name in tables and t.name not in named)


def no_longer_captured(before: str, after: str) -> frozenset[str]:
    """The bare names of tables that were in one `table.include.list` and are not in the next."""
    lost = _named(before) - _named(after)
    return frozenset(re.sub(r"\\(.)", r"\1", name.rpartition(r"\.")[2]) for name in lost)


def _named(include: str) -> set[str]:
    """The names of a list, as releases before this one wrote it, too."""
    return {name[5:-1] if name.startswith("(?-i:") else name for name in include.split(",")}


def message_keys(dataset: Dataset, shard: Shard) -> str | None:
    """`message.key.columns` for the tables whose key the topology names; None when there is none."""
    entries = [
        f"{_qualified(dataset, shard, table)}:{','.join(literal(column) for column in table.key)}"
        for table in shard.captured(dataset)
        if table.key
    ]
    return ";".join(entries) or None


def _qualified(dataset: Dataset, shard: Shard, table: Table) -> str:
    return rf"{literal(container(dataset, shard, table))}\.{literal(table.name)}"
