"""The demo's writers: a server that restarts costs no change, and what they noted is what it has."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import psycopg
import pymysql
import pytest

from cdc_platform.documents.project_files import repository_file
from cdc_platform.local.demo import sources
from cdc_platform.local.demo.writing import Open, Writer
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Engine
from tests.local.promotion import drop_postgres_database
from tests.waiting import assert_eventually

KEYS = {"boards": "id", "pins": "id", "orders": "id", "order_items": "order_id, line"}


@contextmanager
def shop_of(stack: Stack, engine: Engine, database: str) -> Iterator[tuple[sources.Shop, Open]]:
    """A shop over an empty database of its own, and what opens a cursor there."""
    login, server, ledger = stack.admin(engine), stack.primary(engine), sources.Ledger()
    if engine is Engine.POSTGRES:
        script = repository_file("examples/sql/orders.sql").read_text()
        sources.create_postgres(server, login, [database], script, reader="cdc")
        yield sources.OrderShop("s", ledger, 1), lambda name: sources.postgres(server, login, database)
        drop_postgres_database(stack, database)
        return
    sources.create_mariadb(server, login, [database], repository_file("examples/sql/pins.sql").read_text())
    yield sources.PinShop("s", ledger, 1), lambda name: sources.mariadb(server, login, database)
    with sources.mariadb(server, login) as cursor:
        cursor.execute(f"DROP DATABASE `{database}`")


@pytest.mark.stack
@pytest.mark.parametrize("engine", [Engine.MARIADB, pytest.param(Engine.POSTGRES, marks=pytest.mark.slow)], ids=str)
def test_demo_writers_outlive_a_restart_of_their_database(
    stack: Stack, unique_name: Callable[[str], str], engine: Engine
) -> None:
    service, stop = stack.servers(engine)[0], threading.Event()
    with shop_of(stack, engine, unique_name("demo")) as (shop, connect):
        trouble: list[Exception] = []
        writer = Writer(
            shops={"s": shop}, open=connect, captured={"s"}, stop=stop, pause=0.002, changes=None, patience=240
        )

        def write() -> None:
            try:
                writer.write()
            except (pymysql.Error, psycopg.Error) as error:
                trouble.append(error)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            for _ in range(2):
                before = len(shop.ledger.snapshot())
                assert_eventually(lambda: len(shop.ledger.snapshot()) > before + 50 or bool(trouble), "it writes")  # noqa: B023
                stack.kill(service)
                stack.start(service)
            before = len(shop.ledger.snapshot())
            assert_eventually(lambda: len(shop.ledger.snapshot()) > before + 50 or bool(trouble), "it writes again")
        finally:
            stop.set()
            thread.join(60)
        assert not trouble and not thread.is_alive()
        noted: dict[tuple[str, tuple[int, ...]], int] = {}
        for _, table, key, kind, revision in shop.ledger.snapshot():
            noted[table, key] = max(revision, noted.get((table, key), 0)) if kind == "write" else 1 << 40
        live = {place: revision for place, revision in noted.items() if revision < 1 << 40}
        with connect("s") as cursor:
            for table in (shop.parent, shop.child):
                cursor.execute(f"SELECT {KEYS[table]}, revision FROM {table}")
                found = {(table, tuple(row[:-1])): row[-1] for row in cursor.fetchall()}
                assert found == {place: revision for place, revision in live.items() if place[0] == table}


def test_demo_writers_give_up_once_their_patience_ends() -> None:
    def away(name: str) -> AbstractContextManager[sources.DemoCursor]:
        raise pymysql.err.OperationalError(2003, "no server")

    shop = sources.PinShop("s", sources.Ledger(), 1)
    writer = Writer(
        shops={"s": shop}, open=away, captured=set(), stop=threading.Event(), pause=0.01, changes=1, patience=0.1
    )
    with pytest.raises(pymysql.err.OperationalError, match="no server"):
        writer.write()
