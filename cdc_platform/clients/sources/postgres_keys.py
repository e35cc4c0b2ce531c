"""Keys in the SQL of Postgres: selected as text, and compared so that an index serves.

Operators are named with the schema of the type's own ordering: sessions search `pg_catalog` only, and there a citext
would be compared as a text. Percent signs are doubled: the statements have parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cdc_platform.clients.sources.source import Key


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyColumn:
    """A key's column in SQL.

    `name` is its name, `text` its value as text that `type` reads back; `operators` the schema of its comparisons.
    """

    name: str
    text: str
    type: str
    operators: str

    def compare(self, left: str, operator: str, right: str) -> str:
        """A comparison by the type's own operator."""
        return f"{left} OPERATOR({self.operators}.{operator}) {right}"


def range_condition(key: Sequence[KeyColumn], after: Key | None, until: Key | None) -> tuple[str, tuple[str, ...]]:
    """A condition and its parameters: keys above `after` up to `until`, None being open."""
    parts, params = ["true"], list[str]()
    for bound, operator in ((after, ">"), (until, "<=")):
        if bound is not None:
            where, values = _beyond(key, bound, operator)
            parts.append(where)
            params += values
    return " AND ".join(parts), tuple(params)


def keys_condition(key: Sequence[KeyColumn], table: str, keys: Sequence[Key]) -> tuple[str, tuple[str, ...]]:
    """A condition and its parameters: just these keys. `table` is its name with the schema."""
    marks = ",".join(f"%s::{column.type}[]" for column in key)
    names = ",".join(f"k{at}" for at in range(len(key)))
    equal = [column.compare(f"{table}.{column.name}", "=", f"given.k{at}") for at, column in enumerate(key)]
    # As literals of arrays: a cast from text[] would look for casts, which the owner of a type can define.
    literals = tuple(_array([values[at] for values in keys]) for at in range(len(key)))
    return f"EXISTS (SELECT FROM unnest({marks}) AS given({names}) WHERE {' AND '.join(equal)})", literals


def _beyond(key: Sequence[KeyColumn], bound: Key, operator: str) -> tuple[str, list[str]]:
    schemas = {column.operators for column in key}
    if len(schemas) == 1:
        names = ",".join(column.name for column in key)
        marks = ",".join(f"%s::{column.type}" for column in key)
        return key[0].compare(f"({names})", operator, f"({marks})"), list(bound)
    # A comparison of rows takes one operator for all: spelled out, with what an index serves in front.
    strict, parts, params = operator[0], list[str](), [bound[0]]
    for depth, column in enumerate(key):
        mine = operator if depth == len(key) - 1 else strict
        terms = [each.compare(each.name, "=", f"%s::{each.type}") for each in key[:depth]]
        parts.append("(" + " AND ".join([*terms, column.compare(column.name, mine, f"%s::{column.type}")]) + ")")
        params += [*bound[:depth], bound[depth]]
    first = key[0].compare(key[0].name, f"{strict}=", f"%s::{key[0].type}")
    return f"{first} AND ({' OR '.join(parts)})", params


def _array(values: Sequence[str]) -> str:
    quoted = (value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return "{" + ",".join(f'"{value}"' for value in quoted) + "}"
