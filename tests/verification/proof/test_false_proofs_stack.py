"""A search for false words of the proof: random types, settings and changes against a plain comparison, row by row.

`CDC_SEARCH_SEED=N` repeats a search (each test prints its own), `CDC_SEARCH_ROUNDS=N` makes it longer.
"""

from __future__ import annotations

import os
import random
import secrets
from contextlib import suppress
from typing import Any

import psycopg
import pymysql
import pytest

from cdc_platform.model.topology import Engine, Shard
from cdc_platform.verification.proof.verdicts import Verdict
from tests.engines import EACH_ENGINE
from tests.verification.proof.harness import Harness, MakeHarness
from tests.verification.proof.random_tables import SESSIONS, RandomTable, differences

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(3600)]

ROUNDS = int(os.environ.get("CDC_SEARCH_ROUNDS", "2"))
CHANGES = 25


class Search:
    """One table of a random shape, changed by sessions of random settings, some of it behind the log."""

    def __init__(self, harness: Harness, seed: int) -> None:
        self.harness = harness
        self.dice = random.Random(seed)
        self.table = RandomTable.throw(self.dice, harness.engine)
        self.errors: tuple[type[Exception], ...] = (pymysql.Error, psycopg.Error)
        self.sessions = 0

    def shard(self) -> Shard:
        shard = self.harness.add_shard("00000", self.table.create)
        if self.harness.engine is Engine.POSTGRES:
            if self.table.identity:
                self.harness.execute(shard, self.table.identity)
            self.harness.own(shard, "t")
        return shard

    def session(self, shard: Shard) -> Any:
        """A new one, with up to two settings."""
        self.sessions += 1
        cursor = self.harness.connection(shard, f"s{self.sessions}").cursor()
        for statement in self.dice.sample(SESSIONS[self.harness.engine], self.dice.randrange(3)):
            cursor.execute(statement)
        return cursor

    def change(self, cursor: Any) -> None:
        """One transaction; what the server refuses (a key that is there already) is no change."""
        dice, where = self.dice, "t" if self.harness.engine.reads_binlog else "public.t"
        kind = dice.random()
        with suppress(*self.errors):
            if kind < 0.45:
                places = ", ".join(["%s"] * len(self.table.names))
                cursor.execute(f"INSERT INTO {where} VALUES ({places})", self.table.row(dice))
                return
            cursor.execute(f"SELECT k FROM {where}")
            keys = [row[0] for row in cursor.fetchall()]
            if not keys:
                return
            key = dice.choice(keys)
            if kind < 0.6:
                cursor.execute(f"DELETE FROM {where} WHERE k = %s", (key,))
            elif kind < 0.7:
                cursor.execute(f"UPDATE {where} SET k = %s WHERE k = %s", (self.table.key.make(dice), key))
            else:
                number = dice.randrange(len(self.table.columns))
                value = None if dice.random() < 0.2 else self.table.columns[number].make(dice)
                cursor.execute(f"UPDATE {where} SET c{number} = %s WHERE k = %s", (value, key))

    def hidden(self, shard: Shard) -> None:
        """A change that the log does not have."""
        if self.harness.engine.reads_binlog:
            cursor = self.harness.connection(shard, "hidden").cursor()
            cursor.execute("SET sql_log_bin = 0")
            self.change(cursor)
            return
        publication = self.harness.publication(shard)
        self.harness.execute(shard, f'ALTER PUBLICATION "{publication}" DROP TABLE t')
        self.change(self.harness.connection(shard, "hidden").cursor())
        self.harness.execute(shard, f'ALTER PUBLICATION "{publication}" ADD TABLE t')

    def judge(self, shard: Shard) -> None:
        """The proof's numbers are those of the plain comparison, and `proven` is said of no difference only."""
        self.harness.settle(shard)
        [verdict] = self.harness.verify().values()
        rows = self.harness.execute(shard, f"SELECT {', '.join(self.table.names)} FROM t")
        expected = differences(self.table, rows, self.harness.records())
        said = (verdict.missing, verdict.extra, verdict.mismatched)
        assert verdict.verdict is (Verdict.MISMATCHED if any(expected) else Verdict.PROVEN), (
            self.table.create, expected, verdict, self.harness.explain(verdict),
        )  # fmt: skip
        assert said == expected, (self.table.create, self.harness.explain(verdict))

    def assert_agrees(self) -> None:
        shard = self.shard()
        first = self.session(shard)
        for _ in range(10):
            self.change(first)
        self.harness.deploy()
        self.harness.settle(shard)
        for _ in range(self.dice.randint(1, 4)):
            session = self.session(shard)
            for _ in range(CHANGES):
                self.change(session)
        self.judge(shard)
        for _ in range(self.dice.randint(1, 6)):
            self.hidden(shard)
        self.judge(shard)


@EACH_ENGINE
def test_completeness_says_what_a_plain_comparison_says(make_harness: MakeHarness, engine: Engine) -> None:
    seed = int(os.environ.get("CDC_SEARCH_SEED") or secrets.randbelow(10**9))
    for number in range(ROUNDS):
        print(f"{engine}: CDC_SEARCH_SEED={seed + number}")
        harness = make_harness(engine)
        Search(harness, seed + number).assert_agrees()
        for shard in harness.shards:
            harness.stop(shard)
