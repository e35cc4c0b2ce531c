"""Rows that are written while an initial snapshot begins."""

from __future__ import annotations

import itertools
import threading

import pytest

from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Address, BootstrapMode, Engine
from cdc_platform.snapshots.ports import SnapshotPorts
from tests.engines import EACH_ENGINE
from tests.snapshots.conftest import MakeHarness, bootstrap, go
from tests.snapshots.harness import TopicCheck
from tests.tcp_proxy import TcpProxy

pytestmark = pytest.mark.stack


@EACH_ENGINE
def test_a_row_written_between_any_two_statements_of_an_initial_snapshot_reaches_the_topic(
    engine: Engine, stack: Stack, make_harness: MakeHarness, outside: SnapshotPorts
) -> None:
    """The position may be read before the rows are, and not after: each row comes once or twice, never not at all."""
    ids, one_writer, over = itertools.count(1000), threading.Lock(), threading.Event()

    def insert() -> None:
        with one_writer:
            if not over.is_set():
                run(f"INSERT INTO items VALUES ({next(ids)}, 1, '')")

    server = stack.primary(engine)
    with TcpProxy((server.host, server.port), before_client=insert) as proxy:
        harness = make_harness(engine, count=1, rows=10, through=Address.parse(proxy.address))
        with harness.admin(harness.shards[0].database) as run:
            _, notes = go(outside, bootstrap(harness, mode=BootstrapMode.SNAPSHOT))
            with one_writer:
                over.set()
            assert [done.error for done in notes.done] == [None]
            assert next(ids) > 1020, "one a statement"
            TopicCheck(harness).assert_agrees()
