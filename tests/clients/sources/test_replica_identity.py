"""Which Postgres tables may be published: each replica identity, keys, partitions, names in other cases."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cdc_platform.canonical.catalog import UniqueIndex
from cdc_platform.clients.sources.replica_identity import TableFacts, facts, refusal

PRIMARY = UniqueIndex(name="t_pkey", columns=("id",), primary=True)
PAIR = UniqueIndex(name="t_a_b_key", columns=("a", "b"))
ALTER = 'ALTER TABLE "public"."t" REPLICA IDENTITY'


def table(identity: str, *indexes: UniqueIndex, kind: str = "r", name: str = "t") -> TableFacts:
    return TableFacts(schema="public", name=name, kind=kind, identity=identity, indexes=indexes)


GOOD = {
    "primary key": (table("d", PRIMARY), ()),
    "primary key, named by the topology too": (table("d", PRIMARY), ("id",)),
    "primary key in another order": (table("d", replace(PRIMARY, columns=("a", "b"))), ("b", "a")),
    "whole row": (table("f"), ()),
    "whole row, any key": (table("f", PRIMARY), ("a", "b")),
    "whole row beside a deferrable key": (table("f", replace(PRIMARY, immediate=False)), ()),
    "index that is the topology's key": (table("i", PRIMARY, replace(PAIR, identity=True)), ("a", "b")),
    "index, no key anywhere": (table("i", replace(PAIR, identity=True)), ()),
    "index of the primary key": (table("i", replace(PRIMARY, identity=True)), ()),
}


@pytest.mark.parametrize("case", GOOD)
def test_a_table_whose_updates_and_deletes_go_on_may_be_published(case: str) -> None:
    found, key = GOOD[case]
    assert refusal(found, key) is None


FULL = f"{ALTER} FULL"
BY_INDEX = f'{FULL}, or {ALTER} USING INDEX "t_a_b_key"'
BAD = {
    "no key at all": (table("d"), (), "no primary key", FULL),
    "unique key that the topology names": (table("d", PAIR), ("a", "b"), "no primary key", BY_INDEX),
    "partial unique index": (table("d", replace(PAIR, total=False)), ("a", "b"), "no primary key", FULL),
    "unique key of nullable columns": (table("d", replace(PAIR, not_null=False)), ("a", "b"), "no primary key", FULL),
    "deferrable primary key": (table("d", replace(PRIMARY, immediate=False)), (), "primary key is deferrable", FULL),
    "nothing": (table("n", PRIMARY), (), "REPLICA IDENTITY is NOTHING", f'{FULL}, or {ALTER} USING INDEX "t_pkey"'),
    "index that was dropped": (table("i", PAIR), ("a", "b"), "index of its REPLICA IDENTITY is gone", BY_INDEX),
    "key beside the primary key": (table("d", PRIMARY, PAIR), ("a", "b"), r"\(a, b\) is not .* \(id\)", BY_INDEX),
    "key that is a part": (table("d", replace(PRIMARY, columns=("a", "b"))), ("a",), "is not its replica", FULL),
    "index of a third column": (
        table("i", PRIMARY, PAIR, UniqueIndex(name="c", columns=("c",), identity=True)),
        ("a", "b"),
        r"\(a, b\) is not its replica identity \(c\)",
        BY_INDEX,
    ),
    "index beside a primary key that is the key": (
        table("i", PRIMARY, replace(PAIR, identity=True)),
        (),
        r"\(id\) is not its replica identity \(a, b\)",
        f'{FULL}, or {ALTER} USING INDEX "t_pkey"',
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_any_other_is_refused_with_its_cure(case: str) -> None:
    found, key, why, cure = BAD[case]
    no = refusal(found, key)
    assert no is not None
    assert (no.table, no.cure) == ("public.t", cure)
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(no.why)


def test_an_unlogged_table_is_refused() -> None:
    no = refusal(replace(table("f", PRIMARY), persistence="u"))
    assert no is not None and no.cure == 'ALTER TABLE "public"."t" SET LOGGED'


def test_a_partitioned_table_is_published_through_its_root_only() -> None:
    part = table("d", PRIMARY, name="t_1")
    root = replace(table("d", PRIMARY, kind="p"), descendants=(part,))
    assert refusal(root, via_root=True) is None
    no = refusal(root)
    assert no is not None and "publish.via.partition.root" in no.cure


def test_each_partition_and_the_next_one_need_an_identity() -> None:
    root = table("d", PRIMARY, kind="p")
    silent = table("n", PRIMARY, name="t_1")
    no = refusal(replace(root, descendants=(table("d", PRIMARY, name="t_0"), silent)), via_root=True)
    assert no is not None and (no.table, "NOTHING" in no.why) == ("public.t_1", True)
    # A FULL root says nothing of partitions that are made later.
    no = refusal(replace(root, identity="f", indexes=(), descendants=(table("f", name="t_0"),)), via_root=True)
    assert no is not None and "a new partition" in no.why


def test_tables_that_would_be_published_with_their_parent_are_refused_unless_named() -> None:
    parent = replace(table("d", PRIMARY), descendants=(table("d", name="child"),))
    no = refusal(parent, beside={("public", "t")})
    assert no is not None and "public.child inherits" in no.why
    assert refusal(parent, beside={("public", "t"), ("public", "child")}) is None
    assert refusal(parent) is None


def test_rows_of_the_catalog_become_facts_with_descendants() -> None:
    index = {
        "name": "t_pkey", "primary": True, "identity": False, "immediate": True, "total": True,
        "columns": ["id"], "not_null": True,
    }  # fmt: skip
    rows = [
        (1, 2, "public", "child", "r", "p", "d", []),
        (1, 1, "public", "t", "r", "p", "f", [index]),
    ]
    child = table("d", name="child")
    assert facts(rows) == (replace(table("f", PRIMARY), descendants=(child,)),)
