"""Documents to topology values and back: the same fields in a znode's JSON and in the YAML file.

`decode_*` raise TopologyError with place, field and cure. Fields that this
version does not know are kept in `extra` where the value has one (`strict`
refuses them instead). `encode_*` leave out what has its default value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from cdc_platform.documents.fields import Fields, join, located, refuse_plain_secrets
from cdc_platform.errors import TopologyError
from cdc_platform.model.source_log import DEFAULT_SOURCE_LOG, SourceLog, WhenFull
from cdc_platform.model.topology import (
    EMPTY,
    LEADER_DIR,
    BootstrapMode,
    Cluster,
    Credentials,
    Dataset,
    Engine,
    Limits,
    Pause,
    Shard,
    Table,
    TopicSpec,
)
from cdc_platform.model.watched import WatchedConnector

Document = dict[str, Any]

DEFAULT_LIMITS = Limits()
DEFAULT_TOPICS = TopicSpec()
MAX_PAUSE_TEXT = 2000


def decode_cluster(name: str, raw: Any, *, where: str, path: str = "", strict: bool = False) -> Cluster:
    """A Connect cluster."""
    refuse_plain_secrets(raw, where=where, path=path)
    fields = Fields(raw, where=where, path=path)
    urls = fields.texts("urls")
    for index, url in enumerate(urls):
        if _has_password(url):
            raise fields.error(
                f"urls[{index}]",
                "holds a user or password (not shown here).",
                "Give credentials in the settings, by reference.",
            )
    capacity = fields.whole("capacity", 3000, least=1, most=1_000_000)
    leader_dir = fields.text("leader_dir", LEADER_DIR)
    labels = fields.text_map("labels")
    metrics = fields.text_map("metrics")
    draining = fields.boolean("draining", False)
    watched = _watched(fields, strict)
    extra = _extra(fields, strict)
    with located(where, path):
        return Cluster(
            name=name,
            urls=urls,
            capacity=capacity,
            leader_dir=leader_dir,
            labels=labels or EMPTY,
            metrics=metrics or EMPTY,
            draining=draining,
            watched=watched,
            extra=extra,
        )


def encode_cluster(cluster: Cluster) -> Document:
    """The cluster's document, without its name."""
    known = _without(
        {
            "urls": list(cluster.urls),
            "capacity": cluster.capacity,
            "leader_dir": _unless(cluster.leader_dir, LEADER_DIR),
            "labels": dict(cluster.labels),
            "metrics": dict(cluster.metrics),
            "draining": _unless(cluster.draining, False),
            "watched": {name: _without({"owners": list(one.owners)}) for name, one in sorted(cluster.watched.items())},
        }
    )
    return {**known, **{k: v for k, v in cluster.extra.items() if k not in known}}


def decode_dataset(name: str, raw: Any, *, where: str, path: str = "", strict: bool = False) -> Dataset:
    """A dataset, without its shards."""
    refuse_plain_secrets(raw, where=where, path=path)
    fields = Fields(raw, where=where, path=path)
    engine = fields.choice("engine", Engine)
    tables = fields.items("tables", lambda entry, at: _table(entry, where=where, path=at, strict=strict))
    topic_pattern = fields.text("topic_pattern", "cdc.{dataset}.{table}")
    clusters = fields.texts("clusters")
    credentials = _credentials(fields, strict)
    topics = _topics(fields.inner("topics"), strict)
    bootstrap = fields.choice("bootstrap", BootstrapMode, BootstrapMode.INCREMENTAL)
    connector = fields.text_map("connector")
    limits = _limits(fields.inner("limits"), strict)
    source_log = _source_log(fields.inner("source_log"), strict)
    verification = fields.free("verification")
    lake = fields.free("lake")
    windows = fields.free("windows")
    accepted_hazards = fields.texts("accepted_hazards")
    owners = fields.texts("owners")
    pause = _pause(fields, strict)
    if strict:
        fields.has("shards")  # read by the file's own reader
    extra = _extra(fields, strict)
    with located(where, path):
        return Dataset(
            name=name,
            engine=engine,
            tables=tables,
            clusters=clusters,
            credentials=credentials,
            topic_pattern=topic_pattern,
            topics=topics,
            bootstrap=bootstrap,
            connector=connector or EMPTY,
            limits=limits,
            source_log=source_log,
            verification=verification or EMPTY,
            lake=lake or EMPTY,
            windows=windows or EMPTY,
            accepted_hazards=accepted_hazards,
            owners=owners,
            pause=pause,
            extra=extra,
        )


def encode_dataset(dataset: Dataset) -> Document:
    """The dataset's document, without its name and its shards."""
    known = _without(
        {
            "engine": dataset.engine.value,
            "tables": [_encode_table(table) for table in dataset.tables],
            "topic_pattern": _unless(dataset.topic_pattern, "cdc.{dataset}.{table}"),
            "clusters": list(dataset.clusters),
            "credentials": {"user": dataset.credentials.user, "password": dataset.credentials.password},
            "topics": _changed(dataset.topics, DEFAULT_TOPICS),
            "bootstrap": _unless(dataset.bootstrap.value, BootstrapMode.INCREMENTAL.value),
            "connector": dict(dataset.connector),
            "limits": _changed(dataset.limits, DEFAULT_LIMITS),
            "source_log": _changed(dataset.source_log, DEFAULT_SOURCE_LOG),
            "verification": dict(dataset.verification),
            "lake": dict(dataset.lake),
            "windows": dict(dataset.windows),
            "accepted_hazards": list(dataset.accepted_hazards),
            "owners": list(dataset.owners),
            "pause": encode_pause(dataset.pause) if dataset.pause else None,
        }
    )
    return {**known, **{k: v for k, v in dataset.extra.items() if k not in known}}


def decode_shard(dataset: str, shard_id: str, raw: Any, *, where: str, path: str = "", strict: bool = False) -> Shard:
    """One shard of a dataset."""
    refuse_plain_secrets(raw, where=where, path=path)
    fields = Fields(raw, where=where, path=path)
    leader = fields.address("leader")
    database = fields.text("database", cure="Name the shard's database.")
    replicas = fields.addresses("replicas")
    generation = fields.whole("generation", 0)
    connector = fields.text_map("connector")
    pause = _pause(fields, strict)
    extra = _extra(fields, strict)
    try:
        return Shard(
            dataset=dataset,
            id=shard_id,
            leader=leader,
            database=database,
            replicas=replicas,
            generation=generation,
            connector=connector or EMPTY,
            pause=pause,
            extra=extra,
        )
    except TopologyError as error:
        raise TopologyError(
            error.message, where=where, field=join(path, error.field or "") or None, cure=error.cure
        ) from None


def encode_shard(shard: Shard) -> Document:
    """The shard's document, without its dataset and id."""
    known = _without(
        {
            "leader": str(shard.leader),
            "replicas": [str(replica) for replica in shard.replicas],
            "database": shard.database,
            "generation": _unless(shard.generation, 0),
            "connector": dict(shard.connector),
            "pause": encode_pause(shard.pause) if shard.pause else None,
        }
    )
    return {**known, **{k: v for k, v in shard.extra.items() if k not in known}}


def decode_pause(raw: Any, *, where: str, path: str = "", strict: bool = False) -> Pause:
    """A pause: reason, author, and `until` as an ISO 8601 time with its offset."""
    fields = Fields(raw, where=where, path=path)
    reason = fields.text("reason", cure="Say why it is paused.")
    author = fields.text("author", cure="Say who paused it.")
    until = None
    if fields.has("until"):
        text = fields.text("until")
        cure = "Write it as in 2030-01-31T12:00:00+00:00."
        try:
            until = datetime.fromisoformat(text)
        except ValueError:
            raise fields.error("until", f"{text!r} is not a valid time.", cure) from None
        if until.tzinfo is None:
            raise fields.error("until", f"{text!r} has no UTC offset.", cure)
    if strict:
        fields.refuse_unknown()
    return Pause(reason=reason, author=author, until=until)


def encode_pause(pause: Pause) -> Document:
    """The pause's document. Raises TopologyError for an expiry without UTC offset and for over-long text."""
    if pause.until is not None and pause.until.tzinfo is None:
        raise TopologyError("the expiry has no UTC offset.", field="until", cure="Give an aware datetime.")
    if len(pause.reason) > MAX_PAUSE_TEXT or len(pause.author) > MAX_PAUSE_TEXT:
        raise TopologyError("the text is too long.", field="reason", cure=f"Use {MAX_PAUSE_TEXT} characters.")
    return _without(
        {
            "reason": pause.reason,
            "author": pause.author,
            "until": pause.until.isoformat() if pause.until else None,
        },
        keep=("reason", "author"),
    )


def _table(raw: Any, *, where: str, path: str, strict: bool) -> Table:
    if isinstance(raw, str):
        raw = {"name": raw}
    elif not isinstance(raw, Mapping):
        raise TopologyError(
            "must name a table.",
            where=where,
            field=path,
            cure="Write its name (in quotes), or {name: NAME, key: [...]}.",
        )
    fields = Fields(raw, where=where, path=path)
    name = fields.text("name", cure="Name the table.")
    schema = fields.text("schema") if fields.has("schema") else None
    key = fields.texts("key")
    if strict:
        fields.refuse_unknown()
    with located(where, path):
        return Table(name=name, schema=schema, key=key)


def _encode_table(table: Table) -> str | Document:
    if table.schema is None and not table.key:
        return table.name
    return _without({"name": table.name, "schema": table.schema, "key": list(table.key)})


def _credentials(fields: Fields, strict: bool) -> Credentials:
    fields.value("credentials", "Give user and password as ${file:/PATH:KEY} references.")
    inner = fields.inner("credentials")
    credentials = Credentials(user=inner.reference("user"), password=inner.reference("password"))
    if strict:
        inner.refuse_unknown()
    return credentials


def _watched(fields: Fields, strict: bool) -> Mapping[str, WatchedConnector]:
    """Connectors that others made, by name."""
    inner = fields.inner("watched")
    found = {}
    for name in inner.raw:
        one = inner.inner(name)
        found[name] = WatchedConnector(owners=one.texts("owners"))
        if strict:
            one.refuse_unknown()
    return found or EMPTY


def _topics(fields: Fields, strict: bool) -> TopicSpec:
    default = DEFAULT_TOPICS
    spec = TopicSpec(
        partitions=fields.whole("partitions", default.partitions, least=1, most=10_000),
        replication=fields.whole("replication", default.replication, least=1, most=32_767),
        config=fields.text_map("config") or EMPTY,
    )
    if strict:
        fields.refuse_unknown()
    return spec


def _limits(fields: Fields, strict: bool) -> Limits:
    default = DEFAULT_LIMITS
    limits = Limits(
        queue_bytes=fields.whole("queue_bytes", default.queue_bytes, least=1),
        queue_events=fields.whole("queue_events", default.queue_events, least=1),
        batch_events=fields.whole("batch_events", default.batch_events, least=1),
        producer_buffer_bytes=fields.whole("producer_buffer_bytes", default.producer_buffer_bytes, least=1),
        bytes_per_second=fields.optional_whole("bytes_per_second"),
        snapshot_rows_per_second=fields.optional_whole("snapshot_rows_per_second"),
    )
    if strict:
        fields.refuse_unknown()
    return limits


def _source_log(fields: Fields, strict: bool) -> SourceLog:
    default = DEFAULT_SOURCE_LOG
    with located(fields.where, ""):
        found = SourceLog(
            full_bytes=fields.optional_whole("full_bytes"),
            alert_seconds=fields.whole("alert_seconds", default.alert_seconds),
            when_full=fields.choice("when_full", WhenFull, default.when_full),
            outage_seconds=fields.whole("outage_seconds", default.outage_seconds),
        )
    if strict:
        fields.refuse_unknown()
    return found


def _pause(fields: Fields, strict: bool) -> Pause | None:
    if not fields.has("pause"):
        return None
    return decode_pause(fields.raw["pause"], where=fields.where, path=join(fields.path, "pause"), strict=strict)


def _extra(fields: Fields, strict: bool) -> Mapping[str, Any]:
    """Unknown fields. A strict document names them in a mapping `extra` of its own."""
    if not strict:
        return fields.unknown() or EMPTY
    extra = fields.free("extra")
    known = fields.known - {"extra"}
    for name in extra:
        if name in known:
            raise fields.error(f"extra.{name}", "is a field of its own.", "Move it out of `extra`.")
    fields.refuse_unknown()
    return extra or EMPTY


def _has_password(url: str) -> bool:
    try:
        return "@" in urlsplit(url).netloc
    except ValueError:
        return "@" in re.sub(r"^https?://", "", url).partition("/")[0]


def _unless(value: Any, default: Any) -> Any:
    return None if value == default else value


def _changed(value: TopicSpec | Limits | SourceLog, default: TopicSpec | Limits | SourceLog) -> Document:
    names = value.__slots__
    changed = {name: getattr(value, name) for name in names if getattr(value, name) != getattr(default, name)}
    return {name: dict(v) if isinstance(v, Mapping) else v for name, v in changed.items()}


def _without(document: Document, keep: tuple[str, ...] = ()) -> Document:
    return {k: v for k, v in document.items() if k in keep or (v is not None and v != {} and v != [])}
