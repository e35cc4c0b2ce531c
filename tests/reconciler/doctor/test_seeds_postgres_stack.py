"""Twenty and more hazards on a real Postgres, asked about once, before any connector exists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from cdc_platform.connectors.identity import publication_name
from cdc_platform.model.topology import Engine, Shard, Table
from cdc_platform.planning.doctor.kinds import Severity
from tests.reconciler.doctor.harness import Harness, Seed, seeds

pytestmark = pytest.mark.stack

Patients = Callable[[Engine], Harness]

# Table to what makes it, its key in the topology, and what it is found by.
SEEDS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "no_key": ("CREATE TABLE no_key (id int)", (), ("no-key", "left-out-table")),
    "deferred": ("CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE)", (), ("left-out-table",)),
    "other_id": (
        "CREATE TABLE other_id (id int PRIMARY KEY, a int NOT NULL UNIQUE)",
        ("a",),
        ("left-out-table",),
    ),
    "nothing": (
        "CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING",
        (),
        ("left-out-table",),
    ),
    "parted": (
        "CREATE TABLE parted (id int, d date, PRIMARY KEY (id, d)) PARTITION BY RANGE (d)",
        (),
        ("left-out-table",),
    ),
    "parent": (
        "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE stray () INHERITS (parent)",
        (),
        ("left-out-table",),
    ),
    "unlogged": ("CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY)", (), ("left-out-table",)),
    "seen": ("CREATE VIEW seen AS SELECT 1 AS id", (), ("not-a-table",)),
    "stored": ("CREATE MATERIALIZED VIEW stored AS SELECT 1 AS id", (), ("not-a-table",)),
    "secret": ("CREATE TABLE secret (id int PRIMARY KEY); ALTER TABLE secret ENABLE ROW LEVEL SECURITY", (), ()),
    "made": (
        "CREATE TABLE made (id int PRIMARY KEY, g int GENERATED ALWAYS AS (id + 1) STORED)",
        (),
        ("generated-column",),
    ),
    "cash": ("CREATE TABLE cash (id money PRIMARY KEY)", (), ("key-not-read-in-chunks", "unprovable-column")),
    "lists": (
        "CREATE TABLE lists (id int[] PRIMARY KEY)",
        (),
        ("key-not-read-in-chunks", "unprovable-column", "large-values"),
    ),
    "numbers": ("CREATE SEQUENCE numbers", (), ("not-a-table",)),
    "large": ("CREATE TABLE large (id int PRIMARY KEY, v text)", (), ("large-values",)),
    "shards": ("CREATE TABLE shards (shard int PRIMARY KEY)", (), ("reserved-name",)),
    "repacked": ("CREATE TABLE repacked (id int PRIMARY KEY)", (), ("online-change",)),
    "gone": ("SELECT", (), ("missing-table",)),
}


def owned(harness: Harness, dataset: str, name: str, *statements: str) -> str:
    """A database whose tables belong to the dataset's user, who may make its publication."""
    database, user = harness.database(name, *statements), f"{harness.own}_{dataset}"
    harness.sql(f"GRANT CREATE ON DATABASE {database} TO {user}")
    for table, kind in harness.sql(
        "SELECT relname, relkind::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relkind IN ('r', 'p', 'v', 'm')",
        database,
    ):
        what = {"v": "VIEW", "m": "MATERIALIZED VIEW"}.get(kind, "TABLE")
        harness.sql(f"ALTER {what} {table} OWNER TO {user}", database)
    return database


def test_each_seeded_hazard_is_named(patients: Patients) -> None:
    harness = patients(Engine.POSTGRES)
    user = harness.user("seeds", "ALTER ROLE {user} REPLICATION", "ALTER ROLE {user} SET statement_timeout = '9s'")
    database = owned(
        harness,
        "seeds",
        "seeds",
        *(made for made, _, _ in SEEDS.values()),
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "CREATE TRIGGER repack_trigger AFTER INSERT ON repacked FOR EACH ROW EXECUTE FUNCTION f()",
    )
    tables = [Table(name=name, key=key) for name, (_, key, _) in SEEDS.items()]
    harness.dataset("seeds", tables, user, {"00000": database})
    expected: set[Seed] = {("seeds", name, kind) for name, (_, _, kinds) in SEEDS.items() for kind in kinds}
    expected.add(("seeds", "", "session-limits"))

    # Shards beside each other: a type, a collation, and one database under two addresses.
    user = harness.user("beside", "ALTER ROLE {user} REPLICATION")
    make = (
        'CREATE TABLE t (id int PRIMARY KEY, v varchar(20) COLLATE "C", n bigint); ALTER TABLE t REPLICA IDENTITY FULL'
    )
    others = (make, make.replace("bigint", "int"), make.replace(' COLLATE "C"', ""), make)
    alike = {f"0000{n}": owned(harness, "beside", f"alike{n}", own) for n, own in enumerate(others)}
    by_name = {"00004": replace(harness.leader, host="localhost")}
    harness.dataset("beside", [Table(name="t")], user, {**alike, "00004": alike["00003"]}, leaders=by_name)
    expected |= {("beside", "t", "shards-differ"), ("beside", "", "shared-database")}

    # A user without rights; what hides rows from one who is not the owner; publications that are not whole.
    small = harness.database(
        "small",
        *(f"CREATE TABLE {name} (id int PRIMARY KEY, v int)" for name in ("t", "u", "w", "x")),
        "CREATE SCHEMA s; CREATE TABLE s.y (id int PRIMARY KEY)",
        "ALTER TABLE u ENABLE ROW LEVEL SECURITY",
    )
    weak = harness.user("weak")
    for grant in ("GRANT SELECT ON u TO {}", "GRANT SELECT (id) ON t TO {}"):
        harness.sql(grant.format(f"{harness.own}_weak"), small)
    known = [Table(name="t"), Table(name="u"), Table(name="y", schema="s")]
    harness.dataset("weak", known, weak, {"00000": small})
    expected |= {("weak", table, "missing-right") for table in ("", "t", "u", "y")} | {("weak", "u", "row-security")}

    by_hand = {"publication.autocreate.mode": "disabled"}
    grants = (
        "ALTER ROLE {user} REPLICATION",
        "GRANT pg_read_all_data TO {user}",
        "ALTER ROLE {user} CONNECTION LIMIT 3",
    )
    hand = harness.user("hand", *grants)
    known = [Table(name=name) for name in ("t", "w", "x")]
    shards = {f"0000{n}": small for n in range(4)}
    harness.dataset("hand", known, hand, shards, connector=by_hand, accepted_hazards=("shared-database",))
    names = [
        publication_name(harness.settings, Shard(dataset="hand", id=shard, leader=harness.leader, database=small))
        for shard in shards
    ]
    harness.sql(f"CREATE PUBLICATION {names[0]} FOR TABLE t (id), w WHERE (id > 5)", small)
    harness.sql(f"CREATE PUBLICATION {names[1]} FOR TABLE t, w, x WITH (publish = 'insert, update')", small)
    harness.sql(f"CREATE PUBLICATION {names[3]} FOR TABLE t, w, x", small)
    # A slot's name is the publication's.
    for slot, plugin, there in ((names[0], "test_decoding", small), (names[3], "pgoutput", database)):
        harness.sql(f"SELECT pg_create_logical_replication_slot('{slot}', '{plugin}')", there)
    expected |= {("hand", table, "narrow-publication") for table in ("t", "w", "x", "")}
    expected |= {("hand", "", "slot-taken"), ("hand", "", "no-room")}

    # More shards than the server has slots and senders for.
    many = harness.user("many", "ALTER ROLE {user} REPLICATION")
    place = owned(harness, "many", "many", "CREATE TABLE t (id int PRIMARY KEY)")
    places = {f"{n:05d}": place for n in range(70)}
    harness.dataset("many", [Table(name="t")], many, places, accepted_hazards=("shared-database",))
    expected |= {(dataset, "", "no-room") for dataset in ("seeds", "beside", "weak", "many")}

    report = harness.ask()
    assert report.unanswered == {}
    assert seeds(report.findings) ^ expected == set()
    assert len({(table, kind) for _, table, kind in expected}) >= 20
    assert all(one.cure for one in report.findings)

    rights = {
        one.text.partition(" lacks ")[2].partition(",")[0] for one in report.findings if one.kind == "missing-right"
    }
    assert rights == {
        "REPLICATION",
        f"CREATE on database {small}",
        "SELECT on public.t",
        "USAGE on schema s",
        "SELECT on s.y",
        *(f"ownership of {table}" for table in ("public.t", "public.u", "s.y")),
    }
    (shared,) = [one for one in report.findings if one.kind == "shared-database" and one.dataset == "beside"]
    assert shared.shards == ("00003", "00004") and shared.severity is Severity.ERROR
    room = {one.text.partition(" ")[0] for one in report.findings if one.kind == "no-room" and one.dataset == "many"}
    assert room == {"max_replication_slots", "max_wal_senders"}
    unfit = {one.table: one.text for one in report.findings if one.kind == "left-out-table"}
    assert "deferrable" in unfit["deferred"] and "NOTHING" in unfit["nothing"] and "not logged" in unfit["unlogged"]
    assert "(a) is not its replica identity" in unfit["other_id"] and "partitioned" in unfit["parted"]
    assert "stray inherits" in unfit["parent"] and "no primary key" in unfit["no_key"]
    taken = {one.shards: one.text for one in report.findings if one.kind == "slot-taken"}
    assert "test_decoding" in taken["00000",] and database in taken["00003",]
    absent = [one.shards for one in report.findings if "there is no publication" in one.text]
    assert absent == [("00002",)]
