"""The faults of the wire between the control plane and real Kafka Connect."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cdc_platform.clients.connect.client import ConnectClient
from cdc_platform.clients.kafka.admin import KafkaAdmin
from cdc_platform.errors import ConnectRejected, ConnectUnavailable, WrongCluster
from cdc_platform.local.stack import Stack
from cdc_platform.model.observed import CLUSTER_KEY
from tests.clients.connect.harness import Harness
from tests.clients.connect.wire_breaker import WireBreaker
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack, pytest.mark.plain]


@pytest.fixture
def real(stack: Stack, tmp_path: Path) -> Iterator[Harness]:
    with ConnectClient("main", stack.connect_urls, timeout=60.0) as client:
        harness = Harness("real", client, tmp_path)
        yield harness
        harness.clean()


@pytest.fixture
def wire(stack: Stack) -> Iterator[WireBreaker]:
    """A wire to one worker, whole until a test breaks it."""
    address = urlsplit(stack.connect_urls[0])
    assert address.hostname is not None and address.port is not None
    with WireBreaker((address.hostname, address.port)) as wire:
        yield wire


def test_control_plane_answer_cut_in_half_is_never_half_a_picture(real: Harness, wire: WireBreaker) -> None:
    for at in range(3):
        real.connect.create(real.name(f"{at:05d}"), real.config(), stopped=True)
    with ConnectClient("main", [wire.url], timeout=10.0) as connect:
        whole = connect.connectors()
        assert len(whole) >= 3
        wire.keep = 700
        wire.break_all()
        with pytest.raises(ConnectUnavailable, match=rf"127\.0\.0\.1:{wire.port}"):
            connect.connectors()
        wire.keep = None
        assert set(connect.connectors()) == set(whole)


def test_control_plane_goes_on_with_the_next_worker(stack: Stack, real: Harness, wire: WireBreaker) -> None:
    name = real.name()
    real.connect.create(name, real.config(), stopped=True)
    with ConnectClient("main", [wire.url, stack.connect_urls[1]], timeout=10.0) as connect:
        assert name in connect.connectors()
        wire.mute = True
        started = time.monotonic()
        assert name in connect.connectors()
        assert time.monotonic() - started < 10.0


def test_control_plane_create_applied_but_unanswered_is_done_once(
    stack: Stack, real: Harness, wire: WireBreaker
) -> None:
    name = real.name()
    with ConnectClient("main", [wire.url, stack.connect_urls[1]], timeout=30.0) as connect:
        connect.connectors()
        wire.mute = True
        connect.timeout = 6.0
        connect.create(name, real.config())
        assert connect.connector(name).config == {**real.config(), "name": name}
        real.assert_running(name)


def test_control_plane_update_and_delete_applied_but_unanswered_are_done(
    stack: Stack, real: Harness, wire: WireBreaker
) -> None:
    name = real.name()
    real.connect.create(name, real.config())
    real.assert_running(name)
    for verb in ("update", "delete"):
        with ConnectClient("main", [wire.url, stack.connect_urls[1]], timeout=6.0) as connect:
            connect.connectors()
            wire.mute = True
            if verb == "update":
                connect.update(name, real.config(batch_size="7"))
                assert connect.connector(name).config["batch.size"] == "7"
            else:
                connect.delete(name)
                assert_eventually(lambda: name not in connect.connectors(), what="gone")
        wire.mute = False
        wire.break_all()


def test_control_plane_refuses_a_worker_of_another_cluster(stack: Stack, real: Harness) -> None:
    kafka_cluster_id = KafkaAdmin(stack.kafka_client).cluster_id()
    with ConnectClient("main", stack.connect_urls, kafka_cluster_id=kafka_cluster_id) as connect:
        connect.connectors()
    with (
        ConnectClient("main", stack.connect_urls, kafka_cluster_id="another") as connect,
        pytest.raises(WrongCluster, match=f"{kafka_cluster_id}, not to another"),
    ):
        connect.delete(real.name())


def test_control_plane_refuses_connectors_that_were_made_for_another_cluster(stack: Stack, real: Harness) -> None:
    name = real.name()
    real.connect.create(name, {**real.config(), CLUSTER_KEY: "elsewhere"}, stopped=True)
    with ConnectClient("main", stack.connect_urls) as connect, pytest.raises(WrongCluster, match="elsewhere"):
        connect.connectors()


def test_control_plane_500_says_why_and_changes_nothing(real: Harness, stack: Stack) -> None:
    name = real.name()
    missing = stack.secrets_dir / "no-such-file.properties"
    with pytest.raises(ConnectRejected, match="HTTP 500: Could not read properties"):
        real.connect.create(name, real.config(note=f"${{file:{missing}:key}}"))
    assert name not in real.connect.connectors()


def test_control_plane_never_shows_a_secret_that_connect_printed(real: Harness, stack: Stack) -> None:
    secret = stack.secrets_dir / "contract-test.properties"
    secret.write_text("number=hunter2\n", encoding="utf-8")
    secret.chmod(0o644)
    try:
        with pytest.raises(ConnectRejected) as caught:
            real.connect.create(real.name(), real.config(batch_size=f"${{file:{secret}:number}}"))
    finally:
        secret.unlink()
    assert "hunter2" not in str(caught.value)
    assert f"${{file:{secret}:number}}" in str(caught.value)


def test_control_plane_creates_many_at_once_through_rebalances(real: Harness) -> None:
    """Concurrent creates meet rebalances; each comes through or says so."""

    names = [real.name(f"{at:05d}") for at in range(20)]
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda name: real.connect.create(name, real.config()), names))
    assert_eventually(
        lambda: sum(c.running for n, c in real.connect.connectors().items() if n in names) == 20,
        what="20 RUNNING",
    )
    seen = real.connect.connectors()
    assert len({seen[name].tasks[0].worker for name in names}) > 1
