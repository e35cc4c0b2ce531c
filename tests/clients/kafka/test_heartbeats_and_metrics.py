"""Metrics of workers and heartbeats: what is read of them, and that garbage is none."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from confluent_kafka import Producer
from hypothesis import given
from hypothesis import strategies as st

from cdc_platform.clients.connect.worker_metrics import WorkerMetrics, parse
from cdc_platform.clients.kafka.admin import KafkaAdmin
from cdc_platform.clients.kafka.heartbeats import HeartbeatTopic
from cdc_platform.connectors import jmx_export as jmx
from cdc_platform.connectors.routing import WORKER_HEADER
from cdc_platform.errors import ConnectUnavailable, KafkaUnavailable
from cdc_platform.local.stack import Stack
from cdc_platform.model.observed import TopicRequest

TEXT = f"""# HELP jvm_memory_used_bytes Used bytes.
{jmx.HEAP_USED}{{area="heap"}} 6.0E8
{jmx.HEAP_USED}{{area="nonheap"}} 1.0
{jmx.HEAP_MAX}{{area="heap"}} 2.0E9
{jmx.TASK_COUNT} 3.0
{jmx.REBALANCES} 12.0
{jmx.LAG_MS}{{engine="mariadb",server="pins.00000"}} 602.0
{jmx.LAG_MS}{{engine="mariadb",server="pins.00001"}} -1.0
{jmx.LAG_MS}{{engine="mariadb",server="pins.00002"}} 9.0E7
{jmx.CONNECTED}{{engine="mariadb",server="pins.00000"}} 1.0
{jmx.CONNECTED}{{engine="mariadb",server="pins.00001"}} 1.0
{jmx.CONNECTED}{{engine="mariadb",server="pins.00002"}} 0.0
{jmx.SNAPSHOT_RUNNING}{{engine="mariadb",server="pins.00002"}} 1.0
{jmx.LAG_MS}{{engine="mariadb"}} 5.0
{jmx.LAG_MS}{{engine="mariadb",server="x"}} NaN
half a li"""


def test_metrics_are_read_and_what_is_not_known_is_left_out() -> None:
    seen = parse("w0:8083", TEXT, where="here")
    assert (seen.heap_used, seen.heap_max, seen.tasks, seen.rebalances) == (600_000_000, 2_000_000_000, 3, 12)
    # -1 says unknown; a connector that is not connected keeps an old lag for ever.
    assert seen.lag_ms == {"pins.00000": 602}
    assert seen.streaming == {"pins.00000", "pins.00001"}
    assert seen.snapshotting == {"pins.00002"}


@given(st.text())
def test_garbage_is_no_metrics(text: str) -> None:
    with pytest.raises(ConnectUnavailable):
        parse("w0:8083", text, where="here")


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_garbage_between_metrics_does_not_hurt(text: str) -> None:
    assert parse("w0:8083", f"{TEXT}\n{text}\n{TEXT}", where="here").heap_max == 2_000_000_000


@contextmanager
def served(body: bytes, status: int = 200) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Not to stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/metrics"
    server.shutdown()
    server.server_close()


def test_a_worker_that_does_not_answer_or_answers_something_else_is_unavailable() -> None:
    metrics = WorkerMetrics(timeout=2.0)
    with served(TEXT.encode()) as url:
        assert metrics.read("w0:8083", url).tasks == 3
    with pytest.raises(ConnectUnavailable):
        metrics.read("w0:8083", url)
    for body, status in ((b"<html>hello</html>", 200), (b"no", 503)):
        with served(body, status) as url, pytest.raises(ConnectUnavailable) as caught:
            metrics.read("w0:8083", url)
        assert caught.value.cure
    metrics.close()


@pytest.mark.stack
def test_heartbeats_of_a_window_by_shard_and_sender(stack: Stack) -> None:
    topic = f"beats-{secrets.token_hex(4)}"
    kafka = stack.kafka_client
    KafkaAdmin(kafka).create_topics(
        [TopicRequest(name=topic, partitions=1, replication=1, config={"message.timestamp.type": "CreateTime"})]
    )
    producer = Producer(dict(kafka))
    base = 1_700_000_000_000

    def send(key: bytes | None, age: float, worker: bytes | None) -> None:
        headers: list[tuple[str, str | bytes | None]] | None = [(WORKER_HEADER, worker)] if worker else None
        producer.produce(topic, key=key, value=b"{}", headers=headers, timestamp=base - int(age * 1000))

    def plain(shard: str) -> bytes:
        return json.dumps({"serverName": shard}, separators=(",", ":")).encode()

    send(plain("pins.old"), 300, b"w0")
    send(plain("pins.a"), 50, b"w0")
    send(json.dumps({"schema": {}, "payload": {"serverName": "pins.a"}}).encode(), 40, b"w1")
    send(b"garbage", 30, b"w0")
    send(b'{"serverName": 7}', 30, b"w0")
    send(b"\xff\xfe", 30, None)
    send(None, 20, None)
    send(plain("pins.a"), 10, b"w0")
    send(plain("pins.b"), 0, None)
    assert producer.flush(60) == 0
    beats = HeartbeatTopic(kafka, topic)
    found = beats.read(timedelta(seconds=75))
    assert set(found.beats) == {"pins.a", "pins.b"}
    assert found.age("pins.a") == 10.0
    assert found.age("pins.old") is None
    assert set(found.beats["pins.a"].senders) == {"w0", "w1"}
    first, last = found.beats["pins.a"].senders["w0"]
    assert (last - first).total_seconds() == 40.0
    assert set(beats.read(timedelta(seconds=400)).beats) == {"pins.a", "pins.b", "pins.old"}
    beats.close()


@pytest.mark.stack
def test_a_heartbeat_topic_that_is_not_there_yet_has_none(stack: Stack) -> None:
    beats = HeartbeatTopic(stack.settings().kafka, f"none-{secrets.token_hex(4)}")
    found = beats.read(timedelta(seconds=75))
    assert found.newest is None
    assert found.beats == {}
    beats.close()


def test_heartbeats_without_a_broker_are_unavailable_and_not_empty() -> None:
    beats = HeartbeatTopic({"bootstrap.servers": "127.0.0.1:9"}, "beats", timeout=2.0)
    with pytest.raises(KafkaUnavailable):
        beats.read(timedelta(seconds=75))
    beats.close()
