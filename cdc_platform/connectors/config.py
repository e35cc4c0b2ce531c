"""The desired configuration of a shard's connector: a pure function of topology and settings.

Equal input gives an equal config, key by key: the planner compares it with what
runs, and a needless difference would bounce thousands of connectors.
"""

from __future__ import annotations

from collections.abc import Mapping

from cdc_platform.connectors import routing
from cdc_platform.connectors.engines import ddl_filter
from cdc_platform.connectors.engines.registry import ENGINES, wire_format
from cdc_platform.connectors.identity import check, history_topic_of, identity, notification_topic
from cdc_platform.connectors.leader_files import HOST, PORT, leader_reference
from cdc_platform.connectors.overrides import check_dataset, check_shard
from cdc_platform.connectors.routing import HEARTBEAT_PREFIX
from cdc_platform.connectors.shared_databases import shared_database_problems
from cdc_platform.connectors.source_servers import tls_options
from cdc_platform.connectors.tables import INCLUDE_LIST, MESSAGE_KEYS, include_list, message_keys
from cdc_platform.connectors.topic_ownership import topic_problems
from cdc_platform.errors import OverrideRefused, SettingsError
from cdc_platform.model.naming import ShardName
from cdc_platform.model.observed import CLUSTER_KEY, OWNER_KEY
from cdc_platform.model.secret_references import is_secret_in_plain_text
from cdc_platform.model.topology import BootstrapMode, Cluster, Dataset, Problem, Shard, Topology
from cdc_platform.settings import Settings


class DesiredConfigs:
    """Builds configs; keeps what the shards of a dataset share. Not thread-safe.

    Callable as the planner's `config_of`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._datasets: dict[str, tuple[Dataset, dict[str, str]]] = {}
        _check_worker_kafka(settings)

    def __call__(self, dataset: Dataset, shard: Shard, cluster: Cluster) -> dict[str, str]:
        """The config of one connector. Raises OverrideRefused."""
        known = self._datasets.get(dataset.name)
        if known is None or known[0] is not dataset:
            check_dataset(dataset, self._settings)
            known = (dataset, _dataset_part(self._settings, dataset))
            self._datasets[dataset.name] = known
        check_shard(dataset, shard, self._settings)
        config = {
            **known[1],
            **_shard_part(self._settings, dataset, shard, cluster),
            **dataset.connector,
            **shard.connector,
        }
        own = known[1].get(ddl_filter.OPTION)
        if own is not None:
            more = (overrides.get(ddl_filter.OPTION) for overrides in (dataset.connector, shard.connector))
            config[ddl_filter.OPTION] = ddl_filter.with_more(own, *more)
        return config


def desired_config(dataset: Dataset, shard: Shard, cluster: Cluster, settings: Settings) -> dict[str, str]:
    """The config of one connector in that cluster.

    Holds references where secrets and leader addresses belong, so it does not
    change with either.

    Raises:
        OverrideRefused: names dataset or shard, field and cure.
        SettingsError: `worker_kafka` holds a secret in plain text.
    """
    return DesiredConfigs(settings)(dataset, shard, cluster)


def problems(topology: Topology, settings: Settings) -> tuple[Problem, ...]:
    """Datasets and shards that must be left alone: names that collide, overrides that are refused."""
    return (
        *check(topology, settings),
        *shared_database_problems(topology),
        *topic_problems(topology, settings),
        *_override_problems(topology, settings),
    )


def _override_problems(topology: Topology, settings: Settings) -> tuple[Problem, ...]:
    problems: list[Problem] = []
    for dataset in topology.datasets.values():
        try:
            check_dataset(dataset, settings)
        except OverrideRefused as error:
            problems.append(Problem("dataset", dataset.name, str(error)))
    for dataset, shard in topology.all_shards():
        try:
            check_shard(dataset, shard, settings)
        except OverrideRefused as error:
            problems.append(Problem("shard", shard.name, str(error)))
    return tuple(problems)


def leftovers(settings: Settings, name: str, config: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What stays behind when the connector `name` is deleted, read from its own config.

    Who can write a connector's config would otherwise choose which topic is deleted: only the history topic
    that the platform itself derives from the connector's name goes.

    Returns:
        Topics to delete with it, and sentences on what an operator must remove at the source.
    """
    own = history_topic_of(settings, ShardName.parse(name))
    for facts in ENGINES.values():
        if facts.connector_class == config.get("connector.class"):
            topics, sentences = facts.leftovers(name, config)
            others = (f"topic {t!r}, named by {name}, which the platform did not name" for t in topics if t != own)
            return tuple(topic for topic in topics if topic == own), (*sentences, *others)
    return (), ()


def _dataset_part(settings: Settings, dataset: Dataset) -> dict[str, str]:
    limits = dataset.limits
    kafka = settings.connect_kafka
    return {
        OWNER_KEY: settings.platform,
        "connector.class": ENGINES[dataset.engine].connector_class,
        "tasks.max": "1",
        # Resolved secrets and leaders have no lifetime: who changes them restarts the task.
        "config.action.reload": "none",
        "database.user": dataset.credentials.user,
        "database.password": dataset.credentials.password,
        "snapshot.mode": "initial" if dataset.bootstrap is BootstrapMode.SNAPSHOT else "no_data",
        "incremental.snapshot.chunk.size": "2048",
        "max.queue.size": str(limits.queue_events),
        "max.queue.size.in.bytes": str(limits.queue_bytes),
        "max.batch.size": str(limits.batch_events),
        "topic.heartbeat.prefix": HEARTBEAT_PREFIX,
        "signal.enabled.channels": "kafka",
        "signal.poll.interval.ms": "2000",
        "signal.kafka.bootstrap.servers": kafka["bootstrap.servers"],
        # Otherwise a commit every 5 s for each idle connector. A signal may be read twice.
        "signal.consumer.auto.commit.interval.ms": "30000",
        **{f"signal.consumer.{name}": value for name, value in kafka.items() if name != "bootstrap.servers"},
        "notification.enabled.channels": "sink",
        "notification.sink.topic.name": notification_topic(settings),
        # A retry inside the task keeps the old leader's address and hides from REST that the source is
        # down: bounded where Debezium counts them, and shorter than a graceful stop.
        "errors.max.retries": "10",
        "retriable.restart.connector.wait.ms": "2000",
        "producer.override.acks": "all",
        "producer.override.enable.idempotence": "true",
        "producer.override.compression.type": "lz4",
        "producer.override.buffer.memory": str(limits.producer_buffer_bytes),
        "producer.override.max.request.size": str(limits.producer_buffer_bytes),
        # Connect's default is for ever: a missing topic would hang the task without a word.
        "producer.override.max.block.ms": "60000",
        **wire_format(dataset.engine),
        **routing.dataset_part(settings, dataset),
        **ENGINES[dataset.engine].dataset_options(dataset),
        **tls_options(dataset.engine, settings),
    }


def _shard_part(settings: Settings, dataset: Dataset, shard: Shard, cluster: Cluster) -> dict[str, str]:
    own = identity(settings, dataset, shard)
    config = {
        CLUSTER_KEY: cluster.name,
        "topic.prefix": own.connector,
        "database.hostname": leader_reference(cluster, shard, HOST),
        "database.port": leader_reference(cluster, shard, PORT),
        INCLUDE_LIST: include_list(dataset, shard),
        "signal.kafka.topic": own.signal_topic,
        "signal.kafka.groupId": own.signal_consumer_group,
        **routing.shard_part(dataset, shard),
    }
    keys = message_keys(dataset, shard)
    if keys is not None:
        config[MESSAGE_KEYS] = keys
    return config | ENGINES[dataset.engine].shard_options(settings, shard, own)


def _check_worker_kafka(settings: Settings) -> None:
    for name, value in settings.worker_kafka.items():
        if is_secret_in_plain_text(name, value):
            raise SettingsError(
                "looks like a secret, but is not a reference (its value is not shown here).",
                where="settings",
                field=f"worker_kafka.{name}",
                cure="Write ${file:/PATH:KEY}: the workers resolve it.",
            )
