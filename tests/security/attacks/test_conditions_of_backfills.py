"""Who launches a backfill writes SQL into its condition, which the connector's user would run."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_platform.errors import BadInput
from cdc_platform.model.topology import Engine
from cdc_platform.snapshots.request import Request, RunKind
from cdc_platform.snapshots.row_conditions import MAX_DEPTH, sql_condition

ENGINES = pytest.mark.parametrize("engine", list(Engine), ids=str)
HOSTILE = [
    "1=1) UNION SELECT * FROM secrets.t -- ",
    "(SELECT pg_drop_replication_slot('cdc_orders_00001')) IS NULL",
    "v = (SELECT 1)",
    "SLEEP(10) = 0",
    "v = SLEEP(10)",
    "v = pg_sleep(10)",
    "v = 1; DROP TABLE t",
    "v = 1 -- x",
    "v = 1 /* x */",
    "v = 1 # x",
    "v = 'a' 'b' OR 1=1",
    "v = 'a\\' OR 1=1 -- '",
    "v = @@hostname",
    "v = CURRENT_USER()",
    "v = $$x$$",
    "v = E'x'",
    "v = x'00'",
    "v::text = 'x'",
    "v = w",
    "s.v = 1",
    'v = "w"',
    "v LIKE 'a%'",
    "v = 1e9",
    "v = 0x10",
    "v = 'a",
    "v = 'a\x00'",
    "v = 'a\nb'",
    "",
    "v",
    "v =",
    "v IN ()",
    "v BETWEEN 1",
    "v = 1 OR",
    "(v = 1",
    "v = 1)",
    "v = NULL",
]


@ENGINES
@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_more_than_a_comparison_is_refused(text: str, engine: Engine) -> None:
    with pytest.raises(BadInput) as caught:
        sql_condition(text, engine)
    assert caught.value.field == "condition"


def test_deep_and_long_conditions_are_refused_and_end() -> None:
    for text in ("(" * 9_000 + "v = 1", "NOT " * (MAX_DEPTH + 2) + "v = 1", "v = 1 OR " * 2_000 + "v = 1"):
        with pytest.raises(BadInput):
            sql_condition(text, Engine.POSTGRES)


GOOD = {
    "v > 3 OR v < 1": "`v` > 3 OR `v` < 1",
    "status='new' and (id between -10 and 20.5 or note is not null)": (
        "`status` = 'new' AND (`id` BETWEEN -10 AND 20.5 OR `note` IS NOT NULL)"
    ),
    "NOT kind IN ('a', 'O''Neil') AND v != 1": "NOT `kind` IN ('a', 'O''Neil') AND `v` <> 1",
    "`Select` = TRUE AND v NOT IN (1) AND w NOT BETWEEN 1 AND 2": (
        "`Select` = TRUE AND `v` NOT IN (1) AND `w` NOT BETWEEN 1 AND 2"
    ),
    "v = 'a\\b'": "`v` = 'a\\\\b'",
    "v = ''": "`v` = ''",
}


@pytest.mark.parametrize("text", GOOD)
def test_conditions_are_rendered_by_us(text: str) -> None:
    assert sql_condition(text, Engine.MARIADB) == GOOD[text]


def test_postgres_takes_names_as_it_would_without_quotes() -> None:
    assert sql_condition("Id = 5 AND \"Id\" = 'a\\'", Engine.POSTGRES) == '"id" = 5 AND "Id" = E\'a\\\\\''


@ENGINES
@settings(max_examples=500, deadline=None)
@given(
    text=st.one_of(
        st.text(max_size=30),
        st.lists(
            st.sampled_from(
                [
                    "v",
                    "=",
                    "1",
                    "'a'",
                    "''",
                    "'",
                    "\\",
                    "AND",
                    "OR",
                    "NOT",
                    "IN",
                    "(",
                    ")",
                    ",",
                    "--",
                    ";",
                    "/*",
                    '"',
                    "`",
                    "IS",
                    "NULL",
                    "BETWEEN",
                    "SELECT",
                    "f(",
                    "$",
                    "\x00",
                    "#",
                    "::",
                ]
            ),
            max_size=12,
        ).map(" ".join),
    )
)
def test_nothing_but_columns_comparisons_and_literals_comes_through(engine: Engine, text: str) -> None:
    try:
        rendered = sql_condition(text, engine)
    except BadInput:
        return
    quote = '"' if engine is Engine.POSTGRES else "`"
    rest = re.sub(r"E?'(?:[^'\\]|''|\\\\)*'", " ", rendered)
    rest = re.sub(f"{quote}[A-Za-z_][A-Za-z0-9_$]*{quote}", " ", rest)
    words = re.sub(r"-?\b[0-9]+(\.[0-9]+)?\b|<>|<=|>=|[<>=(),]", " ", rest).split()
    assert set(words) <= {"AND", "OR", "NOT", "IN", "BETWEEN", "IS", "NULL", "TRUE", "FALSE"}
    assert rest.count("(") == rest.count(")")


def test_a_stored_request_is_parsed_where_it_is_used_unless_the_operator_permits_sql() -> None:
    forged = Request(kind=RunKind.BACKFILL, dataset="pins", condition="1=1) UNION SELECT * FROM secrets.t -- ")
    with pytest.raises(BadInput):
        forged.filter(Engine.POSTGRES, "00000")
    assert forged.filter(Engine.POSTGRES, "00000", free_text=True) == forged.condition
