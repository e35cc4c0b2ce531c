"""Names and numbers that must be one shard's alone: one injective place, checked for collisions.

Kafka forbids two topics whose names differ only in `.` and `_` (they share a
metric name), so names are compared with the two taken as one character. No
dataset, shard or table name holds a dot, and a dataset's no hyphen: hence the
hyphen between dataset and shard in a topic's name.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from cdc_platform.model.naming import ShardName
from cdc_platform.model.topology import Dataset, Engine, Problem, ProblemKind, Shard, Table, Topology
from cdc_platform.settings import Settings

# Numbers below are left to servers that people number by hand.
SERVER_IDS = range(2**24, 2**32 - 1)
SERVER_ID_FIELD = "database.server.id"

# A shard's signal group is a hash of its name alone, so it never changes when
# other shards come or go. Of 10,000 shards 39 share a group on average; that
# one gets more than MAX_SIGNAL_GROUP has a probability of about 1e-14 (Poisson
# tail), and `check` would name it.
SIGNAL_GROUPS = 256
MAX_SIGNAL_GROUP = 100

# Postgres: NAMEDATALEN - 1.
MAX_SLOT_NAME = 63
# Kafka: org.apache.kafka.common.internals.Topic.MAX_NAME_LENGTH.
MAX_TOPIC_NAME = 249

# The field of the record key that tells one shard's row from another's.
SHARD_KEY_FIELD = "shard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What only one shard has. `server_id` is None for Postgres, `slot` and `publication` for the others."""

    connector: str
    server_id: int | None
    slot: str | None
    publication: str | None
    schema_history_topic: str | None
    signal_topic: str
    signal_consumer_group: str


def identity(settings: Settings, dataset: Dataset, shard: Shard) -> Identity:
    """All names of one shard."""
    binlog = dataset.engine.reads_binlog
    return Identity(
        connector=shard.name,
        server_id=server_id(settings, shard) if binlog else None,
        slot=None if binlog else slot_name(settings, shard),
        publication=None if binlog else publication_name(settings, shard),
        schema_history_topic=schema_history_topic(settings, shard) if binlog else None,
        signal_topic=signal_topic(settings, shard),
        signal_consumer_group=signal_consumer_group(settings, shard),
    )


def server_id(settings: Settings, shard: Shard) -> int:
    """The number by which a binlog connector registers as a replica.

    An explicit `database.server.id` of the shard's connector field wins: the
    cure for a collision.
    """
    explicit = shard.connector.get(SERVER_ID_FIELD)
    if explicit is not None and explicit.isascii() and explicit.isdigit():
        return int(explicit)
    digest = _digest(settings, shard)
    return SERVER_IDS.start + int.from_bytes(digest[:8], "big") % len(SERVER_IDS)


def slot_name(settings: Settings, shard: Shard) -> str:
    """The replication slot: readable, and unique on a server that several platforms capture."""
    return _sql_name(settings, shard)


def publication_name(settings: Settings, shard: Shard) -> str:
    """The publication; it has its own name space, so the slot's name serves."""
    return _sql_name(settings, shard)


def schema_history_topic(settings: Settings, shard: Shard) -> str:
    """The topic that holds the DDL of one binlog connector. Losing it stops the connector."""
    return history_topic_of(settings, ShardName(shard.dataset, shard.id))


def history_topic_of(settings: Settings, shard: ShardName) -> str:
    """`schema_history_topic` of a shard that may have left the topology."""
    return f"{settings.platform}.platform.schema-history.{shard.dataset}-{shard.shard}"


def signal_group(shard: Shard) -> int:
    """The number of the shard's signal group, from the shard's name alone."""
    return _group_of(shard.name)


def signal_topic(settings: Settings, shard: Shard) -> str:
    """Where signals to the shard's connector are sent; its key is `Shard.name`, its partition 0."""
    return f"{settings.platform}.platform.signals.{shard.dataset}-{signal_group(shard):03d}"


def signal_consumer_group(settings: Settings, shard: Shard) -> str:
    """The consumer group in which the connector keeps its place in the signal topic: its own."""
    return f"{settings.platform}-signals-{shard.name}"


def notification_topic(settings: Settings) -> str:
    """Where all connectors report on their snapshots."""
    return f"{settings.platform}.platform.notifications"


def transaction_topic(settings: Settings, dataset: Dataset) -> str:
    """Where the dataset's connectors write BEGIN and END of transactions, with event counts."""
    return f"{settings.platform}.platform.transactions.{dataset.name}"


def table_topic(dataset: Dataset, table: Table) -> str:
    """The table's topic."""
    return dataset.topic(table)


def check(topology: Topology, settings: Settings) -> tuple[Problem, ...]:
    """What collides, as problems that switch the shards or datasets off.

    Both sides of a collision are switched off: had the newcomer the smaller
    name, to switch off only the other would start it against a running
    connector (docs/decisions/0041).
    """
    problems: list[Problem] = []
    problems += _topic_collisions(topology, settings)
    problems += _number_collisions(topology, settings)
    problems += _crowded_groups(topology)
    return tuple(sorted(problems, key=lambda p: (p.kind, p.name, p.message)))


def _topic_collisions(topology: Topology, settings: Settings) -> Iterator[Problem]:
    owners: dict[str, dict[str, str]] = defaultdict(dict)  # metric name -> owner -> topic
    for topic in (settings.state_topic, settings.heartbeat_topic, notification_topic(settings)):
        owners[_metric_name(topic)]["the platform"] = topic
    for dataset in topology.datasets.values():
        owners[_metric_name(transaction_topic(settings, dataset))]["the platform"] = transaction_topic(
            settings, dataset
        )
        for table in dataset.tables:
            topic = table_topic(dataset, table)
            found = owners[_metric_name(topic)]
            if dataset.name in found:
                yield _problem(
                    "dataset", dataset.name, f"two tables share topic {topic}.", "Rename one, or leave one out."
                )
            found[dataset.name] = topic
            if len(topic) > MAX_TOPIC_NAME:
                yield _problem(
                    "dataset",
                    dataset.name,
                    f"topic name of table {table.name} is longer than {MAX_TOPIC_NAME} characters.",
                    "Shorten topic_pattern.",
                )
    for topic in _internal_shard_topics(topology, settings):
        if _metric_name(topic) in owners:
            owners[_metric_name(topic)]["the platform"] = topic
    for found in owners.values():
        if len(found) > 1:
            for name in sorted(found.keys() - {"the platform"}):
                others = ", ".join(sorted(found.keys() - {name}))
                yield _problem(
                    "dataset",
                    name,
                    f"topic {found[name]} collides with one of {others} (Kafka takes '.' and '_' for the same).",
                    "Change topic_pattern of one of them.",
                )


def _internal_shard_topics(topology: Topology, settings: Settings) -> Iterator[str]:
    for dataset, shard in topology.all_shards():
        yield signal_topic(settings, shard)
        if dataset.engine.reads_binlog:
            yield schema_history_topic(settings, shard)


def _number_collisions(topology: Topology, settings: Settings) -> Iterator[Problem]:
    ids: dict[int, list[str]] = defaultdict(list)
    slots: dict[str, list[str]] = defaultdict(list)
    for dataset, shard in topology.all_shards():
        if dataset.engine is Engine.POSTGRES:
            slots[slot_name(settings, shard)].append(shard.name)
        else:
            ids[server_id(settings, shard)].append(shard.name)
    for number, names in ids.items():
        for name in names if len(names) > 1 else ():
            others = ", ".join(other for other in names if other != name)
            yield _problem(
                "shard",
                name,
                f"{SERVER_ID_FIELD} {number} is also that of {others}.",
                f"Give one of them another: `connector: {{{SERVER_ID_FIELD}: ...}}` in its shard.",
            )
    for slot, names in slots.items():
        for name in names if len(names) > 1 else ():
            others = ", ".join(other for other in names if other != name)
            yield _problem("shard", name, f"slot {slot} is also that of {others}.", "Rename one shard.")


def _crowded_groups(topology: Topology) -> Iterator[Problem]:
    for dataset, shards in topology.shards.items():
        groups: dict[int, list[str]] = defaultdict(list)
        for shard in shards:
            groups[signal_group(shard)].append(shard.name)
        for number, names in groups.items():
            for name in sorted(names)[MAX_SIGNAL_GROUP:]:
                yield _problem(
                    "shard",
                    name,
                    f"signal group {number} of dataset {dataset} holds more than {MAX_SIGNAL_GROUP} shards.",
                    "Split the dataset in two.",
                )


def _problem(kind: ProblemKind, name: str, message: str, cure: str) -> Problem:
    return Problem(kind, name, f"{message} Cure: {cure}")


def _metric_name(topic: str) -> str:
    return topic.replace(".", "_")


# Each pass asks for every shard's several times: for collisions, for topics, for its config.
_NAMES_KEPT = 1 << 16


@lru_cache(_NAMES_KEPT)
def _group_of(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % SIGNAL_GROUPS


def _digest(settings: Settings, shard: Shard) -> bytes:
    # The platform's name is hashed along: two platforms may capture one server.
    # Neither name holds a slash in a dataset or shard, so the pair is unambiguous.
    return _digest_of(f"{settings.platform}/{shard.name}")


@lru_cache(_NAMES_KEPT)
def _digest_of(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _sql_name(settings: Settings, shard: Shard) -> str:
    """At most 63 of `[a-z0-9_]`, 48 bits of hash behind the readable part."""
    tail = "_" + _digest(settings, shard)[8:14].hex()
    readable = re.sub(r"[^a-z0-9_]", "_", f"{settings.platform}_{shard.dataset}_{shard.id}".lower())
    return readable[: MAX_SLOT_NAME - len(tail)] + tail
