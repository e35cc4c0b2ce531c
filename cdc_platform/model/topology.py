"""What should be captured: datasets, tables, shards and Connect clusters.

Frozen values, valid by construction. `documents` reads them from JSON and YAML, `clients/zookeeper` stores them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from cdc_platform.errors import TopologyError
from cdc_platform.model.empty_mapping import EMPTY as EMPTY
from cdc_platform.model.name_rules import NameRule, is_ip_address, is_url, letters_from_elsewhere
from cdc_platform.model.naming import one_of
from cdc_platform.model.shard_choice import choose_ids, no_such_shards
from cdc_platform.model.source_log import DEFAULT_SOURCE_LOG, SourceLog
from cdc_platform.model.watched import WatchedConnector, check_names

# Of a leader: it grows by one with each move.
MAX_GENERATION = 2**48

# Where the leader files are on each Connect worker, unless a cluster says otherwise.
LEADER_DIR = "/var/lib/cdc-platform/leaders"

# Names become part of topic names, JMX object names, regular expressions, file
# names and SQL identifiers; what is special in any of them stays out.
_DATASET = NameRule(r"[a-z][a-z0-9_]{0,39}", "Use a to z, 0 to 9 and _, a letter first, 40 at most.")
_SHARD = NameRule(r"[a-z0-9][a-z0-9_-]{0,39}", "Use a to z, 0 to 9, _ and -, a letter or digit first, 40 at most.")
_TABLE = NameRule(r"[A-Za-z_][A-Za-z0-9_$]{0,62}", "Use letters, digits, _ and $, no digit first, 63 at most.")
_DATABASE = NameRule(r"[A-Za-z0-9_][A-Za-z0-9_$-]{0,62}", "Use letters, digits, _, - and $, 63 at most.")
_CLUSTER = NameRule(r"[a-z0-9][a-z0-9_-]{0,62}", "Use a to z, 0 to 9, _ and -, a letter or digit first, 63 at most.")
_HOST = NameRule(
    r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Fa-f:.]{2,45}",
    "Use a host name or an IP address.",
)


def _check(rule: NameRule, value: str, what: str) -> None:
    if not rule.allows(value):
        raise TopologyError(
            f"{value!r} is not a valid {what}{letters_from_elsewhere(value)}.", field=what, cure=rule.words
        )


def is_shard_id(text: str) -> bool:
    """May a shard have this id?"""
    return _SHARD.allows(text)


def is_cluster_name(text: str) -> bool:
    """May a Connect cluster have this name?"""
    return _CLUSTER.allows(text)


class Engine(StrEnum):
    """The database engines whose Debezium connector we configure."""

    MARIADB = "mariadb"
    MYSQL = "mysql"
    POSTGRES = "postgres"

    @property
    def reads_binlog(self) -> bool:
        """True for the engines that stream from a binlog (MariaDB, MySQL)."""
        return self is not Engine.POSTGRES


class BootstrapMode(StrEnum):
    """How a shard gets its first data."""

    LATEST = "latest"
    SNAPSHOT = "snapshot"
    POSITION = "position"
    INCREMENTAL = "incremental"


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """A server's host and port."""

    host: str
    port: int

    def __post_init__(self) -> None:
        _check(_HOST, self.host, "host")
        if ":" in self.host and not is_ip_address(self.host.strip("[]")):
            raise TopologyError(f"{self.host!r} is not a valid host.", field="host", cure=_HOST.words)
        if not 0 < self.port < 65536:
            raise TopologyError(f"{self.port} is not a TCP port.", field="port", cure="Use 1 to 65535.")

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `host:port`. Raises TopologyError."""
        host, colon, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
        if not colon or not port.isascii() or not port.isdigit():
            raise TopologyError(
                f"{text!r} is not a valid address.", field="address", cure="Write HOST:PORT, as in db-7.internal:3306."
            )
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table that exists in every shard of its dataset.

    `schema` is for Postgres. `key` names the columns that identify a row where
    the table has no primary key of its own (Debezium `message.key.columns`).
    """

    name: str
    schema: str | None = None
    key: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check(_TABLE, self.name, "table")
        if self.schema is not None:
            _check(_TABLE, self.schema, "schema")
        for column in self.key:
            _check(_TABLE, column, "key column")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """References to the source's user and password, never the values.

    Each is `${file:PATH:KEY}` or `${env:NAME}`; resolved by the Connect worker,
    and by the control plane when it reads the source itself.
    """

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSpec:
    """How a dataset's topics are made: `config` goes on top of the defaults."""

    partitions: int = 8
    replication: int = 3
    config: Mapping[str, str] = EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds per connector. Units: bytes, bytes a second, rows a second; None is no limit."""

    queue_bytes: int = 8 * 1024 * 1024
    queue_events: int = 2048
    batch_events: int = 512
    producer_buffer_bytes: int = 8 * 1024 * 1024
    bytes_per_second: int | None = None
    snapshot_rows_per_second: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A person asked the control plane to leave something alone."""

    reason: str
    author: str
    until: datetime | None = None

    def holds(self, now: datetime) -> bool:
        """True until the expiry, for ever without one."""
        return self.until is None or now < self.until


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """One sharded database: the same tables in each of its shards.

    `connector` holds Debezium overrides for all shards, as text values.
    `verification` is the policy of the checks, read by `verification/`, and so is `windows`; `lake` by `lake/`.
    `accepted_hazards` are kinds of the doctor's findings, or `KIND:TABLE`, that are known and no reason to refuse.
    `extra` holds fields of the document that this version does not know; they
    survive a read-modify-write.
    """

    name: str
    engine: Engine
    tables: tuple[Table, ...]
    clusters: tuple[str, ...]
    credentials: Credentials
    topic_pattern: str = "cdc.{dataset}.{table}"
    topics: TopicSpec = TopicSpec()
    bootstrap: BootstrapMode = BootstrapMode.INCREMENTAL
    connector: Mapping[str, str] = EMPTY
    limits: Limits = Limits()
    source_log: SourceLog = DEFAULT_SOURCE_LOG
    verification: Mapping[str, Any] = EMPTY
    lake: Mapping[str, Any] = EMPTY
    windows: Mapping[str, Any] = EMPTY
    accepted_hazards: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    pause: Pause | None = None
    extra: Mapping[str, Any] = EMPTY

    def __post_init__(self) -> None:
        _check(_DATASET, self.name, "dataset")
        for cluster in self.clusters:
            _check(_CLUSTER, cluster, "cluster")
        if not self.tables:
            raise TopologyError(f"{self.name} has no tables.", field="tables", cure="Name at least one table.")
        if not self.clusters:
            raise TopologyError(
                f"{self.name} has no Connect cluster.", field="clusters", cure="Name at least one cluster."
            )
        names = [table.name for table in self.tables]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise TopologyError(f"table {twice[0]!r} is named twice.", field="tables", cure="Name each table once.")
        if self.topic_pattern.count("{dataset}") != 1 or self.topic_pattern.count("{table}") != 1:
            raise TopologyError(
                f"topic pattern {self.topic_pattern!r} does not tell datasets and tables apart.",
                field="topic_pattern",
                cure="Use {dataset} and {table} once each, as in cdc.{dataset}.{table}.",
            )
        literal = self.topic_pattern.replace("{dataset}", "").replace("{table}", "")
        if not re.fullmatch(r"[A-Za-z0-9._-]*", literal):
            raise TopologyError(
                f"topic pattern {self.topic_pattern!r} has characters that Kafka forbids.",
                field="topic_pattern",
                cure="Use letters, digits, dot, underscore and hyphen.",
            )

    def topic(self, table: Table) -> str:
        """The name of the table's topic, the same for all shards.

        Debezium writes `_` for what Kafka forbids in a topic's name: `$` alone.
        """
        return self.topic_pattern.format(dataset=self.name, table=table.name).replace("$", "_")

    def table(self, name: str) -> Table:
        """The table of that name. Raises TopologyError."""
        for table in self.tables:
            if table.name == name:
                return table
        raise TopologyError(
            f"dataset {self.name} has no table {name!r}.",
            field="table",
            cure=one_of(name, (table.name for table in self.tables)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One database of a dataset, captured by one connector.

    `generation` grows with each leader change; an older one never wins.
    `name` is `<dataset>.<shard>`: the connector's name and its `topic.prefix`.
    `left_out` are tables that its source cannot have captured, and why: no part of the topology that is stored.
    """

    dataset: str
    id: str
    leader: Address
    database: str
    replicas: tuple[Address, ...] = ()
    generation: int = 0
    connector: Mapping[str, str] = EMPTY
    pause: Pause | None = None
    extra: Mapping[str, Any] = EMPTY
    left_out: Mapping[str, str] = EMPTY
    # Kept, not computed: a pass over 10,000 shards asks for it forty times each.
    name: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", f"{self.dataset}.{self.id}")
        _check(_DATASET, self.dataset, "dataset")
        _check(_SHARD, self.id, "shard")
        _check(_DATABASE, self.database, "database")
        if self.generation < 0:
            raise TopologyError(f"{self.generation} is negative.", field="generation", cure="Use 0 or more.")
        if self.generation > MAX_GENERATION:
            raise TopologyError(
                f"{self.generation} is more than {MAX_GENERATION}.", field="generation", cure="Leave it out."
            )

    def captured(self, dataset: Dataset) -> tuple[Table, ...]:
        """The tables of its dataset that its connector captures."""
        if not self.left_out:
            return dataset.tables
        return tuple(table for table in dataset.tables if table.name not in self.left_out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A Kafka Connect cluster.

    `leader_dir` is the directory with the leader files; the same path on each of its workers. `labels` maps a
    worker id (host:port) to its zone. A draining cluster takes no new connectors and gives up those it has.
    `watched`: connectors there that others made, by name.
    """

    name: str
    urls: tuple[str, ...]
    capacity: int = 3000
    leader_dir: str = LEADER_DIR
    labels: Mapping[str, str] = EMPTY
    metrics: Mapping[str, str] = EMPTY
    draining: bool = False
    watched: Mapping[str, WatchedConnector] = EMPTY
    extra: Mapping[str, Any] = EMPTY

    def __post_init__(self) -> None:
        _check(_CLUSTER, self.name, "cluster")
        check_names(self.watched)
        if not self.urls:
            raise TopologyError(f"{self.name} has no URL.", field="urls", cure="Name at least one worker's URL.")
        for url in self.urls:
            if not is_url(url):
                raise TopologyError(
                    f"{url!r} is not a URL.", field="urls", cure="Write http://HOST:PORT or https://HOST:PORT."
                )
        if self.capacity < 1:
            raise TopologyError(f"{self.capacity} is not a valid capacity.", field="capacity", cure="Use 1 or more.")
        if not self.leader_dir.startswith("/") or not re.fullmatch(r"[A-Za-z0-9/._-]+", self.leader_dir):
            raise TopologyError(
                f"{self.leader_dir!r} must be an absolute path.",
                field="leader_dir",
                cure="Use an absolute path of letters, digits, '/', '.', '_' and '-'.",
            )


ProblemKind = Literal["dataset", "shard", "cluster", "platform", "pause"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in the stored topology that could not be used, and why.

    `name` is the dataset, `<dataset>.<shard>` or cluster that is switched off
    by it: nothing is created, changed or deleted for it.
    """

    kind: ProblemKind
    name: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """The whole desired state at one moment.

    `shards` maps a dataset's name to its shards, sorted by id. What could not
    be read is in `problems`, and only there. Shards of a dataset that could not
    be read stay in `shards`, so that failover goes on for them.
    `zxid` is ZooKeeper's number of the latest change to any shard: an agent
    that says it has written the leader files up to it has written all of these.
    """

    datasets: Mapping[str, Dataset] = EMPTY
    shards: Mapping[str, tuple[Shard, ...]] = EMPTY
    clusters: Mapping[str, Cluster] = EMPTY
    problems: tuple[Problem, ...] = ()
    pause: Pause | None = None
    zxid: int = field(default=0, compare=False)

    @property
    def whole(self) -> bool:
        """True when it was read without gaps, so that what is absent is gone."""
        return not self.problems and any(self.shards.values())

    def all_shards(self) -> Iterator[tuple[Dataset, Shard]]:
        """Each shard with its dataset, in the order of their names."""
        for name in sorted(self.datasets):
            for shard in self.shards.get(name, ()):
                yield self.datasets[name], shard

    def shard(self, dataset: str, shard_id: str) -> Shard:
        """The shard of that id. Raises TopologyError."""
        for shard in self.shards.get(dataset, ()):
            if shard.id == shard_id:
                return shard
        raise no_such_shards(dataset, [shard_id], [shard.id for shard in self.shards.get(dataset, ())])

    def choose(self, dataset: str, texts: Iterable[str]) -> tuple[Shard, ...]:
        """The shards of the dataset that `shard_choice.choose_ids` finds in the texts. Raises TopologyError."""
        shards = {shard.id: shard for shard in self.shards.get(self.dataset(dataset).name, ())}
        return tuple(shards[shard_id] for shard_id in choose_ids(dataset, shards, texts))

    def dataset(self, name: str) -> Dataset:
        """The dataset of that name. Raises TopologyError."""
        if name not in self.datasets:
            for problem in (p for p in self.problems if (p.kind, p.name) == ("dataset", name)):
                raise TopologyError(problem.message, field="dataset")
            raise TopologyError(
                f"there is no dataset {name!r}.",
                field="dataset",
                cure=one_of(name, self.datasets) if self.datasets else "Import a topology first.",
            )
        return self.datasets[name]
