"""The one place that builds clients from settings."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime

from cdc_platform.clients.connect import ConnectClient
from cdc_platform.clients.heartbeats import HeartbeatTopic
from cdc_platform.clients.kafka import KafkaAdmin
from cdc_platform.clients.notifications import Notifications
from cdc_platform.clients.notifiers import AppriseNotifiers
from cdc_platform.clients.platform import Platform
from cdc_platform.clients.protocols import Connect
from cdc_platform.clients.quotas import ClientQuotas
from cdc_platform.clients.schema_history import SchemaHistories
from cdc_platform.clients.signals import SignalTopics
from cdc_platform.clients.source_logs import RealSourceLogs
from cdc_platform.clients.sources.opening import open_source
from cdc_platform.clients.sources.protocol import Source
from cdc_platform.clients.state_topic import StateTopic
from cdc_platform.clients.topic_records import Records, TopicRecords
from cdc_platform.clients.worker_metrics import WorkerMetrics
from cdc_platform.clients.zookeeper import ZooKeeperTopologyStore
from cdc_platform.connectors.identity import notification_topic
from cdc_platform.outbox import AlertOutside
from cdc_platform.settings import Settings
from cdc_platform.snapshots.outside import Outside
from cdc_platform.topology import Cluster, Dataset, Shard, Table
from cdc_platform.verification.outside import Outside as VerificationOutside
from cdc_platform.verification.outside import Policy


def topology_store(settings: Settings) -> ZooKeeperTopologyStore:
    """ZooKeeper alone, for commands that need nothing else."""
    return ZooKeeperTopologyStore(settings.zookeeper, root=settings.zookeeper_root)


def state_store(settings: Settings) -> StateTopic:
    """The state topic alone."""
    return StateTopic(settings.kafka, settings.state_topic, platform=settings.platform)


@contextmanager
def open_platform(settings: Settings) -> Iterator[Platform]:
    """All clients of the platform; closed at the end. Nothing is connected before it is used."""
    store = topology_store(settings)
    kafka = KafkaAdmin(settings.kafka)
    state = state_store(settings)
    heartbeats = HeartbeatTopic(settings.kafka, settings.heartbeat_topic)
    metrics = WorkerMetrics()
    clients: dict[tuple[str, tuple[str, ...]], ConnectClient] = {}
    making = threading.Lock()

    def connect(cluster: Cluster) -> Connect:
        key = (cluster.name, cluster.urls)
        with making:
            if key not in clients:
                clients[key] = ConnectClient(cluster.name, cluster.urls, timeout=settings.connect_timeout)
            return clients[key]

    try:
        yield Platform(
            settings=settings,
            topology=store,
            kafka=kafka,
            state=state,
            connect=connect,
            heartbeats=heartbeats,
            metrics=metrics,
        )
    finally:
        for client in clients.values():
            client.close()
        metrics.close()
        heartbeats.close()
        state.close()
        store.close()


@contextmanager
def open_snapshots(platform: Platform) -> Iterator[Outside]:
    """What bootstraps and backfills need beyond a pass; closed at the end, `platform` stays open."""
    settings = platform.settings
    with ExitStack() as cleanup:

        def writer(name: str) -> StateTopic:
            made = StateTopic(settings.kafka, settings.state_topic, platform=settings.platform, writer=name)
            cleanup.callback(made.close)
            return made

        def notifications(since: datetime) -> Notifications:
            made = Notifications(settings.kafka, notification_topic(settings), since)
            cleanup.callback(made.close)
            return made

        rates = ClientQuotas(settings.kafka)
        cleanup.callback(rates.close)
        yield Outside(
            platform=platform,
            signals=SignalTopics(settings.kafka),
            writer=writer,
            notifications=notifications,
            histories=SchemaHistories(settings.kafka),
            sources=RealSourceLogs(),
            rates=rates,
        )


def verification_of(platform: Platform) -> VerificationOutside:
    """What a verification needs beyond a pass. It closes what it opens; `platform` stays open."""
    settings = platform.settings

    def records(topic: str) -> Records:
        return TopicRecords(settings.kafka, topic)

    def source(dataset: Dataset, shard: Shard, table: Table) -> Source:
        policy = Policy.of(dataset)
        return open_source(
            dataset,
            shard,
            table,
            timeout=policy.source_seconds,
            replicas=policy.replicas,
            ignored=policy.ignore_columns,
        )

    return VerificationOutside(platform=platform, records=records, source=source)


@contextmanager
def open_alerts(platform: Platform) -> Iterator[AlertOutside]:
    """What telling people needs beyond a pass; closed at the end, `platform` stays open."""
    settings = platform.settings
    store = StateTopic(settings.kafka, settings.state_topic, platform=settings.platform, writer="alerts")
    try:
        yield AlertOutside(platform=platform, store=store, notifiers=AppriseNotifiers(targets=settings.alerts))
    finally:
        store.close()


def traced_records(platform: Platform) -> Callable[[str], Records]:
    """Topic to a reader of its records with headers and times."""
    return lambda topic: TopicRecords(platform.settings.kafka, topic, traced=True)
