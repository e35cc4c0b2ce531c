"""Which connector options a dataset or shard may set: all but those the platform leans on.

Refused is what would break identity, routing, the wire format, secrets or the
leader's indirection; each with its reason and what to do instead. Other options
of Debezium pass, known or not: Debezium grows. Options of drivers, Kafka clients
and TLS pass only if they are known to be harmless (`permitted_options`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from cdc_platform.connectors import permitted_options
from cdc_platform.connectors.engines import ddl_filter
from cdc_platform.connectors.engines.registry import FIXED
from cdc_platform.connectors.identity import SERVER_ID_FIELD, SERVER_IDS, SHARD_KEY_FIELD
from cdc_platform.connectors.patterns import CURE, PATTERN_OPTIONS, refused_pattern
from cdc_platform.connectors.source_servers import TLS_OPTIONS, is_permitted_host
from cdc_platform.connectors.wire_format import CHOSEN
from cdc_platform.errors import OverrideRefused
from cdc_platform.model.observed import OWNER_KEY
from cdc_platform.model.secret_references import foreign_reference, is_secret_in_plain_text, names_secret
from cdc_platform.model.topology import Dataset, Engine, Shard
from cdc_platform.settings import Settings

_IDENTITY = "it is derived from the names of dataset and shard, so that no two connectors share it."
_ROUTING = "the platform routes all shards of a table to one topic with it."
_CAPTURE = "what is captured follows from the dataset's tables."
_WIRE = "the proof rebuilds the wire format from the source."
_LEADER = "the leader may change at any moment without a new configuration."
_SNAPSHOT = "the platform starts, watches and resumes snapshots itself."
_LOSS = "it can lose events silently."
_DELIVERY = "at-least-once delivery in the source's order leans on it."

_LIVENESS = "the age of heartbeats tells a dead source from an idle one."

_SET_TABLES = "Change the dataset's tables."
_REMOVE = "Remove it."


@dataclass(frozen=True, slots=True)
class Denied:
    """Options that may not be set: a name, or with a trailing `*` all that begin so."""

    pattern: str
    reason: str
    cure: str = _REMOVE

    def matches(self, option: str) -> bool:
        """True when this rule refuses the option."""
        if self.pattern.endswith("*"):
            return option.startswith(self.pattern[:-1])
        return option == self.pattern


DENIED: tuple[Denied, ...] = (
    Denied(OWNER_KEY, "it marks the connectors that this platform may change."),
    Denied("name", _IDENTITY),
    Denied("connector.class", "it follows from the dataset's engine.", "Change the dataset's engine."),
    Denied("tasks.max", "these connectors have one task."),
    Denied("topic.*", _IDENTITY, "Set the dataset's topic_pattern."),
    Denied("slot.name", _IDENTITY),
    Denied("publication.name", _IDENTITY),
    Denied("heartbeat.topics.prefix", _ROUTING),
    Denied("transforms*", _ROUTING, "Transform where the topic is read."),
    Denied("predicates*", _ROUTING, "Transform where the topic is read."),
    Denied("converters*", _WIRE, "Convert where the topic is read."),
    Denied("post.processors*", _WIRE, "Convert where the topic is read."),
    Denied("key.converter*", _WIRE),
    Denied("value.converter*", _WIRE),
    Denied("column.mask.*", "masked values cannot be proven.", "Leave the column out: column.exclude.list."),
    Denied("column.truncate.*", "cut values cannot be proven.", "Leave the column out: column.exclude.list."),
    Denied("sourceinfo.struct.maker", _WIRE),
    Denied("transaction.metadata.factory", _WIRE),
    Denied("message.key.columns", "it follows from the tables.", "Set `key` of the table."),
    Denied("message.prefix.*", _ROUTING),
    Denied("include.schema.changes", "no topic is made for them.", "Read the schema history topic."),
    Denied("database.include.list", _CAPTURE, _SET_TABLES),
    Denied("database.exclude.list", _CAPTURE, _SET_TABLES),
    Denied("schema.include.list", _CAPTURE, _SET_TABLES),
    Denied("schema.exclude.list", _CAPTURE, _SET_TABLES),
    Denied("table.include.list", _CAPTURE, _SET_TABLES),
    Denied("table.exclude.list", _CAPTURE, _SET_TABLES),
    Denied("table.whitelist", _CAPTURE, _SET_TABLES),
    Denied("table.blacklist", _CAPTURE, _SET_TABLES),
    Denied("database.dbname", _CAPTURE, "Set the shard's database."),
    Denied("database.hostname", _LEADER, "Use `cdc-platform topology set-leader`."),
    Denied("database.port", _LEADER, "Use `cdc-platform topology set-leader`."),
    Denied("config.action.reload", _LEADER),
    Denied("database.user", "credentials are references.", "Set the dataset's credentials."),
    Denied("database.password", "credentials are references.", "Set the dataset's credentials."),
    Denied("snapshot.mode*", _SNAPSHOT, "Set the dataset's bootstrap."),
    Denied("snapshot.select.statement.overrides*", "rows that a snapshot skips are missing."),
    Denied("snapshot.include.collection.list", _SNAPSHOT),
    Denied("snapshot.query.mode*", _SNAPSHOT),
    Denied("read.only", _SNAPSHOT),
    Denied("signal.*", _SNAPSHOT),
    Denied("notification.*", _SNAPSHOT),
    Denied("schema.history.internal.kafka.*", _IDENTITY),
    Denied("schema.history.internal.producer.*", "Kafka is the platform's.", "Set worker_kafka in the settings."),
    Denied("schema.history.internal.consumer.*", "Kafka is the platform's.", "Set worker_kafka in the settings."),
    Denied("schema.history.internal.skip.unparseable.ddl", _LOSS),
    Denied("schema.history.internal", "a history that is not in Kafka does not move with the task."),
    Denied("database.initial.statements", "what it sets for the session changes how values are read."),
    Denied("driver.sessionVariables", "what it sets for the session changes how values are read."),
    Denied("driver.connectionTimeZone", _WIRE),
    Denied("driver.forceConnectionTimeZoneToSession", _WIRE),
    Denied("enable.time.adjuster", _WIRE),
    Denied("money.fraction.digits", _WIRE),
    Denied("heartbeat.action.query", _LIVENESS),
    Denied("connect.keep.alive*", _LIVENESS, "Set limits.bytes_per_second: it follows from that."),
    Denied(
        "errors.retry.timeout",
        "a task that retries for ever looks alive.",
        "The platform restarts it with growing waits.",
    ),
    Denied("plugin.name", "slots and publications are made for pgoutput."),
    Denied("slot.drop.on.stop", "a new slot starts later than the old one ended: events are lost."),
    Denied("offset.mismatch.strategy", _LOSS),
    Denied("slot.seek.to.known.offset.on.start", _LOSS),
    Denied("lsn.flush.mode", "the slot must never run ahead of what Kafka holds."),
    Denied("flush.lsn.source", "the source would keep its WAL for ever."),
    Denied("gtid.source.*", _LOSS),
    Denied("event.deserialization.failure.handling.mode", _LOSS),
    Denied("internal.*", "Debezium reserves these."),
    Denied("exactly.once.support", "delivery is at least once (docs/decisions/0040)."),
    Denied("transaction.boundary*", "delivery is at least once (docs/decisions/0040)."),
    Denied("offsets.storage.topic", "offsets move with the connector through Connect's REST API."),
    Denied("producer.override.bootstrap.servers", "the topics are made on the platform's Kafka."),
    Denied("producer.override.acks", _DELIVERY),
    Denied("producer.override.enable.idempotence", _DELIVERY),
    Denied("producer.override.max.in.flight.requests.per.connection", _DELIVERY),
    Denied("producer.override.transactional.id", "delivery is at least once (docs/decisions/0040)."),
    Denied("producer.override.client.id", "rate limits go by it.", "Set limits.bytes_per_second."),
    Denied("producer.override.partitioner.*", "all versions of a row must stay in one partition."),
    Denied("producer.override.interceptor.classes", _LOSS),
    Denied("producer.override.key.serializer", _WIRE),
    Denied("producer.override.value.serializer", _WIRE),
    *(Denied(fixed.option, f"{_WIRE} {fixed.reason}") for fixed in FIXED),
)

# Whole numbers: the least and the most that make sense.
_NUMBERS: Mapping[str, range] = {
    # A third of the silence after which a shard counts as dead (liveness.LivenessPolicy).
    "heartbeat.interval.ms": range(1, 20_001),
    "max.queue.size": range(1, 2**31),
    "max.batch.size": range(1, 2**31),
    "max.queue.size.in.bytes": range(1, 2**63),
    # -1 retries for ever, with the address of the old leader, and looks alive meanwhile.
    "errors.max.retries": range(101),
}
_ONE_OF: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys((*CHOSEN, "slot.failover"), ("true", "false")),
    # `disabled` is for publications made by hand; the others publish too much, or nothing.
    "publication.autocreate.mode": ("filtered", "disabled"),
}


def check_dataset(dataset: Dataset, settings: Settings) -> None:
    """Raises OverrideRefused for the first of the dataset's overrides or key columns that is not allowed."""
    where = f"dataset {dataset.name}"
    for name, text in (("user", dataset.credentials.user), ("password", dataset.credentials.password)):
        foreign = foreign_reference(text, dataset.name, settings.secrets_dirs)
        if foreign:
            raise OverrideRefused(foreign[0], where=where, field=f"credentials.{name}", cure=foreign[1])
    _check(dataset.connector, where, dataset, settings)
    for table in dataset.tables:
        if SHARD_KEY_FIELD in table.key:
            raise OverrideRefused(
                f"a key column is named {SHARD_KEY_FIELD!r}, as the field that tells shards apart.",
                where=where,
                field=f"tables.{table.name}.key",
                cure="Name other columns that identify a row, or rename it in the source.",
            )
    if SERVER_ID_FIELD in dataset.connector:
        raise _refused(
            where, SERVER_ID_FIELD, "all shards would share it.", "Set it in the `connector` field of one shard."
        )


def check_shard(dataset: Dataset, shard: Shard, settings: Settings) -> None:
    """Raises OverrideRefused for the first of the shard's servers or overrides that is not allowed."""
    where = f"shard {shard.name}"
    for field, server in (("leader", shard.leader), *(("replicas", replica) for replica in shard.replicas)):
        if not is_permitted_host(server.host, settings.source_hosts):
            raise OverrideRefused(
                f"{server} is not among the hosts that an operator permits.",
                where=where,
                field=field,
                cure="Correct it, or add the host to source_hosts in the settings of control plane and agents.",
            )
    if not shard.connector:
        return
    _check(shard.connector, where, dataset, settings)
    number = shard.connector.get(SERVER_ID_FIELD)
    if number is not None:
        if dataset.engine is Engine.POSTGRES:
            raise _refused(where, SERVER_ID_FIELD, "Postgres has no server ids.", _REMOVE)
        if not (number.isascii() and number.isdigit() and 0 < int(number) < SERVER_IDS.stop):
            raise _refused(
                where, SERVER_ID_FIELD, f"{number!r} is not a server id.", f"Use 1 to {SERVER_IDS.stop - 1}."
            )


def _check(overrides: Mapping[str, str], where: str, dataset: Dataset, settings: Settings) -> None:
    for option, value in overrides.items():
        denied = _denied(option)
        if denied is not None:
            raise _refused(where, option, f"may not be set: {denied.reason}", denied.cure)
        if not option or re.search(r"[^\x21-\x7e]", option):
            raise _refused(
                where, option, "is not an option's name.", "Write it without spaces, as in poll.interval.ms."
            )
        if not isinstance(value, str):
            raise _refused(where, option, "its value is not text.", "Write it in quotes.")
        if is_secret_in_plain_text(option, value):
            raise _refused(
                where,
                option,
                "looks like a secret, but is not a reference (its value is not shown here).",
                "Write ${file:/PATH:KEY} or ${env:NAME}.",
            )
        _check_harmless(option, value, where, dataset, settings)
        pattern = refused_pattern(value) if option in PATTERN_OPTIONS else None
        if pattern is not None:
            raise _refused(where, option, f"{pattern}.", CURE)
        if option == ddl_filter.OPTION and not ddl_filter.is_exact(value):
            raise _refused(
                where,
                option,
                "a pattern of several statements may pass over a change of a captured table.",
                "Let `cdc-platform topology skip-statement DATASET SHARD` write it.",
            )
        number = _NUMBERS.get(option)
        if number and not (value.isascii() and value.isdigit() and len(value) < 20 and int(value) in number):
            bounds = f"{number.start} to {number.stop - 1}"
            raise _refused(
                where, option, f"{value!r} must be a whole number from {bounds}.", "Write one, or remove it."
            )
        allowed = _ONE_OF.get(option)
        if allowed and value not in allowed:
            raise _refused(where, option, f"{value!r} may not be set.", f"Write {' or '.join(allowed)}.")


def _check_harmless(option: str, value: str, where: str, dataset: Dataset, settings: Settings) -> None:
    """Nothing of the worker's, of Kafka's or of another dataset can be named, and TLS cannot be weakened."""
    permitted = settings.permitted_connector_options
    if settings.source_ca and option in TLS_OPTIONS:
        raise _refused(where, option, "may not be set: the operator's source_ca decides on TLS to sources.", _REMOVE)
    permit = f"An operator can permit it for all datasets: {permitted_options.SETTING} in the settings."
    if permitted_options.not_permitted(option, permitted):
        raise _refused(where, option, "is not known to be harmless: it may name code, files or servers.", permit)
    if "${" in value and not names_secret(option):
        raise _refused(
            where,
            option,
            "may hold no reference: it is not a credential, and errors of connectors print its value.",
            "Write the value itself.",
        )
    foreign = foreign_reference(value, dataset.name, settings.secrets_dirs) if "${" in value else None
    if foreign:
        raise _refused(where, option, *foreign)
    if permitted_options.names_tls_file(option) and not permitted_options.is_permitted(option, permitted):
        foreign = foreign_reference(f"${{file:{value}:-}}", dataset.name, settings.secrets_dirs)
        if foreign:
            raise _refused(
                where, option, foreign[0], f"Put the file below the dataset's own directory of secrets. {permit}"
            )
    is_text = permitted_options.names_something(option, value) and not names_secret(option)
    if is_text and not permitted_options.is_permitted(option, permitted):
        raise _refused(where, option, f"{value!r} must be a number or a word.", permit)
    modes = permitted_options.weak_tls_mode(option, value)
    if modes and not permitted_options.is_permitted(option, permitted):
        raise _refused(
            where,
            option,
            f"{value!r} leaves the connection open to others.",
            f"Write one of {', '.join(modes)}. {permit}",
        )


@lru_cache(maxsize=4096)
def _denied(option: str) -> Denied | None:
    if option in CHOSEN or option == ddl_filter.OPTION:
        return None
    # Connect and Debezium compare names exactly; Debezium trims none.
    return next((rule for rule in DENIED if rule.matches(option.strip())), None)


def _refused(where: str, option: str, message: str, cure: str) -> OverrideRefused:
    return OverrideRefused(message, where=where, field=f"connector.{option}", cure=cure)
