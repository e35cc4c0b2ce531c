"""The one place that builds clients from settings."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime

from cdc_platform.alerting.outbox import AlertPorts
from cdc_platform.clients.connect.client import ConnectClient
from cdc_platform.clients.connect.http import trusting
from cdc_platform.clients.connect.worker_metrics import WorkerMetrics
from cdc_platform.clients.kafka.admin import KafkaAdmin
from cdc_platform.clients.kafka.heartbeats import HeartbeatTopic
from cdc_platform.clients.kafka.live_keys import live_keys
from cdc_platform.clients.kafka.notifications import Notifications
from cdc_platform.clients.kafka.offset_history import OffsetTopics
from cdc_platform.clients.kafka.signals import SignalTopics
from cdc_platform.clients.kafka.state_topic import StateTopic
from cdc_platform.clients.kafka.topic_records import Records, TopicRecords
from cdc_platform.clients.notifiers import AppriseNotifiers
from cdc_platform.clients.platform import Platform
from cdc_platform.clients.protocols import Connect
from cdc_platform.clients.secrets import login
from cdc_platform.clients.sources.catalog import RealCatalog
from cdc_platform.clients.sources.examiner import RealExaminer
from cdc_platform.clients.sources.leader_servers import LeaderServers
from cdc_platform.clients.sources.logs import RealSourceLogs
from cdc_platform.clients.sources.open_source import open_source
from cdc_platform.clients.sources.source import Source
from cdc_platform.clients.sources.source_facts import RealSourceFacts
from cdc_platform.clients.sources.source_rules import SourceRules
from cdc_platform.clients.zookeeper.topology_store import ZooKeeperTopologyStore
from cdc_platform.connectors.identity import notification_topic
from cdc_platform.errors import KafkaRejected, KafkaUnavailable, require_extra
from cdc_platform.failover.change_leader import LeaderPorts
from cdc_platform.model.topology import Cluster, Dataset, Shard, Table
from cdc_platform.settings import Settings
from cdc_platform.snapshots.ports import Rates, SnapshotPorts
from cdc_platform.verification.continuity.ledger import LedgerPorts
from cdc_platform.verification.ports import VerificationPolicy, VerificationPorts

log = logging.getLogger(__name__)

# Connect clusters can be looked at without Kafka: they do not wait for it for long, nor often.
_KAFKA_ID_SECONDS = 5.0
_KAFKA_ID_RETRY_SECONDS = 60.0


def topology_store(settings: Settings) -> ZooKeeperTopologyStore:
    """ZooKeeper alone, for commands that need nothing else."""
    auth = login(settings.zookeeper_user, settings.zookeeper_password)
    return ZooKeeperTopologyStore(
        settings.zookeeper,
        root=settings.zookeeper_root,
        auth=auth,
        readers=settings.zookeeper_readers,
        ca=settings.zookeeper_ca,
    )


def connect_client(settings: Settings, name: str, urls: Sequence[str], kafka_id: str | None = None) -> ConnectClient:
    """A client of one Connect cluster. Raises SecretUnresolved, SettingsError."""
    own = settings.connect_logins.get(name)
    user, password = (own.user, own.password) if own else (settings.connect_user, settings.connect_password)
    return ConnectClient(
        name,
        urls,
        timeout=settings.connect_timeout,
        auth=login(user, password),
        hosts=settings.connect_hosts,
        kafka_cluster_id=kafka_id,
        verify=trusting(settings.connect_ca),
    )


def state_store(settings: Settings) -> StateTopic:
    """The state topic alone."""
    return StateTopic(settings.kafka, settings.state_topic, platform=settings.platform)


def examiner_of(settings: Settings) -> RealExaminer:
    """The doctor's eyes: sources alone."""
    return RealExaminer(secrets_dirs=settings.secrets_dirs, rules=SourceRules.of(settings))


def catalog_of(settings: Settings) -> RealCatalog:
    """What source servers say of the captured tables."""
    return RealCatalog(secrets_dirs=settings.secrets_dirs, rules=SourceRules.of(settings))


@contextmanager
def open_platform(settings: Settings) -> Iterator[Platform]:
    """All clients of the platform; closed at the end. Nothing is connected before it is used."""
    store = topology_store(settings)
    kafka = KafkaAdmin(settings.kafka)
    state = state_store(settings)
    heartbeats = HeartbeatTopic(settings.kafka, settings.heartbeat_topic)
    metrics = WorkerMetrics(hosts=settings.connect_hosts)
    connect = _Connects(settings, _OurKafka(kafka))
    try:
        yield Platform(
            settings=settings,
            topology=store,
            kafka=kafka,
            state=state,
            connect=connect,
            heartbeats=heartbeats,
            metrics=metrics,
            sources=RealSourceLogs(secrets_dirs=settings.secrets_dirs, rules=SourceRules.of(settings)),
            facts=RealSourceFacts(secrets_dirs=settings.secrets_dirs, rules=SourceRules.of(settings)),
            histories=lambda topic: TopicRecords(settings.kafka, topic),
            examiner=examiner_of(settings),
        )
    finally:
        connect.close()
        metrics.close()
        heartbeats.close()
        state.close()
        store.close()


class _OurKafka:
    """The id of the platform's Kafka cluster, which the workers of each Connect cluster must belong to.

    None while Kafka does not answer: workers are then compared with each other only.
    """

    def __init__(self, kafka: KafkaAdmin) -> None:
        self._kafka = kafka
        self._id: str | None = None
        self._next_try = 0.0

    def __call__(self) -> str | None:
        if self._id is None and time.monotonic() >= self._next_try:
            try:
                self._id = self._kafka.cluster_id(_KAFKA_ID_SECONDS)
            except (KafkaUnavailable, KafkaRejected) as error:
                log.warning("which Kafka cluster is ours is not known: %s", error)
                self._next_try = time.monotonic() + _KAFKA_ID_RETRY_SECONDS
        return self._id


class _Connects:
    """One client for each Connect cluster, made when first asked for.

    `ours`: the Kafka cluster that its workers must belong to; None: not asked.
    """

    def __init__(self, settings: Settings, ours: _OurKafka | None = None) -> None:
        self._settings = settings
        self._ours = ours
        self._clients: dict[tuple[str, tuple[str, ...], str | None], ConnectClient] = {}
        self._making = threading.Lock()

    def __call__(self, cluster: Cluster) -> Connect:
        with self._making:
            key = (cluster.name, cluster.urls, self._ours() if self._ours else None)
            if key not in self._clients:
                self._clients[key] = connect_client(self._settings, cluster.name, cluster.urls, key[2])
            return self._clients[key]

    def close(self) -> None:
        for client in self._clients.values():
            client.close()


@contextmanager
def open_leaders(settings: Settings) -> Iterator[LeaderPorts]:
    """What moving leaders needs; closed at the end."""
    connect = _Connects(settings)
    try:
        yield LeaderPorts(
            settings=settings,
            servers=LeaderServers(timeout=5.0, secrets_dirs=settings.secrets_dirs, rules=SourceRules.of(settings)),
            connect=connect,
        )
    finally:
        connect.close()


@contextmanager
def open_snapshots(platform: Platform) -> Iterator[SnapshotPorts]:
    """What bootstraps and backfills need beyond a pass; closed at the end, `platform` stays open."""
    settings = platform.settings
    with ExitStack() as cleanup:

        def notifications(since: datetime) -> Notifications:
            made = Notifications(settings.kafka, notification_topic(settings), since)
            cleanup.callback(made.close)
            return made

        yield SnapshotPorts(
            platform=platform,
            signals=SignalTopics(settings.kafka),
            writer=_state_writers(settings, cleanup),
            notifications=notifications,
            histories=KafkaAdmin(settings.kafka),
            sources=RealSourceLogs(secrets_dirs=settings.secrets_dirs, rules=SourceRules.of(settings)),
            rates=_Rates(settings, cleanup),
            live_keys=lambda topic, since: live_keys(settings.kafka, topic, since),
        )


class _Rates:
    """Byte rates of producers. Its client comes with an extra, and so is imported when a rate is set."""

    def __init__(self, settings: Settings, cleanup: ExitStack) -> None:
        self._settings = settings
        self._cleanup = cleanup
        self._making = threading.Lock()
        self._client: Rates | None = None

    def set_rates(self, rates: Mapping[str, int | None]) -> None:
        with self._making:
            if self._client is None:
                require_extra("quotas")
                from cdc_platform.clients.kafka.quotas import ClientQuotas

                self._client = made = ClientQuotas(self._settings.kafka)
                self._cleanup.callback(made.close)
        self._client.set_rates(rates)


def verification_of(platform: Platform) -> VerificationPorts:
    """What a verification needs beyond a pass. It closes what it opens; `platform` stays open."""
    settings = platform.settings

    def records(topic: str) -> Records:
        return TopicRecords(settings.kafka, topic)

    def source(dataset: Dataset, shard: Shard, table: Table) -> Source:
        policy = VerificationPolicy.of(dataset)
        return open_source(
            dataset,
            shard,
            table,
            timeout=policy.source_seconds,
            replicas=policy.replicas,
            ignored=policy.ignore_columns,
            secrets_dirs=settings.secrets_dirs,
            rules=SourceRules.of(settings),
        )

    return VerificationPorts(platform=platform, records=records, source=source)


@contextmanager
def open_alerts(platform: Platform) -> Iterator[AlertPorts]:
    """What telling people needs beyond a pass; closed at the end, `platform` stays open.

    Raises:
        ExtraMissing: there are routes of alerts, and nothing that could send them; a watchdog needs no extra.
    """
    settings = platform.settings
    if any(not target.watchdog for target in settings.alerts.values()):
        require_extra("alerts")
    store = StateTopic(settings.kafka, settings.state_topic, platform=settings.platform, writer="alerts")
    try:
        yield AlertPorts(platform=platform, store=store, notifiers=AppriseNotifiers(targets=settings.alerts))
    finally:
        store.close()


@contextmanager
def open_ledger(platform: Platform) -> Iterator[LedgerPorts]:
    """What the continuity ledger needs beyond a pass; closed at the end, `platform` stays open."""
    settings = platform.settings
    with ExitStack() as cleanup:
        yield LedgerPorts(
            platform=platform,
            records=traced_records(platform),
            offsets=OffsetTopics(settings.kafka),
            store=_state_writers(settings, cleanup),
        )


@contextmanager
def open_windows(platform: Platform) -> Iterator[StateTopic]:
    """The writer of windows' boundaries; closed at the end, `platform` stays open."""
    with ExitStack() as cleanup:
        yield _state_writers(platform.settings, cleanup)("windows")


def _state_writers(settings: Settings, cleanup: ExitStack) -> Callable[[str], StateTopic]:
    """Name to a writer of the state topic that others of that name are fenced by; closed with `cleanup`."""

    def writer(name: str) -> StateTopic:
        made = StateTopic(settings.kafka, settings.state_topic, platform=settings.platform, writer=name)
        cleanup.callback(made.close)
        return made

    return writer


def traced_records(platform: Platform) -> Callable[[str], Records]:
    """Topic to a reader of its records with headers and times."""
    return lambda topic: TopicRecords(platform.settings.kafka, topic, traced=True)
