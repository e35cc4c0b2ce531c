"""The brokers' admin side through confluent-kafka."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, TypeVar

from confluent_kafka import OFFSET_END, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    NewTopic,
)

from cdc_platform.clients.kafka import topic_contents
from cdc_platform.clients.kafka.librdkafka import open_client, remaining, servers_of, timed_out, translated
from cdc_platform.errors import CdcError, KafkaRejected, KafkaUnavailable
from cdc_platform.model.observed import ObservedTopic, TopicExtent, TopicRequest

K = TypeVar("K")
V = TypeVar("V")

# A broker answers one request after the other on a connection, and an answer
# has some 35 entries a topic: more than this at once only grows the answer.
_TOPICS_A_REQUEST = 250
# A KRaft controller refuses a request that makes more than 10,000 records
# (QuorumController.MAX_RECORDS_PER_USER_OP): one for the topic, each partition and each config entry.
_RECORDS_A_REQUEST = 5_000
# Of many failed names so many are shown.
_SHOWN = 10
# Requests in flight; the answers are unpacked by one interpreter anyway.
_REQUESTS_AT_ONCE = 4


class KafkaAdmin:
    """Topics of one Kafka cluster; satisfies `protocols.Kafka`. Safe to call from many threads.

    Nothing is connected before the first call. Each call has a deadline of
    `timeout` seconds.

    Args:
        config: a librdkafka configuration; values may be `${file:...}` and `${env:...}` references.
        timeout: seconds for each call as a whole.
    """

    def __init__(self, config: Mapping[str, str], timeout: float = 30.0) -> None:
        self._config = dict(config)
        self._timeout = timeout
        self._servers = servers_of(config)
        self._lock = threading.Lock()
        self._client: AdminClient | None = None
        self._last_problem: str | None = None

    def cluster_id(self, timeout: float | None = None) -> str:
        """The id of the Kafka cluster, as Connect's `GET /` shows it too."""
        answer = self._ask(
            "describe the cluster",
            lambda client, seconds: {"": client.describe_cluster(request_timeout=seconds)},
            time.monotonic() + (timeout or self._timeout),
        )[""]
        if isinstance(answer, KafkaException):
            raise self._translated(answer, "describe the cluster")
        return str(answer.cluster_id)

    def brokers(self) -> int:
        """How many brokers are up."""
        return len(self._metadata(time.monotonic() + self._timeout).brokers)

    def topics(
        self, names: Collection[str] | None = None, configs_of: Collection[str] | None = None
    ) -> Mapping[str, ObservedTopic]:
        """Topics with partitions, replication and non-default config.

        Only those of `names`, where given; a name without a topic is left out.
        With `configs_of` only these have their config, the others None: an answer
        holds 35 entries a topic, 0.3 ms of CPU, so ask only for what is compared.
        """
        end = time.monotonic() + self._timeout
        found = {
            name: topic
            for name, topic in self._metadata(end).topics.items()
            if (names is None or name in names) and topic.error is None and topic.partitions
        }
        asked = frozenset(found if configs_of is None else configs_of) & found.keys()
        configs = self._configs(sorted(asked), end)
        return {
            name: ObservedTopic(
                name=name,
                partitions=len(topic.partitions),
                replication=min(len(partition.replicas) for partition in topic.partitions.values()),
                config=configs.get(name),
            )
            for name, topic in found.items()
            # One that went away meanwhile is left out.
            if name in configs or name not in asked
        }

    def create_topics(self, requests: Sequence[TopicRequest]) -> Mapping[str, CdcError]:
        """Create; a topic that exists already is no error, however it is made.

        Returns:
            Those that could not be made, each with its KafkaRejected or KafkaUnavailable; the others are.
        """
        problems: dict[str, CdcError] = {}
        for batch in _topic_batches(requests):
            try:
                problems |= self._create_topics(batch)
            except (KafkaRejected, KafkaUnavailable) as error:
                problems |= dict.fromkeys((request.name for request in batch), error)
        return problems

    def _create_topics(self, requests: Sequence[TopicRequest]) -> dict[str, CdcError]:
        new = [
            NewTopic(
                request.name,
                num_partitions=request.partitions,
                replication_factor=request.replication,
                config=dict(request.config),
            )
            for request in requests
        ]
        return self._failed(
            "create topic", lambda client, seconds: client.create_topics(new, **_timeouts(seconds)), _exists
        )

    def add_partitions(self, topic: str, total: int) -> None:
        """Grow the topic to `total` partitions; it is no error when it has as many. Raises KafkaRejected."""

        def has_them(error: KafkaError) -> bool:
            return error.code() == KafkaError.INVALID_PARTITIONS and self._partitions(topic) == total

        self._each(
            "add partitions to topic",
            lambda client, seconds: client.create_partitions([NewPartitions(topic, total)], **_timeouts(seconds)),
            has_them,
        )

    def alter_topic_config(self, topic: str, changes: Mapping[str, str | None]) -> None:
        """Set config entries; None returns one to the broker's default. All or none (KIP-339)."""
        if not changes:
            return
        entries = [
            ConfigEntry(
                key,
                value,
                incremental_operation=AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET,
            )
            for key, value in changes.items()
        ]
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
        self._each(
            "alter config of topic",
            lambda client, seconds: client.incremental_alter_configs([resource], request_timeout=seconds),
        )

    def delete_topics(self, names: Sequence[str]) -> None:
        """Delete; a topic that is gone already is no error. Brokers forget them a little later."""
        if not names:
            return
        self._each(
            "delete topic", lambda client, seconds: client.delete_topics(list(names), **_timeouts(seconds)), _gone
        )

    def clear_topics(self, names: Collection[str]) -> None:
        """Remove all records of these topics' partition 0 (KIP-204); one that does not exist is empty already.

        Raises:
            KafkaUnavailable, KafkaRejected: at least one may still hold records.
        """
        asked = [TopicPartition(name, 0, OFFSET_END) for name in sorted(set(names))]
        if asked:
            self._each("clear topic", lambda client, seconds: client.delete_records(asked, **_timeouts(seconds)), _gone)

    def extents(self, names: Sequence[str]) -> Mapping[str, TopicExtent]:
        """How much is in these topics. A topic that does not exist, or whose leader is away, is absent."""
        end = time.monotonic() + self._timeout
        return topic_contents.extents(self._ask, self._sizes(names, end), end)

    def samples(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """One recent value of each of these topics; a topic without one near its end is absent."""
        end = time.monotonic() + self._timeout
        return topic_contents.samples(self._ask, self._config, self._sizes(names, end), end)

    def _sizes(self, names: Sequence[str], end: float) -> dict[str, int]:
        known = self._metadata(end).topics
        return {name: len(known[name].partitions) for name in dict.fromkeys(names) if name in known}

    def _metadata(self, end: float) -> Any:
        client = self._admin()
        try:
            return client.list_topics(timeout=remaining(end))
        except KafkaException as error:
            raise self._translated(error, "list topics") from None
        finally:
            client.poll(0)

    def _partitions(self, topic: str) -> int | None:
        found = self._metadata(time.monotonic() + self._timeout).topics.get(topic)
        return len(found.partitions) if found else None

    def _configs(self, names: Sequence[str], end: float) -> dict[str, dict[str, str]]:
        """What differs from the brokers' defaults. A topic that went away meanwhile is left out."""
        batches = [names[at : at + _TOPICS_A_REQUEST] for at in range(0, len(names), _TOPICS_A_REQUEST)]
        found: dict[str, dict[str, str]] = {}
        if not batches:
            return found
        with ThreadPoolExecutor(_REQUESTS_AT_ONCE, thread_name_prefix="describe-configs") as pool:
            for described in pool.map(lambda batch: self._describe(batch, end), batches):
                found.update(described)
        return found

    def _describe(self, names: Sequence[str], end: float) -> dict[str, dict[str, str]]:
        resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
        answers = self._ask(
            "describe configs",
            lambda client, seconds: client.describe_configs(resources, request_timeout=seconds),
            end,
        )
        found = {}
        for resource, answer in answers.items():
            if isinstance(answer, KafkaException):
                if _gone(answer.args[0]):
                    continue
                raise self._translated(answer, f"describe config of topic {resource.name}")
            found[resource.name] = {
                entry.name: entry.value
                for entry in answer.values()
                if entry.source == ConfigSource.DYNAMIC_TOPIC_CONFIG.value and entry.value is not None
            }
        return found

    def _each(
        self,
        what: str,
        call: Callable[[AdminClient, float], Mapping[Any, Future[Any]]],
        fine: Callable[[KafkaError], bool] = lambda error: False,
    ) -> None:
        """Make one request for many names; raises what says of each that failed why."""
        problems = list(self._failed(what, call, fine).values())
        if len(problems) == 1:
            raise problems[0]
        if problems:
            kind = KafkaUnavailable if all(isinstance(p, KafkaUnavailable) for p in problems) else KafkaRejected
            more = f" And {len(problems) - _SHOWN} more." if len(problems) > _SHOWN else ""
            raise kind(" ".join(problem.message for problem in problems[:_SHOWN]) + more, where=problems[0].where)

    def _failed(
        self,
        what: str,
        call: Callable[[AdminClient, float], Mapping[Any, Future[Any]]],
        fine: Callable[[KafkaError], bool],
    ) -> dict[str, CdcError]:
        """Make one request for many names; those that failed, each with its error."""
        answers = self._ask(what, call, time.monotonic() + self._timeout)
        return {
            _name(key): self._translated(answer, f"{what} {_name(key)}")
            for key, answer in answers.items()
            if isinstance(answer, KafkaException) and not fine(answer.args[0])
        }

    def _ask(
        self, what: str, call: Callable[[AdminClient, float], Mapping[K, Future[V]]], end: float
    ) -> dict[K, V | KafkaException]:
        # The client must stay referenced while futures are open.
        client = self._admin()
        answers: dict[K, V | KafkaException] = {}
        try:
            for key, future in call(client, remaining(end)).items():
                try:
                    answers[key] = future.result(timeout=remaining(end) + 1.0)
                except KafkaException as error:
                    answers[key] = error
                except FutureTimeout:
                    answers[key] = timed_out()
        except KafkaException as error:
            raise self._translated(error, what) from None
        except (ValueError, TypeError) as error:
            raise KafkaRejected(f"{what}: {error}.", where=f"Kafka {self._servers}") from None
        finally:
            client.poll(0)
        return answers

    def _admin(self) -> AdminClient:
        with self._lock:
            if self._client is None:
                self._client = open_client(AdminClient, self._config, {"error_cb": self._on_error})
            return self._client

    def _on_error(self, error: KafkaError) -> None:
        self._last_problem = error.str()

    def _translated(self, error: Exception, what: str) -> CdcError:
        if self._client is not None:
            self._client.poll(0)  # hands over logs and what went wrong below
        found = translated(error, what, self._servers)
        if isinstance(found, KafkaUnavailable) and self._last_problem:
            return KafkaUnavailable(f"{found.message} Last: {self._last_problem}", where=found.where, cure=found.cure)
        return found


def _name(key: Any) -> str:
    """The topic of a request's key: text, a ConfigResource or a TopicPartition."""
    return str(getattr(key, "name", None) or getattr(key, "topic", None) or key)


def _timeouts(seconds: float) -> dict[str, float]:
    """The broker's own time-out below ours, so that its answer arrives."""
    return {"request_timeout": seconds, "operation_timeout": max(0.1, seconds - 1.0)}


def _exists(error: KafkaError) -> bool:
    return bool(error.code() == KafkaError.TOPIC_ALREADY_EXISTS)


def _gone(error: KafkaError) -> bool:
    return bool(error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART)


def _topic_batches(requests: Sequence[TopicRequest]) -> Iterator[list[TopicRequest]]:
    batch: list[TopicRequest] = []
    records = 0
    for request in requests:
        own = 1 + request.partitions + len(request.config)
        if batch and records + own > _RECORDS_A_REQUEST:
            yield batch
            batch, records = [], 0
        batch.append(request)
        records += own
    if batch:
        yield batch
