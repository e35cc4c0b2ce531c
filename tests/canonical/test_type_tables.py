"""The type tables of docs/verification.md say what the code does, and the torture tables hold every type in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cdc_platform.canonical import mariadb, postgres
from cdc_platform.canonical.columns import Column, Form
from cdc_platform.canonical.hash_sql import form
from cdc_platform.model.topology import Engine
from tests.canonical import torture

DOC = (Path(__file__).parents[2] / "docs" / "verification.md").read_text()
HEADINGS = {Engine.MARIADB: "### MariaDB", Engine.POSTGRES: "### Postgres"}

# Names of types in DDL to the server's own.
SPELLED = {
    "smallint": "int2",
    "int": "int4",
    "bigint": "int8",
    "real": "float4",
    "double precision": "float8",
    "boolean": "bool",
    "bit varying": "varbit",
    '"char"': "char",
}
# Of these several lines of the table speak, or a note.
OWN_LINES = {"enum", "domains", "composite types", "arrays", "interval[]"}


def table(engine: Engine) -> dict[str, str]:
    """Type to fidelity, as the document says."""
    text = DOC.partition(HEADINGS[engine])[2].split("\n### ")[0]
    found: dict[str, str] = {}
    for names, fidelity in re.findall(r"^\| ([^|]+) \| (exact|normalised|out|as the element) \|", text, re.MULTILINE):
        found.update(dict.fromkeys((name.strip() for name in names.split(",")), fidelity))
    return found


def _form(engine: Engine, name: str) -> Form | None:
    charset = "utf8mb4" if engine is Engine.MARIADB else None
    return form(engine, Column(name="c", type=name, charset=charset))


@pytest.mark.parametrize("engine", HEADINGS)
def test_each_type_is_as_exact_as_the_document_says(engine: Engine) -> None:
    found = table(engine)
    assert len(found) > 25
    for name, fidelity in found.items():
        if engine is Engine.POSTGRES and name in OWN_LINES:
            continue
        made = _form(engine, name)
        assert (str(made.fidelity) if made else "out") == fidelity, name


@pytest.mark.parametrize("engine", HEADINGS)
def test_each_type_of_the_document_is_in_the_torture_table(engine: Engine) -> None:
    columns = torture.MARIADB if engine is Engine.MARIADB else torture.POSTGRES
    tried = set()
    for kind, _ in columns.values():
        name = re.sub(
            r"\(.*?\)", "", kind.removesuffix(" default 5").lower() if engine is Engine.POSTGRES else kind.lower()
        )
        name = name.split(" ")[0] if engine is Engine.MARIADB else name.strip()
        tried.add(SPELLED.get(name, name) if engine is Engine.POSTGRES else name)
    said = {name for name, fidelity in table(engine).items() if fidelity != "out"}
    if engine is Engine.POSTGRES:
        said -= OWN_LINES
        # Text as bytes, as its like that are tried; one multirange and one of the rest stand for all.
        said -= postgres.UNKNOWN_TYPES - tried
        tried |= {"char"}
    else:
        said -= mariadb.GEOMETRIES - tried
    assert said <= tried | {"bpchar", "varbit"}, said - tried


@pytest.mark.parametrize("engine", HEADINGS)
def test_no_type_of_the_code_is_missing_from_the_document(engine: Engine) -> None:
    known = (
        mariadb._INTEGERS | mariadb._TEXTS | mariadb._BINARIES
        if engine is Engine.MARIADB
        else postgres._NUMBERS | postgres._TEXTS | set(postgres._GEOMETRIES)
    )
    assert known - {"integer"} <= set(table(engine))
