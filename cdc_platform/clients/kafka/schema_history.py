"""The schema history topics of binlog connectors: cleared when a connector starts anew.

Records at later positions than the new start would be applied to the wrong events, so
none may stay. The topic is emptied, not deleted (KIP-204): Debezium takes an empty one for none
(KafkaSchemaHistory.exists), and nobody can meet a moment without it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import TimeoutError as FutureTimeout

from confluent_kafka import OFFSET_END, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from cdc_platform.clients.kafka.librdkafka import bad_settings, configuration, log, translated
from cdc_platform.errors import CdcError


class SchemaHistories:
    """Empties schema history topics. Safe to call from many threads.

    Args:
        config: a librdkafka configuration; values may be references.
        timeout: seconds for each call as a whole.
    """

    def __init__(self, config: Mapping[str, str], *, timeout: float = 30.0) -> None:
        self._config = dict(config)
        self._timeout = timeout
        self._servers = config.get("bootstrap.servers", "(no bootstrap.servers)")

    def clear(self, topics: Collection[str]) -> None:
        """Remove all records of these topics; one that does not exist is empty already.

        Raises:
            KafkaUnavailable, KafkaRejected: at least one may still hold records.
        """
        if not topics:
            return
        try:
            client = AdminClient(configuration(self._config, {}), logger=log)
        except (KafkaException, CdcError, ValueError, TypeError) as error:
            raise bad_settings(error) from None
        asked = [TopicPartition(topic, 0, OFFSET_END) for topic in sorted(set(topics))]
        try:
            answers = client.delete_records(asked, request_timeout=self._timeout, operation_timeout=self._timeout)
            for part, answer in answers.items():
                try:
                    answer.result(timeout=self._timeout + 1.0)
                except KafkaException as error:
                    if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                        raise translated(error, f"clear {part.topic}", self._servers) from None
                except FutureTimeout:
                    late = KafkaException(KafkaError(KafkaError._TIMED_OUT))
                    raise translated(late, f"clear {part.topic}", self._servers) from None
        except KafkaException as error:
            raise translated(error, "clear schema histories", self._servers) from None
