"""All clients of one platform, as the use cases take them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cdc_platform.clients.kafka.schema_history import Histories
from cdc_platform.clients.protocols import Connect, Heartbeats, Kafka, Metrics, StateStore, TopologyStore
from cdc_platform.clients.sources.examiner import Examiner
from cdc_platform.clients.sources.logs import SourceLogs
from cdc_platform.clients.sources.source_facts import SourceFactsReader
from cdc_platform.model.topology import Cluster
from cdc_platform.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """The outside systems of one platform.

    `sources` asks and prepares source servers; without it they are left alone. `facts` asks each of them every few
    minutes how its log and the captured tables are; without it nothing of that is known. `histories` reads what
    binlog connectors know of their tables, which is compared with what the sources say. `examiner` asks sources what
    stands against capturing from them; without it connectors are created unasked.
    `connect` gives the client of a Connect cluster; calls for the same cluster
    share connections. Without `heartbeats` or `metrics` what they tell is
    unknown. Built by `wiring.py`, or from the fakes of `testing`.
    """

    settings: Settings
    topology: TopologyStore
    kafka: Kafka
    state: StateStore
    connect: Callable[[Cluster], Connect]
    heartbeats: Heartbeats | None = None
    metrics: Metrics | None = None
    sources: SourceLogs | None = None
    facts: SourceFactsReader | None = None
    histories: Histories | None = None
    examiner: Examiner | None = None
