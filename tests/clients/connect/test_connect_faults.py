"""What goes wrong between us and Kafka Connect, one test a fault, over HTTP."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from threading import Thread

import pytest

from cdc_platform.clients.connect.client import ConnectClient
from cdc_platform.clients.protocols import Connect
from cdc_platform.errors import (
    BadInput,
    ConnectRebalancing,
    ConnectRejected,
    ConnectUnavailable,
    WrongCluster,
)
from cdc_platform.model.observed import CLUSTER_KEY
from cdc_platform.testing import ConnectModel, FakeConnectServer, FaultKind
from tests.clients.connect.harness import FILE_SOURCE

CONFIG = {"connector.class": FILE_SOURCE, "topic": "t", "file": "/nowhere"}
NAME = "pins.00000"


@pytest.fixture
def server() -> Iterator[FakeConnectServer]:
    with FakeConnectServer(ConnectModel()) as server:
        yield server


@pytest.fixture
def second(server: FakeConnectServer) -> Iterator[FakeConnectServer]:
    """Another worker of the same group."""
    with FakeConnectServer(server.model) as second:
        yield second


def client(*servers: FakeConnectServer, timeout: float = 0.9) -> ConnectClient:
    return ConnectClient("main", [server.url for server in servers], timeout=timeout)


def writes(*servers: FakeConnectServer) -> list[tuple[str, str]]:
    return [r for server in servers for r in server.requests if r[0] != "GET"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


# Which worker


def test_worker_that_refuses_makes_room_for_the_next(server: FakeConnectServer) -> None:
    urls = [f"http://127.0.0.1:{free_port()}", server.url]
    with ConnectClient("main", urls, timeout=2.0) as connect:
        connect.create(NAME, CONFIG)
        assert connect.connector(NAME).running
        assert writes(server) == [("POST", "/connectors")]


def test_worker_that_goes_away_is_replaced_in_mid_life(server: FakeConnectServer, second: FakeConnectServer) -> None:
    with client(server, second) as connect:
        connect.create(NAME, CONFIG)
        server.stop()
        assert connect.connectors()[NAME].running
        connect.pause(NAME)
        assert ("PUT", f"/connectors/{NAME}/pause") in second.requests
        server.start()
        second.stop()
        assert connect.connectors()[NAME].state == "PAUSED"


def test_no_worker_at_all_is_one_clear_error() -> None:
    urls = [f"http://127.0.0.1:{free_port()}" for _ in range(3)]
    with (
        ConnectClient("main", urls, timeout=2.0) as connect,
        pytest.raises(ConnectUnavailable, match=r"cluster main.*127\.0\.0\.1.*none of 2 others.*Cure"),
    ):
        connect.connectors()


def test_worker_that_hangs_leaves_time_for_the_next(server: FakeConnectServer, second: FakeConnectServer) -> None:
    server.add(FaultKind.DELAY, path="expand", seconds=30.0)
    second.model.fill({NAME: CONFIG})
    with client(server, second, timeout=2.0) as connect:
        started = time.monotonic()
        assert NAME in connect.connectors()
        assert time.monotonic() - started < 3.0


def test_call_ends_at_its_deadline_though_every_worker_hangs(
    server: FakeConnectServer, second: FakeConnectServer
) -> None:
    for worker in (server, second):
        worker.add(FaultKind.DELAY, path="/connectors", seconds=30.0, times=99)
    with client(server, second, timeout=0.5) as connect:
        for call in (connect.connectors, lambda: connect.create(NAME, CONFIG), lambda: connect.pause(NAME)):
            started = time.monotonic()
            with pytest.raises(ConnectUnavailable, match="not answered"):
                call()
            assert time.monotonic() - started < 3.0


# Another cluster


def test_worker_of_another_kafka_cluster_is_refused(server: FakeConnectServer) -> None:
    with ConnectClient("main", [server.url], timeout=2.0, kafka_cluster_id="ours") as connect:
        for call in (connect.connectors, lambda: connect.create(NAME, CONFIG)):
            with pytest.raises(WrongCluster, match=r"fake-kafka-cluster-id, not to ours.*Cure"):
                call()
    assert writes(server) == []


def test_wrong_worker_among_right_ones_is_left_out(server: FakeConnectServer) -> None:
    with FakeConnectServer(ConnectModel(kafka_cluster_id="theirs")) as wrong:
        wrong.model.fill({"theirs.00000": CONFIG})
        with client(server, wrong) as connect:
            assert connect.connectors() == {}
            server.stop()
            with pytest.raises(WrongCluster, match="theirs"):
                connect.connectors()


def test_worker_that_came_back_as_another_cluster_is_refused(server: FakeConnectServer) -> None:
    with client(server) as connect:
        connect.create(NAME, CONFIG)
        server.stop()
        with pytest.raises(ConnectUnavailable):
            connect.connectors()
        server.model.kafka_cluster_id = "theirs"
        server.start()
        with pytest.raises(WrongCluster):
            connect.delete(NAME)
        assert NAME in server.model.names()


def test_two_connect_clusters_on_one_kafka_are_told_apart_by_their_connectors(
    server: FakeConnectServer,
) -> None:
    server.model.fill({NAME: {**CONFIG, CLUSTER_KEY: "other"}, "stranger": CONFIG})
    with client(server) as connect:
        with pytest.raises(WrongCluster, match=r"urls of Connect cluster main.*made for Connect cluster other"):
            connect.connectors()
        server.model.fill({"pins.00001": {**CONFIG, CLUSTER_KEY: "main"}})
        assert len(connect.connectors()) == 3


def test_server_that_is_no_connect_worker_is_unavailable() -> None:
    class Welcome(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>Welcome</html>")

        def log_message(self, format: str, *args: object) -> None:
            pass

    other = HTTPServer(("127.0.0.1", 0), Welcome)
    threading.Thread(target=other.serve_forever, args=(0.02,), daemon=True).start()
    with (
        ConnectClient("main", [f"http://127.0.0.1:{other.server_port}"], timeout=2.0) as connect,
        pytest.raises(ConnectUnavailable, match="broken answer"),
    ):
        connect.delete(NAME)
    other.shutdown()
    other.server_close()


# 409


def test_409_is_tried_again_until_the_group_has_settled(server: FakeConnectServer) -> None:
    server.add(FaultKind.ANSWER, method="POST", status=409, message="conflicting operation", times=3)
    with client(server, timeout=10.0) as connect:
        connect.create(NAME, CONFIG)
    assert len(writes(server)) == 4
    assert server.model.starts[NAME] == 1


def test_409_until_the_deadline_is_rebalancing_and_changes_nothing(server: FakeConnectServer) -> None:
    server.model.fill({NAME: CONFIG})
    server.model.rebalancing = True
    with client(server, timeout=0.6) as connect:
        for call in (
            lambda: connect.create("pins.00001", CONFIG),
            lambda: connect.update(NAME, {**CONFIG, "x": "1"}),
            lambda: connect.delete(NAME),
            lambda: connect.restart_failed(NAME),
            lambda: connect.restart_task(NAME, 0),
            lambda: connect.stop(NAME),
            lambda: connect.connector(NAME),
        ):
            with pytest.raises(ConnectRebalancing, match="Cure"):
                call()
        # The list comes from the worker's memory: a pass can still see.
        assert connect.connectors()[NAME].config == {**CONFIG, "name": NAME}


# 5xx


def test_500_that_says_why_is_rejected(server: FakeConnectServer) -> None:
    server.add(FaultKind.ANSWER, method="POST", message="Could not read properties from file /secrets/a")
    with client(server) as connect, pytest.raises(ConnectRejected, match="HTTP 500: Could not read"):
        connect.create(NAME, CONFIG)
    assert len(writes(server)) == 1


def test_500_while_reading_all_is_an_unknown_picture(server: FakeConnectServer, second: FakeConnectServer) -> None:
    for path in ("expand=info", "/connectors$"):
        server.add(FaultKind.ANSWER, path=path)
        with client(server, second) as connect, pytest.raises(ConnectUnavailable, match="HTTP 500: injected"):
            connect.connectors()


@pytest.mark.parametrize("status", [401, 403])
def test_wrong_password_is_an_unknown_picture(server: FakeConnectServer, status: int) -> None:
    server.add(FaultKind.ANSWER, path="/connectors", status=status, message="who are you")
    with client(server) as connect, pytest.raises(ConnectUnavailable, match="user and password"):
        connect.connectors()


@pytest.mark.parametrize("status", [502, 503, 504])
def test_gateway_error_is_read_from_the_next_worker(
    server: FakeConnectServer, second: FakeConnectServer, status: int
) -> None:
    server.add(FaultKind.ANSWER, path="/connectors", status=status, times=9)
    server.model.fill({NAME: CONFIG})
    with client(server, second) as connect:
        assert NAME in connect.connectors()


def test_500_timed_out_is_read_back_not_sent_again(server: FakeConnectServer) -> None:
    """Connect gives up waiting for its herder after 90 s; the create may still happen."""
    server.add(FaultKind.ANSWER, method="POST", message="Request timed out. The worker is currently ensuring")
    with (
        client(server, timeout=1.0) as connect,
        pytest.raises(ConnectUnavailable, match=r"Request timed out.*not done yet, and may still be"),
    ):
        connect.create(NAME, CONFIG)
    assert len(writes(server)) == 1


# Applied, and the answer lost


@pytest.mark.parametrize("kind", [FaultKind.SILENCE, FaultKind.CUT])
def test_create_that_was_applied_unanswered_is_done(
    server: FakeConnectServer, second: FakeConnectServer, kind: FaultKind
) -> None:
    server.add(kind, method="POST")
    with client(server, second) as connect:
        connect.create(NAME, CONFIG)
    assert len(writes(server, second)) == 1
    assert server.model.starts[NAME] == 1


def test_create_stopped_that_was_applied_unanswered_is_done(server: FakeConnectServer) -> None:
    server.model.settle = 0.3
    server.add(FaultKind.CUT, method="POST")
    with client(server) as connect:
        connect.create(NAME, CONFIG, stopped=True)
        assert connect.connector(NAME).state == "STOPPED"
    assert len(writes(server)) == 1


@pytest.mark.parametrize("kind", [FaultKind.SILENCE, FaultKind.CUT])
def test_update_that_was_applied_unanswered_is_done(server: FakeConnectServer, kind: FaultKind) -> None:
    server.model.fill({NAME: CONFIG})
    server.add(kind, method="PUT")
    with client(server) as connect:
        connect.update(NAME, {**CONFIG, "batch.size": "7"})
        assert connect.connector(NAME).config["batch.size"] == "7"
    assert len(writes(server)) == 1


@pytest.mark.parametrize("kind", [FaultKind.SILENCE])
def test_delete_that_was_applied_unanswered_is_done(server: FakeConnectServer, kind: FaultKind) -> None:
    server.model.fill({NAME: CONFIG})
    server.add(kind, method="DELETE")
    with client(server) as connect:
        connect.delete(NAME)
    assert server.model.names() == []
    assert len(writes(server)) == 1


def test_write_that_was_dropped_is_unavailable_and_sent_once(
    server: FakeConnectServer, second: FakeConnectServer
) -> None:
    server.model.fill({NAME: CONFIG})
    calls: tuple[tuple[Callable[[Connect], object], str], ...] = (
        (lambda c: c.create("pins.00001", CONFIG), "POST"),
        (lambda c: c.update(NAME, {**CONFIG, "x": "1"}), "PUT"),
        (lambda c: c.delete(NAME), "DELETE"),
        (lambda c: c.restart_task(NAME, 0), "POST"),
        (lambda c: c.restart_failed(NAME), "POST"),
    )
    for call, method in calls:
        server.requests.clear()
        server.add(FaultKind.DROP, method=method)
        with client(server, second, timeout=0.5) as connect, pytest.raises(ConnectUnavailable, match="may"):
            call(connect)
        assert len(writes(server, second)) == 1


def test_target_states_are_asked_of_the_next_worker(server: FakeConnectServer, second: FakeConnectServer) -> None:
    """They may be asked twice: the second time nothing changes."""
    server.model.fill({NAME: CONFIG})
    for kind in (FaultKind.DROP, FaultKind.SILENCE):
        server.add(kind, method="PUT")
        with client(server, second) as connect:
            connect.stop(NAME)
            assert connect.connector(NAME).state == "STOPPED"
            connect.resume(NAME)


# Answers that are none


@pytest.mark.parametrize("kind", [FaultKind.CUT, FaultKind.HALVE, FaultKind.GARBAGE])
def test_answer_cut_in_half_is_never_half_a_picture(server: FakeConnectServer, kind: FaultKind) -> None:
    server.model.fill({f"pins.{at:05d}": CONFIG for at in range(200)})
    for path in ("expand", "/connectors$"):
        server.add(kind, path=path)
        with client(server) as connect:
            with pytest.raises(ConnectUnavailable, match=rf"127.0.0.1:{server.port}"):
                connect.connectors()
            assert len(connect.connectors()) == 200


def test_answer_cut_in_half_is_read_from_the_next_worker(server: FakeConnectServer, second: FakeConnectServer) -> None:
    server.model.fill({NAME: CONFIG})
    server.add(FaultKind.CUT, path="expand")
    with client(server, second) as connect:
        assert NAME in connect.connectors()


def test_errors_do_not_show_what_a_broken_answer_held(server: FakeConnectServer) -> None:
    server.model.fill({NAME: {**CONFIG, "note": "do-not-show"}})
    server.add(FaultKind.HALVE, path="expand")
    with client(server) as connect, pytest.raises(ConnectUnavailable) as caught:
        connect.connectors()
    assert "do-not-show" not in str(caught.value)


# Secrets


def test_rejection_names_the_reference_and_hides_the_value(server: FakeConnectServer) -> None:
    """Connect validates resolved configs and prints the value that it did not like."""
    server.model.refuses = lambda name, config: (
        "Invalid value hunter2\nor so for configuration database.port: Not a number of type INT"
    )
    config = {**CONFIG, "database.port": "${file:/secrets/pins.properties:port}"}
    with client(server) as connect:
        calls: tuple[Callable[[], object], ...] = (
            lambda: connect.create(NAME, config),
            lambda: connect.update(NAME, config),
        )
        for call in calls:
            with pytest.raises(ConnectRejected) as caught:
                call()
            assert "hunter2" not in str(caught.value)
            assert "${file:/secrets/pins.properties:port}" in str(caught.value)


def test_logs_hold_neither_configs_nor_passwords(server: FakeConnectServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    url = server.url.replace("http://", "http://someone:url-password@")
    with ConnectClient("main", [url], timeout=2.0, auth=("user", "auth-password")) as connect:
        connect.create(NAME, {**CONFIG, "note": "config-value"})
        connect.connectors()
        server.stop()
        with pytest.raises(ConnectUnavailable) as caught:
            connect.connectors()
    told = caplog.text + str(caught.value)
    assert "cdc_platform.clients" in told
    for secret in ("url-password", "auth-password", "config-value"):
        assert secret not in told


# Input


@pytest.mark.parametrize("urls", [[], [""], ["ftp://x"], ["127.0.0.1:8083"], ["http://"], ["http://[::1"]])
def test_bad_url_is_bad_input(urls: list[str]) -> None:
    with pytest.raises(BadInput, match="Cure"):
        ConnectClient("main", urls)


def test_name_with_special_characters_reaches_its_connector(server: FakeConnectServer) -> None:
    name = "we/ird name?x=1#%2F"
    with client(server) as connect:
        connect.create(name, CONFIG)
        assert connect.connector(name).running
        connect.delete(name)
        assert connect.connectors() == {}


def test_many_threads_share_one_client(server: FakeConnectServer) -> None:
    with client(server, timeout=10.0) as connect, ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda at: connect.create(f"pins.{at:05d}", CONFIG), range(200)))
        assert len(connect.connectors()) == 200


def test_long_trace_keeps_every_cause(server: FakeConnectServer) -> None:
    frames = "\n".join(f"\tat io.debezium.Some.method(Some.java:{at})" for at in range(500))
    trace = f"org.apache.kafka.ConnectException: outer\n{frames}\nCaused by: java.net.ConnectException: inner\n{frames}"
    server.model.fill({NAME: CONFIG})
    server.model.fail_task(NAME, trace)
    with client(server) as connect:
        seen = connect.connectors()[NAME].tasks[0].trace
    assert seen is not None and len(seen) < 6100 < len(trace)
    assert "outer" in seen and "Caused by: java.net.ConnectException: inner" in seen


def test_config_with_null_is_read_without_it(server: FakeConnectServer) -> None:
    server.model.fill({NAME: json.loads(json.dumps({**CONFIG, "odd": None}))})
    with client(server) as connect:
        assert "odd" not in connect.connectors()[NAME].config


def test_user_and_password_are_sent_to_the_worker_that_they_are_for() -> None:
    """A URL's own login goes before the cluster's; without either nothing is sent."""
    heard: list[str | None] = []

    class Guard(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.headers["Authorization"])
            self.send_response(401)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the test reads what was heard."""

    guard = ThreadingHTTPServer(("127.0.0.1", 0), Guard)
    Thread(target=guard.serve_forever, daemon=True).start()
    try:
        address = f"127.0.0.1:{guard.server_address[1]}"
        for url, auth, wanted in (
            (f"http://{address}", ("u", "p"), "u:p"),
            (f"http://own:word@{address}", ("u", "p"), "own:word"),
            (f"http://{address}", None, None),
        ):
            with (
                ConnectClient("main", [url], timeout=2.0, auth=auth) as connect,
                pytest.raises(ConnectUnavailable, match=r"401.*connect_user"),
            ):
                connect.connectors()
            expected = None if wanted is None else f"Basic {b64encode(wanted.encode()).decode()}"
            assert heard and set(heard) == {expected}
            heard.clear()
    finally:
        guard.shutdown()
        guard.server_close()
