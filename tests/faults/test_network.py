"""Connections between workers and sources: cut, slow and half-open."""

from __future__ import annotations

import pytest

from cdc_platform.model.topology import Engine
from tests.engines import EACH_ENGINE
from tests.faults.conftest import MakeScenario
from tests.tcp_proxy import TcpProxy

pytestmark = [pytest.mark.stack, pytest.mark.slow]


@EACH_ENGINE
def test_faults_connection_cut(assert_recovery: MakeScenario, engine: Engine) -> None:
    with (
        TcpProxy(("127.0.0.1", 1)) as proxy,
        assert_recovery(f"{engine}: cut for 5 s", engine=engine, through=proxy) as run,
    ):
        proxy.cut()
        run.hold(5)
        proxy.resume()
        run.over()


@EACH_ENGINE
def test_faults_connection_slow(assert_recovery: MakeScenario, engine: Engine) -> None:
    name = f"{engine}: 4 kB/s for 20 s"
    with TcpProxy(("127.0.0.1", 1)) as proxy, assert_recovery(name, engine=engine, through=proxy) as run:
        proxy.slow(4_000)
        run.hold(20)
        proxy.resume()
        run.over()


@EACH_ENGINE
def test_faults_connection_half_open(assert_recovery: MakeScenario, engine: Engine) -> None:
    name = f"{engine}: half-open for 30 s"
    with TcpProxy(("127.0.0.1", 1)) as proxy, assert_recovery(name, engine=engine, through=proxy) as run:
        proxy.stall()
        run.hold(30)
        proxy.resume()
        run.over()
