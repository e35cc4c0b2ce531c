"""The least rights of the connector's user as SQL, made from the examples of each engine. Pure but for reading them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cdc_platform.documents.project_files import repository_file
from cdc_platform.errors import BadInput
from cdc_platform.model.topology import Engine

_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,62}")


def grants(engine: Engine, *, user: str = "cdc", databases: Sequence[str] = (), tables: Sequence[str] = ()) -> str:
    """What an administrator runs; the password is left to be filled in.

    Args:
        databases: of shards; the example's own without any. Postgres: one, as each is another connection.
        tables: for Postgres, which publishes them one by one.

    Raises:
        BadInput: a name that would not be one in SQL, or several databases for Postgres.
    """
    for what, pattern, names in (
        ("--user", _USER, [user]),
        ("--database", _NAME, databases),
        ("--table", _NAME, tables),
    ):
        for name in names:
            if not pattern.fullmatch(name):
                cure = "Use letters, digits and underscores; grant other names by hand."
                raise BadInput(f"{name!r} is not a plain name.", field=what, cure=cure)
    text = repository_file(f"examples/sql/grants-{engine}.sql").read_text()
    if engine is Engine.POSTGRES:
        if len(databases) > 1:
            cure = "Run the command once for each: its output runs in the shard's own database."
            raise BadInput("Postgres takes one database.", field="--database", cure=cure)
        return _postgres(text, user, databases[0] if databases else None, tables)
    text = text.replace("'cdc'@", f"'{user}'@")
    if databases:
        (line,) = re.findall(r"^GRANT SELECT ON pins_00000\.\*.*$", text, re.MULTILINE)
        text = text.replace(line, "\n".join(line.replace("pins_00000", f"`{name}`") for name in databases))
        text = text.replace(" Replace pins_00000 by each shard's database.", "")
    return text


def _postgres(text: str, user: str, database: str | None, tables: Sequence[str]) -> str:
    lines = []
    for line in text.splitlines():
        if tables and re.match(r"(GRANT SELECT ON TABLE|ALTER TABLE) order_items\b", line):
            continue
        own = re.match(r"(GRANT SELECT ON TABLE|ALTER TABLE) orders\b", line)
        lines += [line.replace(" orders", f' "{table}"') for table in tables] if tables and own else [line]
    text = "\n".join(lines) + "\n"
    if tables:
        text = text.replace("FOR TABLE orders, order_items", "FOR TABLE " + ", ".join(f'"{t}"' for t in tables))
    if database is not None:
        text = text.replace("DATABASE orders_00000", f'DATABASE "{database}"').replace(
            "cdc_orders_00000", f"cdc_{database}"
        )
    return re.sub(r"\b(ROLE|TO) cdc\b", rf"\1 {user}", text)
