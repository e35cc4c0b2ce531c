"""With the ready ACL lists each forbidden act fails on the server; the package's other tests work under them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from cdc_platform.local.stack import Stack
from cdc_platform.local.stack_security import Security
from tests.security import acl_lists
from tests.security.conftest import SecurePlatform

pytestmark = [pytest.mark.stack, pytest.mark.slow]

REFUSED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
}


def _write(config: dict[str, str], topic: str) -> None:
    problems: list[Any] = []
    producer = Producer({**config, "message.timeout.ms": "15000"})
    producer.produce(topic, b"forged", key=b"forged", on_delivery=lambda error, _: problems.append(error))
    producer.flush(20)
    if problems[0] is not None:
        raise KafkaException(problems[0])


def _read(config: dict[str, str], topic: str, partitions: int = 1) -> None:
    consumer = Consumer({**config, "group.id": "cdc-consumer-1", "auto.offset.reset": "earliest"})
    try:
        known = consumer.list_topics(topic, timeout=20).topics[topic]
        if known.error is not None:
            raise KafkaException(known.error)
        consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
        found = consumer.poll(60)
        if found is not None and found.error():
            raise KafkaException(found.error())
        assert found is not None, "there is a record to read"
    finally:
        consumer.close()


def _admin(config: dict[str, str], ask: Callable[[AdminClient], dict[Any, Any]]) -> None:
    admin = AdminClient({**config})
    for waiting in ask(admin).values():
        waiting.result(20)


def test_each_forbidden_act_fails_on_the_server(secure: SecurePlatform) -> None:
    stack: Stack = secure.stack
    logins = Security(stack.directory).logins
    worker = acl_lists.client(stack, logins["kafka-worker"].user, logins["kafka-worker"].password)
    consumer = acl_lists.client(stack, acl_lists.CONSUMER, acl_lists.PASSWORD)
    platform = dict(stack.kafka_client)
    assert secure.cli("apply").exit_code in (0, 2), secure.outputs[-1]
    data = secure.shards[0][0].topic(secure.shards[0][0].tables[0])
    state = stack.settings().state_topic
    configs = f"cdc-connect-{stack.cluster().name}-configs"
    secure.assert_eventually(lambda: secure.cli("plan").exit_code == 0, "topics and connectors are there")
    entry = ConfigEntry("retention.ms", "1", incremental_operation=AlterConfigOpType.SET)
    changed = ConfigResource(ResourceType.TOPIC, data, incremental_configs=[entry])
    forbidden: dict[str, Callable[[], None]] = {
        "a worker writes state": lambda: _write(worker, state),
        "a worker reads state": lambda: _read(worker, state),
        "a worker makes a topic": lambda: _admin(worker, lambda a: a.create_topics([NewTopic("cdc.forged", 1, 1)])),
        "a worker deletes a topic": lambda: _admin(worker, lambda a: a.delete_topics([data])),
        "a worker changes a topic": lambda: _admin(worker, lambda a: a.incremental_alter_configs([changed])),
        "a consumer writes data": lambda: _write(consumer, data),
        "a consumer reads state": lambda: _read(consumer, state),
        "a consumer deletes a topic": lambda: _admin(consumer, lambda a: a.delete_topics([data])),
        "a consumer reads Connect's configs": lambda: _read(consumer, configs),
        "the platform deletes Connect's topic": lambda: _admin(platform, lambda a: a.delete_topics([configs])),
    }
    for act, attempt in forbidden.items():
        with pytest.raises(KafkaException) as caught:
            attempt()
        assert caught.value.args[0].code() in REFUSED, (act, caught.value)
    # And what each is for goes on.
    _read(consumer, data, 2)
    _read(platform, state)
