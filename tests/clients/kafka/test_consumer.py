"""Reading to an end and sending, against librdkafka's own mock brokers."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, Producer

from cdc_platform.clients.kafka import heartbeats
from cdc_platform.clients.kafka.consumer import (
    assign,
    offsets_at,
    open_consumer,
    partitions_of,
    read_to_end,
    watermarks,
)
from cdc_platform.clients.kafka.heartbeats import HeartbeatTopic
from cdc_platform.clients.kafka.notifications import INCREMENTAL, Notifications
from cdc_platform.clients.kafka.producer import OutgoingRecord, RecordSender
from cdc_platform.clients.kafka.topic_records import TopicRecords
from cdc_platform.errors import KafkaUnavailable, SecretUnresolved, SettingsError

NO_SHARD = {"bootstrap.servers": "127.0.0.1:9"}


@pytest.fixture(scope="module")
def kafka() -> Iterator[dict[str, str]]:
    """Brokers inside of librdkafka, whose topics have four partitions."""
    keeper = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "mock"})
    brokers = keeper.list_topics(timeout=10).brokers.values()
    yield {"bootstrap.servers": ",".join(f"{broker.host}:{broker.port}" for broker in brokers)}


@pytest.fixture
def topic(kafka: dict[str, str]) -> str:
    name = f"t-{secrets.token_hex(4)}"
    send(kafka, name, {0: 3, 1: 5, 2: 0, 3: 1})
    return name


def send(kafka: dict[str, str], topic: str, counts: dict[int, int]) -> None:
    records = [
        OutgoingRecord(topic=topic, key=f"{partition}", value=f"{partition}-{number}".encode(), partition=partition)
        for partition, count in counts.items()
        for number in range(count)
    ]
    RecordSender(kafka, timeout=10).send(records, "send")


def all_ends(consumer: Consumer, topic: str) -> dict[tuple[str, int], int]:
    end = time.monotonic() + 10
    return {(topic, p): watermarks(consumer, topic, p, end)[1] for p in partitions_of(consumer, topic, end)}


def values(batches: Iterator[list[Any]]) -> list[str]:
    return sorted(message.value().decode() for batch in batches for message in batch)


def test_all_partitions_are_read_to_their_ends_and_a_later_read_takes_what_is_new(
    kafka: dict[str, str], topic: str
) -> None:
    consumer = open_consumer(kafka, "test")
    offsets = {(topic, p): 0 for p in range(4)}
    assign(consumer, offsets)
    found = values(read_to_end(consumer, offsets, all_ends(consumer, topic), timeout=10, batch=2))
    assert found == [f"{p}-{n}" for p, count in ((0, 3), (1, 5), (3, 1)) for n in range(count)]
    assert offsets == {(topic, 0): 3, (topic, 1): 5, (topic, 2): 0, (topic, 3): 1}

    send(kafka, topic, {2: 2})
    assert values(read_to_end(consumer, offsets, all_ends(consumer, topic), timeout=10)) == ["2-0", "2-1"]
    assert offsets[topic, 2] == 2
    assert values(read_to_end(consumer, offsets, all_ends(consumer, topic), timeout=10)) == []
    consumer.close()


def test_partitions_that_are_assigned_again_further_back_are_read_again(kafka: dict[str, str], topic: str) -> None:
    consumer = open_consumer(kafka, "test")
    ends = all_ends(consumer, topic)
    for starts in ({0: 2, 1: 4}, {0: 0, 1: 1}):
        offsets = {(topic, p): start for p, start in starts.items()}
        assign(consumer, offsets)
        found = values(read_to_end(consumer, offsets, {key: ends[key] for key in offsets}, timeout=10))
        assert found == [f"{p}-{n}" for p, start in starts.items() for n in range(start, ends[topic, p])]
        consumer.unassign()
    consumer.close()


def test_an_end_that_does_not_come_is_unavailable_and_names_partition_and_offsets(
    kafka: dict[str, str], topic: str
) -> None:
    consumer = open_consumer(kafka, "test")
    offsets = {(topic, 0): 0}
    assign(consumer, offsets)
    with pytest.raises(KafkaUnavailable, match=r"partition 0 was not read to its end .*\(at offset 3 of 9\)"):
        list(read_to_end(consumer, offsets, {(topic, 0): 9}, timeout=0.5))
    # With `stop_at_eof` the end of the partition is enough.
    offsets = {(topic, 0): 0}
    assign(consumer, offsets)
    assert len(values(read_to_end(consumer, offsets, {(topic, 0): 9}, timeout=10, stop_at_eof=True))) == 3
    consumer.close()


def test_a_timeout_of_the_watermarks_is_an_error_not_none() -> None:
    class Silent:
        def get_watermark_offsets(self, partition: object, timeout: float) -> None:
            return None

    silent: Any = Silent()
    with pytest.raises(KafkaException, match="_TIMED_OUT"):
        watermarks(silent, "t", 0, time.monotonic() + 1)


def test_what_is_not_there_has_no_partitions(kafka: dict[str, str]) -> None:
    consumer = open_consumer(NO_SHARD, "test")
    with pytest.raises(KafkaException):
        partitions_of(consumer, "t", time.monotonic() + 0.5)
    assert offsets_at(consumer, "t", {}, time.monotonic()) == {}
    consumer.close()


def test_a_configuration_that_librdkafka_does_not_know_is_a_setting_to_fix() -> None:
    with pytest.raises(SettingsError, match="No such configuration property"):
        open_consumer({**NO_SHARD, "no.such.thing": "1"}, "test")
    with pytest.raises(SecretUnresolved):
        open_consumer({**NO_SHARD, "sasl.password": "${env:CDC_NOT_SET_ANYWHERE}"}, "test")


def test_records_of_one_partition_end_where_they_should(kafka: dict[str, str], topic: str) -> None:
    records = TopicRecords(kafka, topic, timeout=10)
    assert [list(batch.values) for batch in records.read(1, 1, 4)] == [[b"1-1", b"1-2", b"1-3"]]
    assert records.fetch(1, [0, 4]) == {0: (b"1", b"1-0"), 4: (b"1", b"1-4")}
    records.close()


def test_a_record_that_never_comes_ends_the_reading_of_a_partition(kafka: dict[str, str], topic: str) -> None:
    records = TopicRecords(kafka, topic, timeout=0.5)
    found: list[bytes | None] = []
    with pytest.raises(KafkaUnavailable, match="partition 0 was not read to its end"):
        for batch in records.read(0, 0, 4):
            found += batch.values
    assert found == [b"0-0", b"0-1", b"0-2"]
    records.close()


def test_heartbeats_in_several_partitions_are_one_shards(
    kafka: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The mock brokers do not look up offsets by time.
    monkeypatch.setattr(heartbeats, "offsets_at", lambda consumer, topic, times, end: dict.fromkeys(times, 0))
    topic = f"beats-{secrets.token_hex(4)}"
    key = b'{"serverName":"pins.00000"}'
    sent = [OutgoingRecord(topic=topic, key=key, value=b"{}", partition=p, headers={"cdc.worker": "w"}) for p in (0, 2)]
    RecordSender(kafka, timeout=10).send(sent, "send")
    beats = HeartbeatTopic(kafka, topic, timeout=10)
    for _ in range(2):
        seen = beats.read(timedelta(minutes=1))
        assert set(seen.beats) == {"pins.00000"} and set(seen.beats["pins.00000"].senders) == {"w"}
    beats.close()


def test_notifications_go_on_where_they_were(kafka: dict[str, str]) -> None:
    topic = f"notes-{secrets.token_hex(4)}"

    def note(number: int) -> None:
        value = (
            f'{{"id":"{number}","type":"STARTED","aggregate_type":"{INCREMENTAL}",'
            '"additional_data":{"connector_name":"pins.00000"}}'
        )
        RecordSender(kafka, timeout=10).send([OutgoingRecord(topic=topic, key="k", value=value.encode())], "send")

    note(1)
    notes = Notifications(kafka, topic, datetime.now(UTC), timeout=10)
    assert notes.read() == []
    note(2)
    notes.close()
    note(3)
    assert [found.id for found in notes.read()] == ["2", "3"]
    assert notes.read() == []
    notes.close()


def test_records_that_no_broker_takes_are_unavailable_in_time() -> None:
    begun = time.monotonic()
    with pytest.raises(KafkaUnavailable, match="send it"):
        RecordSender(NO_SHARD, timeout=1.0).send([OutgoingRecord(topic="t", key="k", value=b"v")], "send it")
    assert time.monotonic() - begun < 10
