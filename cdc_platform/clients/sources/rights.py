"""The rights that a dataset's user lacks on a server, each by name and with the statement that gives it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pymysql

from cdc_platform.canonical.hash_sql import quote_name
from cdc_platform.clients.sources.errors import is_missing_right
from cdc_platform.clients.sources.replica_identity import quoted as qualified
from cdc_platform.clients.sources.replication import replication_status
from cdc_platform.connectors.tables import DEFAULT_SCHEMA
from cdc_platform.model.topology import Dataset, Engine, Shard
from cdc_platform.planning.doctor.examination import Lack

_POSTGRES_TABLES = """
SELECT w.s, w.t, c.oid IS NOT NULL, coalesce(has_schema_privilege(n.oid, 'USAGE'), true),
       coalesce(has_table_privilege(c.oid, 'SELECT'), true), coalesce(pg_has_role(c.relowner, 'USAGE'), true)
  FROM unnest(%s::text[], %s::text[]) AS w(s, t)
  LEFT JOIN pg_namespace n ON n.nspname = w.s
  LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.t AND c.relkind IN ('r', 'p')
"""

_NO_SUCH_TABLE = 1146
_CREATE = "Create it, or take it out of the dataset's tables"


def postgres_rights(cursor: psycopg.Cursor[Any], dataset: Dataset, *, publishes: bool = False) -> tuple[Lack, ...]:
    """What the user of this session lacks. `publishes`: it is to make the publication itself."""
    cursor.execute(
        "SELECT rolreplication OR rolsuper, quote_ident(current_user), quote_ident(current_database()),"
        " has_database_privilege(current_database(), 'CREATE') FROM pg_roles WHERE rolname = current_user"
    )
    replicates, user, database, creates = cursor.fetchone() or (False, "", "", False)
    missing = []
    if not replicates:
        missing.append(Lack(what="REPLICATION", cure=f"ALTER ROLE {user} REPLICATION"))
    if publishes and not creates:
        what = f"CREATE on database {database}"
        missing.append(Lack(what=what, cure=f"GRANT CREATE ON DATABASE {database} TO {user}"))
    places = [(table.schema or DEFAULT_SCHEMA, table.name) for table in dataset.tables]
    cursor.execute(_POSTGRES_TABLES, ([schema for schema, _ in places], [name for _, name in places]))
    for schema, name, there, usage, select, owns in cursor.fetchall():
        place = qualified(schema, name)
        if not usage:
            cure = f"GRANT USAGE ON SCHEMA {qualified(schema)} TO {user}"
            missing.append(Lack(what=f"USAGE on schema {schema}", cure=cure))
        if not there:
            missing.append(_absent(f"{schema}.{name}", name))
        if not select:
            cure = f"GRANT SELECT ON TABLE {place} TO {user}"
            missing.append(Lack(what=f"SELECT on {schema}.{name}", cure=cure, table=name))
        if publishes and not owns:
            missing.append(
                Lack(
                    what=f"ownership of {schema}.{name}, which a publication of its own needs",
                    cure=f"ALTER TABLE {place} OWNER TO {user}; or make the publication yourself, and set"
                    " publication.autocreate.mode: disabled",
                    table=name,
                )
            )
    return tuple(dict.fromkeys(missing))


def binlog_rights(cursor: pymysql.cursors.Cursor, dataset: Dataset, shard: Shard) -> tuple[Lack, ...]:
    """What the user of this session lacks, rights that come with its roles included."""
    return tuple(_binlog_rights(cursor, dataset, shard))


def _binlog_rights(cursor: pymysql.cursors.Cursor, dataset: Dataset, shard: Shard) -> Iterator[Lack]:
    user = account(cursor)
    questions = {"BINLOG MONITOR": "SHOW BINARY LOGS", "SLAVE MONITOR": replication_status(dataset.engine)}
    if dataset.engine is Engine.MYSQL:
        questions = {"REPLICATION CLIENT": "SHOW BINARY LOGS"}
    for right, sql in questions.items():
        if not allowed(cursor, sql):
            yield Lack(what=right, cure=f"GRANT {right} ON *.* TO {user}")
    if not re.search(r"\b(REPLICATION (?:SLAVE|REPLICA)|SUPER|ALL PRIVILEGES)\b.* ON \*\.\*", _grants(cursor)):
        yield Lack(what="REPLICATION SLAVE", cure=f"GRANT REPLICATION SLAVE ON *.* TO {user}")
    for table in dataset.tables:
        place = f"{quote_name(dataset.engine, shard.database)}.{quote_name(dataset.engine, table.name)}"
        try:
            # All columns: they are not shown to a user with the right to some of them.
            readable = allowed(cursor, f"SELECT * FROM {place} LIMIT 0")
        except pymysql.Error as error:
            if error.args[:1] != (_NO_SUCH_TABLE,):
                raise
            yield _absent(f"{shard.database}.{table.name}", table.name)
            continue
        if not readable:
            what = f"SELECT on {shard.database}.{table.name}"
            yield Lack(what=what, cure=f"GRANT SELECT ON {place} TO {user}", table=table.name)


def is_absent(lack: Lack) -> bool:
    """True when not a right is missing but the table."""
    return lack.cure == _CREATE


def _absent(place: str, table: str) -> Lack:
    return Lack(what=f"table {place}, which is not there", cure=_CREATE, table=table)


def account(cursor: pymysql.cursors.Cursor) -> str:
    """The user of this session, as a GRANT names it."""
    cursor.execute("SELECT CURRENT_USER()")
    name, _, host = str((cursor.fetchone() or ("",))[0]).rpartition("@")
    return f"'{name}'@'{host}'"


def allowed(cursor: pymysql.cursors.Cursor, sql: str) -> bool:
    """True unless the user lacks the right to this statement."""
    try:
        cursor.execute(sql)
        cursor.fetchall()
    except pymysql.Error as error:
        if is_missing_right(error):
            return False
        raise
    return True


def _grants(cursor: pymysql.cursors.Cursor) -> str:
    """The user's grants, a line each; on MySQL those of its active roles only where they are asked for."""
    cursor.execute("SHOW GRANTS")
    lines = [str(line) for (line,) in cursor.fetchall()]
    cursor.execute("SELECT CURRENT_ROLE()")
    roles = str((cursor.fetchone() or ("",))[0] or "NONE")
    if roles != "NONE" and "@" in roles:
        cursor.execute(f"SHOW GRANTS FOR CURRENT_USER() USING {roles}")
        lines += [str(line) for (line,) in cursor.fetchall()]
    return "\n".join(lines)
