"""The owner of a Postgres database has functions, operators, casts and checks of theirs run by nobody else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from cdc_platform.clients.sources.leader_servers import LeaderServers
from cdc_platform.clients.sources.logs import RealSourceLogs
from cdc_platform.clients.sources.open_source import open_source
from cdc_platform.clients.sources.source import Source
from cdc_platform.connectors.identity import identity
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Dataset, Engine, Shard, Table
from cdc_platform.settings import Settings
from tests.own_secrets import write_login

pytestmark = pytest.mark.stack

# Each would be found before, or instead of, the one of pg_catalog, and fails when it is not the owner who runs it.
TRAPS = """
CREATE FUNCTION trap() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
  IF current_user <> 'OWNER' THEN RAISE EXCEPTION 'a function of the owner ran as %', current_user; END IF; END $$;
CREATE FUNCTION format(text, name, name) RETURNS text LANGUAGE sql AS $$ SELECT public.trap(); SELECT '0;--'::text $$;
CREATE FUNCTION to_json(timestamptz) RETURNS json LANGUAGE sql AS $$ SELECT public.trap(); SELECT '1'::json $$;
CREATE FUNCTION lower(name) RETURNS text LANGUAGE sql AS $$ SELECT public.trap(); SELECT 'x'::text $$;
CREATE FUNCTION substr(bytea, int, int) RETURNS bytea LANGUAGE sql AS $$ SELECT public.trap(); SELECT ''::bytea $$;
CREATE FUNCTION name_is(name, text) RETURNS bool LANGUAGE sql AS $$ SELECT public.trap(); SELECT true $$;
CREATE OPERATOR = (LEFTARG = name, RIGHTARG = text, FUNCTION = name_is);
CREATE TYPE colour AS ENUM ('red', 'green');
CREATE FUNCTION colour_text(colour) RETURNS text LANGUAGE sql AS $$ SELECT public.trap(); SELECT 'x'::text $$;
CREATE FUNCTION text_colour(text) RETURNS colour LANGUAGE sql AS
  $$ SELECT public.trap(); SELECT 'red'::public.colour $$;
CREATE CAST (colour AS text) WITH FUNCTION colour_text(colour) AS ASSIGNMENT;
CREATE CAST (text AS colour) WITH FUNCTION text_colour(text) AS ASSIGNMENT;
CREATE FUNCTION same(colour, colour) RETURNS bool LANGUAGE sql AS $$ SELECT public.trap(); SELECT true $$;
CREATE OPERATOR = (LEFTARG = colour, RIGHTARG = colour, FUNCTION = same);
CREATE OPERATOR > (LEFTARG = colour, RIGHTARG = colour, FUNCTION = same);
CREATE TYPE pair AS (a int, b text);
CREATE FUNCTION pair_text(pair) RETURNS text LANGUAGE sql AS $$ SELECT public.trap(); SELECT 'x'::text $$;
CREATE CAST (pair AS text) WITH FUNCTION pair_text(pair) AS ASSIGNMENT;
CREATE FUNCTION is_fine(int) RETURNS bool LANGUAGE sql AS $$ SELECT public.trap(); SELECT true $$;
CREATE DOMAIN "100%s" AS int CHECK (is_fine(VALUE));
CREATE TYPE int4range AS RANGE (subtype = text);
CREATE FUNCTION range_text(public.int4range) RETURNS text LANGUAGE sql AS $$ SELECT public.trap(); SELECT 'x'::text $$;
CREATE CAST (public.int4range AS text) WITH FUNCTION range_text(public.int4range) AS ASSIGNMENT;
"""
VALUES = "c colour, p pair, h public.hstore, ci public.citext, ts timestamptz, cs colour[]"
ROW = "'green', '(1,)', 'a=>1,b=>NULL', 'Ab', '2024-02-29 12:00+00', '{red,green}'"


@dataclass(frozen=True, slots=True)
class Owned:
    """A database whose owner is hostile: statements as that owner, and sources as the dataset's user."""

    as_owner: Callable[[str], Any]
    dataset: Dataset
    shard: Shard
    secrets: str

    def source(self, table: str) -> Source:
        return open_source(self.dataset, self.shard, Table(name=table), timeout=10.0, secrets_dirs=[self.secrets])


@pytest.fixture
def owned(stack: Stack, unique_name: Callable[[str], str], tmp_path: Path) -> Iterator[Owned]:
    login, address, name = stack.admin(Engine.POSTGRES), stack.postgres_primary, unique_name("own")
    owner, victim = f"{name}_owner", f"{name}_cdc"

    def connect(database: str, user: str, password: str) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=address.host, port=address.port, user=user, password=password, dbname=database, autocommit=True
        )

    with connect("postgres", login.user, login.password) as admin:
        for role in (owner, victim):
            admin.execute(sql.SQL("CREATE ROLE {} LOGIN REPLICATION PASSWORD 'p'").format(sql.Identifier(role)))
        admin.execute(sql.SQL("GRANT pg_monitor TO {}").format(sql.Identifier(victim)))
        admin.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(owner)))
        admin.execute(sql.SQL("ALTER ROLE {} SET search_path = public, pg_catalog").format(sql.Identifier(victim)))
        try:
            with connect(name, login.user, login.password) as inside:
                inside.execute(
                    b"CREATE EXTENSION hstore; CREATE EXTENSION citext; GRANT ALL ON SCHEMA public TO PUBLIC"
                )
            with connect(name, owner, "p") as mine:
                mine.execute(TRAPS.replace("OWNER", owner).encode())
                mine.execute(
                    sql.SQL("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {}").format(sql.Identifier(victim))
                )
                dataset = Dataset(
                    name="o",
                    engine=Engine.POSTGRES,
                    tables=(Table(name="t"),),
                    clusters=("c",),
                    credentials=write_login(tmp_path, "o", "source", victim, "p"),
                )
                shard = Shard(dataset="o", id="00000", leader=address, database=name)
                yield Owned(lambda text: mine.execute(text.encode()), dataset, shard, str(tmp_path))
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
            for role in (owner, victim):
                admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


# The key's columns, and what the n-th row has there; text orders otherwise than the types do.
KEYS: dict[str, tuple[str, str]] = {
    "integer": ("id int PRIMARY KEY", "n"),
    "enum": ("k colour, id int, PRIMARY KEY (k, id)", "(CASE n % 2 WHEN 0 THEN 'red' ELSE 'green' END)::colour, n"),
    "domain": ('k "100%s" PRIMARY KEY', "n"),
    "citext": ("k public.citext PRIMARY KEY", "chr(CASE n % 2 WHEN 0 THEN 65 ELSE 97 END + n % 26) || '-' || n"),
    "citext and more": (
        "id int, k public.citext, x int, PRIMARY KEY (id, k, x)",
        "n / 30, chr(CASE n % 2 WHEN 0 THEN 65 ELSE 97 END + n % 26) || '-' || n, n",
    ),
}


def test_a_proof_runs_nothing_of_the_databases_owner(owned: Owned) -> None:
    for number, (columns, key) in enumerate(KEYS.values()):
        table = f"t{number}"
        owned.as_owner(f"CREATE TABLE {table} ({columns}, {VALUES})")
        owned.as_owner(f"INSERT INTO {table} SELECT {key}, {ROW} FROM generate_series(1, 100) AS n")
        source = owned.source(table)
        assert source.inspect().problems == ()
        whole = dict(zip(*(part.tolist() for part in _words(source.read_chunk(None, None))), strict=True))
        assert len(whole) == 100
        # By chunks, and by keys, just the same rows.
        after, chunked, keys = None, dict[int, int](), []
        for _ in range(5):
            until = source.chunk_end(after, 30)
            found = source.read_chunk(after, until)
            words, rows = (part.tolist() for part in _words(found))
            assert len(words) == (30 if until else 10)
            keys += list(source.find(after, until, words).values())
            chunked |= dict(zip(words, rows, strict=True))
            after = until
            if until is None:
                break
        assert chunked == whole and len(set(keys)) == 100
        assert len(source.read_keys(keys[:40]).keys) == 40
        tokens = source.tokens(keys[:2])
        assert set(tokens) == set(keys[:2])
        first = tokens[keys[0]]
        assert first["c"] == b'"green"' and first["cs"] == b'["red","green"]' and first["ci"] == b'"Ab"'
        assert first["h"] == rb'"{\"a\":\"1\",\"b\":null}"' and first["ts"] == b'"2024-02-29T12:00:00Z"'
        assert bytes.fromhex(first["p"].decode().strip('"')) == b"(1,)"
        source.close()


def test_types_that_take_the_name_of_another_are_not_proven(owned: Owned) -> None:
    owned.as_owner("CREATE TABLE t (id int PRIMARY KEY, r public.int4range, rs public.int4range[], x regclass)")
    source = owned.source("t")
    problems = source.inspect().problems
    source.close()
    assert [problem for problem in problems if "no canonical form" in problem] == list(problems) and len(problems) == 3


def test_questions_to_a_server_run_nothing_of_the_databases_owner(owned: Owned) -> None:
    owned.as_owner("CREATE TABLE t (id int PRIMARY KEY)")
    servers = LeaderServers(secrets_dirs=[owned.secrets])
    assert servers.view(owned.dataset, owned.shard, owned.shard.leader).writable
    assert servers.missing_rights(owned.dataset, owned.shard, owned.shard.leader) == ()
    logs = RealSourceLogs(secrets_dirs=[owned.secrets])
    own = identity(Settings(), owned.dataset, owned.shard)
    logs.check(owned.dataset, owned.shard)
    logs.check_publication(owned.dataset, owned.shard, own)
    logs.publish(owned.dataset, owned.shard, own)
    assert logs.replica_lag(owned.dataset, owned.shard) is not False
    assert logs.row_bytes(owned.dataset, owned.shard, owned.dataset.tables) is None
    assert (logs.settled_transaction(owned.dataset, owned.shard) or 0) > 0


def _words(found: Any) -> tuple[Any, Any]:
    return found.keys, found.rows
