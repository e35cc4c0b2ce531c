"""What a pass writes into Dagster's event log.

One event costs Dagster 11 to 17 ms, serially, so nothing is written that says nothing new: a topic is materialized
when its end offsets moved, shards are observed when a dataset's health or connectors changed, and only a
shard that runs for the first time gets an event of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic, time

import dagster as dg

from cdc_platform.clients.platform import Platform
from cdc_platform.defs.deadline import within
from cdc_platform.defs.metadata import pass_metadata, shards_metadata, table_metadata
from cdc_platform.defs.partitions import sync_partitions
from cdc_platform.defs.sensor_cursor import ALL
from cdc_platform.defs.translator import CdcTableProps, CdcTranslator, platform_key, shards_key, table_props
from cdc_platform.defs.watched_assets import watched_observations
from cdc_platform.errors import CdcError, KafkaRejected, Unavailable
from cdc_platform.model.naming import some_of
from cdc_platform.model.observed import TopicExtent
from cdc_platform.model.topology import Topology
from cdc_platform.planning.actions import Lane
from cdc_platform.reconciler.report import ActionOutcome, ActionStatus, PassReport, leftovers_of
from cdc_platform.verification.audit_frame import AuditFrame

# Beyond this many the rest is one sentence for each kind of action.
MOST_SENTENCES = 200
# Materializing shards costs one pass at most this long; the lock may be held meanwhile.
MATERIALIZE_SECONDS = 60.0
# How long Kafka may take to say how much is in the topics.
TOPICS_SECONDS = 20.0
# How long the audit frames of one dataset may take to be read.
VERDICTS_SECONDS = 5.0
# Of all topics at most this many are looked at by one pass; the next ones by the next.
MOST_TOPICS = 250
# A topic is materialized at most this often, in seconds; a little less than the interval of the looks.
MIN_INTERVAL = 15 * 60.0 - 60.0
DATA_VERSION = "dagster/data_version"


@dataclass(kw_only=True)
class EventWriter:
    """Writes the events of one pass, as part of one run."""

    context: dg.OpExecutionContext
    platform: Platform
    translator: CdcTranslator
    _keys: dict[tuple[str, str], dg.AssetKey] = field(default_factory=dict)
    _materialize_until: float | None = None

    def captured(self, names: tuple[str, ...]) -> None:
        """A materialization of each shard that runs for the first time, under its partition."""
        self.context.log.info(f"Captured for the first time: {some_of(names, 10)}.")
        self._materialize(self.platform.topology.load(), names)

    def report(self, report: PassReport, *, observe: frozenset[str], turn: int) -> None:
        """Sentences for what was put right, the state of the platform and of the datasets that changed, and new data.

        `observe` names further datasets, or ALL: then topics are looked at for new data, those beyond MOST_TOPICS in
        turn.
        """
        self._sentences(report)
        topology = self.platform.topology.load()
        self.context.log_event(
            dg.AssetObservation(
                asset_key=platform_key(self.platform.settings.platform),
                description=report.sentence(),
                metadata=pass_metadata(report, clusters=_sizes(report.homes)),
            )
        )
        if ALL in observe:
            self._materialize(topology, _running(report, topology))
        self._observe_shards(report, topology, report.changed_datasets() | captured_datasets(report) | observe)
        self._topics_with_news(report, topology, observe, turn)
        for event in watched_observations(report, topology, self.platform.settings.platform, whole=ALL in observe):
            self.context.log_event(event)
        log = self.context.log.warning if report.failed or report.plan.refusals else self.context.log.info
        log(report.sentence())

    def _materialize(self, topology: Topology, names: Sequence[str]) -> None:
        """Materialize the partitions of these running shards that Dagster does not show as materialized.

        By what is, not by what happened: a run that died half way, or a new Dagster instance, is made
        up for by the next pass that observes all tables.
        """
        if self._materialize_until is None:
            self._materialize_until = monotonic() + MATERIALIZE_SECONDS
        label = self.platform.settings.platform
        sync_partitions(self.context.instance, topology, platform=label, may_delete=False)
        wanted: dict[str, list[str]] = {}
        for name in names:
            dataset, _, shard = name.partition(".")
            wanted.setdefault(dataset, []).append(shard)
        for dataset, shards in wanted.items():
            key = shards_key(label, dataset)
            have = self.context.instance.get_materialized_partitions(key)
            for shard in shards:
                if shard in have:
                    continue
                if monotonic() > self._materialize_until:
                    self.context.log.info("Not all partitions are materialized yet: a later pass goes on.")
                    return
                connector = f"{dataset}.{shard}"
                text = f"Connector {connector} captures its tables."
                self.context.log_event(
                    dg.AssetMaterialization(key, partition=shard, description=text, metadata={"connector": connector})
                )

    def _sentences(self, report: PassReport) -> None:
        # What went wrong must not fall behind the limit, nor connectors behind their topics.
        ranked = sorted(
            report.outcomes,
            key=lambda outcome: (outcome.status is ActionStatus.DONE, outcome.action.kind.lane is Lane.TOPICS),
        )
        for outcome in ranked[:MOST_SENTENCES]:
            log = self.context.log.warning if outcome.status is ActionStatus.FAILED else self.context.log.info
            log(outcome.sentence())
        for (verb, status), count in _count(ranked[MOST_SENTENCES:]).items():
            self.context.log.info(f"And {count} more: {verb}: {status}.")
        for refusal in report.plan.refusals[:MOST_SENTENCES]:
            self.context.log.warning(f"Refused for {refusal.scope}: {refusal.reason}")
        for finding in report.plan.findings[:MOST_SENTENCES]:
            self.context.log.info(f"{finding.subject}: {finding.text}")
        for finding in leftovers_of(report.outcomes)[:MOST_SENTENCES]:
            self.context.log.info(f"{finding.subject}: left to you: {finding.text}")

    def _observe_shards(self, report: PassReport, topology: Topology, changed: frozenset[str]) -> None:
        for name in sorted(changed & topology.datasets.keys()):
            health = report.health.get(name)
            self.context.log_event(
                dg.AssetObservation(
                    shards_key(self.platform.settings.platform, name),
                    description=None if health is None else f"{health.up} of {health.shards} shards up.",
                    metadata=shards_metadata(
                        topology.shards.get(name, ()),
                        health=health,
                        homes=report.homes,
                        lags=report.lags,
                        verdicts=self._verdicts(topology, name),
                    ),
                )
            )

    def _verdicts(self, topology: Topology, name: str) -> Mapping[str, str]:
        """Of each shard, for the heat map: without them it shows what else is known."""
        shards = [shard.id for shard in topology.shards.get(name, ())]
        tables = [table.name for table in topology.datasets[name].tables]
        frame = AuditFrame(self.platform.settings.audit_dir)
        try:
            return within(VERDICTS_SECONDS, lambda: frame.worst(name, tables, shards), what="Reading verdicts")
        except CdcError as error:
            self.context.log.warning(f"{name}: the heat map of its shards shows no verdicts this time: {error}")
            return {}

    def _topics_with_news(self, report: PassReport, topology: Topology, observe: frozenset[str], turn: int) -> None:
        tables = table_props(topology, platform=self.platform.settings.platform)
        chosen = choose_tables(tables, changed=_changed(report, tables) | observe, turn=turn, most=MOST_TOPICS)
        if not chosen:
            return
        extents, samples = self._topics([props.topic for props in chosen])
        before = self._materialized(chosen)
        for props in chosen:
            extent = extents.get(props.topic)
            if extent is None or not has_news(extent, before.get(self._key(props)), time()):
                continue
            metadata = table_metadata(
                props,
                shards=topology.shards.get(props.dataset, ()),
                health=report.health.get(props.dataset),
                lags=report.lags,
                extent=extent,
                sample=samples.get(props.topic),
            )
            self.context.log_event(
                dg.AssetMaterialization(
                    self._key(props),
                    description=str(metadata["state"].value),
                    metadata=metadata,
                    tags={DATA_VERSION: data_version(extent)},
                )
            )

    def _materialized(self, tables: Sequence[CdcTableProps]) -> dict[dg.AssetKey, tuple[str, float]]:
        """Data version and time of each table's newest materialization."""
        found = {}
        for record in self.context.instance.get_asset_records([self._key(props) for props in tables]):
            newest = record.asset_entry.last_materialization_record
            event = newest and newest.asset_materialization
            if newest and event:
                found[record.asset_entry.asset_key] = ((event.tags or {}).get(DATA_VERSION, ""), newest.timestamp)
        return found

    def _topics(self, names: list[str]) -> tuple[Mapping[str, TopicExtent], Mapping[str, bytes]]:
        """How much is in the topics. Nice to have: the pass itself is done, so an error is a warning."""
        kafka = self.platform.kafka
        try:
            # Well below the silence after which a run without the lock is taken for dead.
            return within(TOPICS_SECONDS, lambda: (kafka.extents(names), kafka.samples(names)), what="Reading topics")
        except (Unavailable, KafkaRejected) as error:
            self.context.log.warning(f"The assets show no event counts this time: {error}")
            return {}, {}

    def _key(self, props: CdcTableProps) -> dg.AssetKey:
        pair = (props.dataset, props.table)
        if pair not in self._keys:
            self._keys[pair] = self.translator.get_asset_spec(props).key
        return self._keys[pair]


def choose_tables(
    tables: tuple[CdcTableProps, ...], *, changed: frozenset[str], turn: int, most: int
) -> tuple[CdcTableProps, ...]:
    """The tables to look at: those of the changed datasets, and with ALL the others in turn. Pure.

    Args:
        tables: all of them.
        changed: names of datasets, and ALL.
        turn: grows by one: where in the others this pass starts.
        most: how many at most.
    """
    first = [props for props in tables if props.dataset in changed]
    others = [props for props in tables if props.dataset not in changed] if ALL in changed else []
    room = max(0, most - len(first))
    start = turn * room % len(others) if others else 0
    return tuple([*first, *others[start:], *others[:start]][:most])


def has_news(extent: TopicExtent, before: tuple[str, float] | None, now: float) -> bool:
    """Whether a topic is to be materialized: data came since, and MIN_INTERVAL is over. Pure.

    Args:
        extent: of the topic now.
        before: data version and time of its newest materialization, None without one.
        now: seconds since the epoch.
    """
    if before is None:
        return extent.end > 0
    version, at = before
    return version != data_version(extent) and now - at >= MIN_INTERVAL


def data_version(extent: TopicExtent) -> str:
    """What Dagster compares: another one when the topic has more events."""
    return f"{extent.end} events"


def captured_datasets(report: PassReport) -> frozenset[str]:
    """The datasets of the shards that this pass saw for the first time."""
    return frozenset(name.partition(".")[0] for name in report.captured)


def _changed(report: PassReport, tables: tuple[CdcTableProps, ...]) -> frozenset[str]:
    """The datasets whose connectors or topics this pass touched, or whose shards it saw for the first time."""
    by_topic = {props.topic: props.dataset for props in tables}
    topics = {
        outcome.action.details()["topic"] for outcome in report.outcomes if outcome.action.kind.lane is Lane.TOPICS
    }
    touched = {by_topic[topic] for topic in topics if topic in by_topic}
    return report.changed_datasets() | touched | captured_datasets(report)


def _running(report: PassReport, topology: Topology) -> tuple[str, ...]:
    """The shards that are not down in this report."""
    down = {one.shard for health in report.health.values() for one in health.down}
    return tuple(shard.name for _, shard in topology.all_shards() if shard.name not in down)


def _sizes(homes: Mapping[str, str]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for cluster in homes.values():
        sizes[cluster] = sizes.get(cluster, 0) + 1
    return sizes


def _count(outcomes: list[ActionOutcome]) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for outcome in outcomes:
        pair = (outcome.action.kind.verb, outcome.status)
        counts[pair] = counts.get(pair, 0) + 1
    return counts
