"""Connections between workers and the broker: cut, slow and half-open.

On a small stack of its own: its broker has a listener for the workers alone, and tells them to
reach it through a proxy. Control plane and consumers reach it directly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cdc_platform.clients.platform import Platform
from cdc_platform.local.ports import chosen
from cdc_platform.local.stack import Stack
from tests.conftest import own_stack
from tests.faults.conftest import MakeScenario, scenarios
from tests.faults.control_plane import ControlPlane
from tests.faults.harness import open_site_platform
from tests.tcp_proxy import TcpProxy

pytestmark = [pytest.mark.stack, pytest.mark.slow]


@dataclass(frozen=True, kw_only=True)
class ProxiedStack:
    """A stack with a proxy between its workers and its broker, and who works on it."""

    stack: Stack
    proxy: TcpProxy
    platform: Platform
    control_plane: ControlPlane


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxiedStack]:
    home = tmp_path_factory.mktemp("broker-network")
    with chosen(["behind"], fixed={}, before={}) as found:
        behind = found["behind"]
    with TcpProxy(("127.0.0.1", behind)) as proxy:
        port = int(proxy.address.rpartition(":")[2])
        parts = {"workers": 2, "postgres": False, "worker_broker_port": port, "ports": {"kafka.workers": behind}}
        with own_stack(**parts) as stack, open_site_platform(stack, home / "cache") as platform:
            control_plane = ControlPlane(stack, home / "control-plane.log")
            control_plane.start()
            yield ProxiedStack(stack=stack, proxy=proxy, platform=platform, control_plane=control_plane)
            control_plane.stop()


@pytest.fixture
def assert_recovery(proxied: ProxiedStack, tmp_path: Path, request: pytest.FixtureRequest) -> MakeScenario:
    return scenarios(proxied.stack, proxied.platform, proxied.control_plane, tmp_path, request)


def test_faults_workers_cut_off_from_the_broker(assert_recovery: MakeScenario, proxied: ProxiedStack) -> None:
    """For longer than the group waits for a member: all tasks are taken from all workers."""
    with assert_recovery("workers to broker: cut for 20 s") as run:
        proxied.proxy.cut()
        run.hold(20)
        proxied.proxy.resume()
        run.over()


def test_faults_workers_with_a_slow_broker(assert_recovery: MakeScenario, proxied: ProxiedStack) -> None:
    with assert_recovery("workers to broker: 4 kB/s for 20 s") as run:
        proxied.proxy.slow(4_000)
        run.hold(20)
        proxied.proxy.resume()
        run.over()


def test_faults_workers_half_open_to_the_broker(assert_recovery: MakeScenario, proxied: ProxiedStack) -> None:
    with assert_recovery("workers to broker: half-open for 30 s") as run:
        proxied.proxy.stall()
        run.hold(30)
        proxied.proxy.resume()
        run.over()
