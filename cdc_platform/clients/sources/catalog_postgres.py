"""Tables in the catalog of a Postgres database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from cdc_platform.canonical.catalog import CatalogColumn, CatalogTable, ForeignKey, Generated, TableKind, UniqueIndex
from cdc_platform.canonical.columns import Column

# A type's name; with its schema where its owner may have given it the name of one that is known here, and casts.
_TYPE = """CASE WHEN {0}.typtype IN ('b', 'e', 'c') OR {0}.typnamespace = 'pg_catalog'::regnamespace
THEN {0}.typname::text ELSE {0}.typnamespace::regnamespace::text || '.' || {0}.typname END"""

# Of the tables of these numbers. Last come what a key is cast to (never a domain: its checks are functions of its
# owner) and the schema of the operators by which its index is ordered: operator classes are made by superusers only.
COLUMNS = f"""
SELECT a.attrelid::bigint, a.attname::text,
       CASE t.typtype WHEN 'd' THEN t.typname::text ELSE {_TYPE.format("t")} END, t.typtype::text, t.typcategory::text,
       a.atttypmod, a.attnotnull, a.attgenerated::text,
       {_TYPE.format("b")}, b.typtype::text, t.typtypmod, {_TYPE.format("e")}, e.typtype::text, {_TYPE.format("be")},
       format_type(a.atttypid, a.atttypmod),
       (SELECT CASE l.collname WHEN 'default' THEN d.datcollate::text ELSE l.collname::text END
          FROM pg_collation l, pg_database d WHERE l.oid = a.attcollation AND d.datname = current_database()),
       (SELECT pg_get_expr(f.adbin, f.adrelid) FROM pg_attrdef f WHERE f.adrelid = a.attrelid AND f.adnum = a.attnum),
       col_description(a.attrelid, a.attnum),
       format('%%I.%%I', n.nspname, coalesce(b.typname, t.typname)),
       coalesce((SELECT format('%%I', onn.nspname) FROM pg_opclass oc
                   JOIN pg_am am ON am.oid = oc.opcmethod AND am.amname = 'btree'
                   JOIN pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amoplefttype = oc.opcintype
                        AND ao.amoprighttype = oc.opcintype AND ao.amopstrategy = 3
                   JOIN pg_operator o ON o.oid = ao.amopopr
                   JOIN pg_namespace onn ON onn.oid = o.oprnamespace
                  WHERE oc.opcdefault AND oc.opcintype = coalesce(b.oid, t.oid)), 'pg_catalog')
  FROM pg_attribute a
  JOIN pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_type b ON b.oid = t.typbasetype
  JOIN pg_namespace n ON n.oid = coalesce(b.typnamespace, t.typnamespace)
  LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
  LEFT JOIN pg_type be ON be.oid = b.typelem AND b.typcategory = 'A'
 WHERE a.attrelid = ANY (%s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attrelid, a.attnum
"""

# The unique indexes of a table `c`, as JSON.
UNIQUE_INDEXES = """
(SELECT coalesce(json_agg(json_build_object(
        'name', x.relname, 'primary', i.indisprimary, 'identity', i.indisreplident,
        'immediate', i.indimmediate, 'total', i.indpred IS NULL AND i.indexprs IS NULL,
        'columns', k.names, 'not_null', k.filled) ORDER BY x.relname), '[]'::json)
   FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
  CROSS JOIN LATERAL (
        SELECT array_agg(a.attname::text ORDER BY u.ord) AS names, bool_and(a.attnotnull) AS filled
          FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS u(num, ord)
          JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.num
         WHERE u.ord <= i.indnkeyatts) k
  WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indislive AND k.names IS NOT NULL)
"""

_TABLES = f"""
SELECT n.nspname::text, c.relname::text, c.oid::bigint, c.relkind::text, c.relpersistence::text, c.relreplident::text,
       c.relrowsecurity AND (c.relforcerowsecurity OR NOT pg_has_role(c.relowner, 'USAGE'))
         AND NOT (SELECT rolbypassrls OR rolsuper FROM pg_roles WHERE rolname = current_user),
       greatest(c.reltuples, 0)::bigint, obj_description(c.oid, 'pg_class'),
       (SELECT coalesce(json_agg(t.tgname ORDER BY t.tgname), '[]'::json) FROM pg_trigger t
         WHERE t.tgrelid = c.oid AND NOT t.tgisinternal),
       (SELECT coalesce(json_agg(json_build_array(k.contype, k.conname, k.confrelid::regclass::text,
                                                  pg_get_constraintdef(k.oid)) ORDER BY k.conname), '[]'::json)
          FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype IN ('c', 'f')),
       {UNIQUE_INDEXES}
  FROM unnest(%s::text[], %s::text[]) AS w(s, t)
  JOIN pg_namespace n ON n.nspname = w.s
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.t AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
"""

_KINDS = {
    "r": TableKind.TABLE,
    "p": TableKind.PARTITIONED,
    "v": TableKind.VIEW,
    "m": TableKind.MATERIALIZED,
    "f": TableKind.FOREIGN,
    "S": TableKind.SEQUENCE,
}


def postgres_tables(
    cursor: psycopg.Cursor[Any], names: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], CatalogTable]:
    """Those of these tables (schema, name) that are there, by schema and name."""
    cursor.execute(_TABLES, ([schema for schema, _ in names], [name for _, name in names]))
    found = cursor.fetchall()
    cursor.execute(COLUMNS, ([row[2] for row in found],))
    columns: dict[int, list[CatalogColumn]] = defaultdict(list)
    for number, *row in cursor.fetchall():
        columns[number].append(column_of(row))
    return {(row[0], row[1]): _table(row, tuple(columns[row[2]])) for row in found}


def column_of(row: Sequence[Any]) -> CatalogColumn:
    """The column of a row of `COLUMNS` without the table's number. A domain's is that of the type below it."""
    name, kind, typtype, category, typmod, notnull, generated = row[:7]
    base, base_type, base_mod, element, element_type, base_element, declared, collation, default, comment = row[7:17]
    if typtype == "d":
        kind, typtype, typmod, element, element_type = base, base_type, base_mod, base_element, "b"
        category = "A" if base_element else ""
    made = {"s": Generated.STORED, "v": Generated.VIRTUAL}.get(generated, Generated.NO)
    return CatalogColumn(
        column=_column(name, kind, typtype, category, typmod, notnull, element, element_type),
        declared=declared,
        collation=collation or "",
        default=default,
        generated=made,
        comment=comment or "",
    )


def unique_indexes(found: Sequence[Mapping[str, Any]]) -> tuple[UniqueIndex, ...]:
    """The indexes that `UNIQUE_INDEXES` gave."""
    return tuple(UniqueIndex(**{**index, "columns": tuple(index["columns"])}) for index in found)


def _table(row: Sequence[Any], columns: tuple[CatalogColumn, ...]) -> CatalogTable:
    schema, name, _, kind, persistence, identity, security, rows, comment, triggers, constraints, indexes = row
    return CatalogTable(
        place=schema,
        name=name,
        kind=_KINDS[kind],
        columns=columns,
        indexes=unique_indexes(indexes),
        foreign_keys=tuple(
            ForeignKey(name=key, references=other) for what, key, other, _ in constraints if what == "f"
        ),
        checks=tuple(text for what, _, _, text in constraints if what == "c"),
        triggers=tuple(triggers),
        comment=comment or "",
        rows=rows,
        logged=persistence == "p",
        identity=identity,
        row_security=security,
    )


def _column(
    name: str,
    kind: str,
    typtype: str,
    category: str,
    typmod: int,
    notnull: bool,
    element: str | None,
    element_type: str | None,
) -> Column:
    what = {"e": "enum", "c": "composite"}.get(typtype, "base")
    inner = None
    of = kind
    if category == "A" and kind.startswith("_") and element:
        what, of = "array", element
        inner = element + {"e": ":enum", "c": ":composite"}.get(element_type or "", "")
    elif category == "A":
        what = "other"
    length, scale = _modifiers(of, typmod)
    return Column(name=name, type=kind, kind=what, element=inner, nullable=not notnull, length=length, scale=scale)


def _modifiers(kind: str, typmod: int) -> tuple[int | None, int | None]:
    """A type's length (or fraction digits) and scale (numerictypmodin in numeric.c)."""
    if typmod < 0:
        return None, None
    if kind == "numeric":
        return ((typmod - 4) >> 16) & 0xFFFF, (((typmod - 4) & 0x7FF) ^ 1024) - 1024
    return (typmod - 4 if kind in ("varchar", "bpchar") else typmod), None
