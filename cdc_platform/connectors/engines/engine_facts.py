"""What the platform must know of an engine to configure and judge its connectors: the form of each engine's module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from cdc_platform.connectors.identity import Identity
from cdc_platform.connectors.wire_format import Fixed
from cdc_platform.model.topology import EMPTY, Dataset, Engine, Limits, Shard
from cdc_platform.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """One engine and its Debezium connector.

    Attributes:
        engine: which one.
        connector_class: `connector.class`.
        plugin: group and artifact of the connector in Maven.
        version: of the plugin, with which the facts were tried.
        wire_format: what is fixed beyond `wire_format.COMMON`.
        dataset_options: options that are the same in all shards of a dataset.
        shard_options: options that are one shard's alone.
        leftovers: of a connector's name and config: topics to delete with it, and sentences on what an operator
            must remove at the source.
        idle_gap: how long an idle shard under these limits may take from one heartbeat to the next.
        server_variables: what a server's variables must be, as `SELECT @@global.NAME` shows them.
    """

    engine: Engine
    connector_class: str
    plugin: str
    version: str
    wire_format: tuple[Fixed, ...]
    dataset_options: Callable[[Dataset], dict[str, str]]
    shard_options: Callable[[Settings, Shard, Identity], dict[str, str]]
    leftovers: Callable[[str, Mapping[str, str]], tuple[tuple[str, ...], tuple[str, ...]]]
    idle_gap: Callable[[Limits], timedelta]
    server_variables: Mapping[str, str] = EMPTY
