"""What a table's columns are: by the source's catalog, or while no source answers by the schema on the wire.

The catalog is the truth (docs/decisions/0220): on the wire a DECIMAL is a string as a text is, and BYTES are one too.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import msgspec

from cdc_platform.canonical.columns import Column, Shape
from cdc_platform.clients.kafka.topic_records import Records
from cdc_platform.connectors.identity import SHARD_KEY_FIELD
from cdc_platform.errors import CdcError, SourceUnavailable, TopicUnreadable
from cdc_platform.model.bounded_json import UNREADABLE
from cdc_platform.model.topology import Dataset, Engine, Shard, Table
from cdc_platform.verification.ports import VerificationPorts

log = logging.getLogger(__name__)

# Shards that are asked before the wire has to do: a table of thousands is not asked for at each.
_ASKED = 5

# Records looked at for one with a schema.
_LOOKED_AT = 1_000


def table_shape(
    ports: VerificationPorts, dataset: Dataset, table: Table, shards: Sequence[Shard], records: Records
) -> Shape:
    """The shape of the first shard whose source answers; without one that of the wire, if it has schemas.

    Raises:
        TopicUnreadable: the source has what cannot be read (a type, no key).
        SourceUnavailable: no source answers, and the topic has no schemas.
    """
    problem: CdcError | None = None
    for shard in shards[:_ASKED]:
        try:
            with closing(ports.source(dataset, shard, table)) as source:
                found = source.inspect()
        except CdcError as error:
            problem = problem or error
            continue
        if found.shape is not None:
            return found.shape
        raise TopicUnreadable(
            f"{dataset.name}.{table.name} cannot be read as a table: {'; '.join(found.problems)}.",
            where=f"shard {shard.name}",
            cure="`ignore_columns` of the dataset's `verification` leaves columns out.",
        )
    shape = _wire_shape(dataset.engine, records)
    if shape is None:
        raise SourceUnavailable(
            f"what the columns of {dataset.name}.{table.name} are is not known: no source answers ({problem}), and the "
            "topic's records have no schemas.",
            cure="Read again when a source answers, or let the converters write schemas.",
        )
    log.warning(
        "%s.%s is typed by the schema on the wire, for no source answers (%s): decimals and binary columns are text.",
        dataset.name,
        table.name,
        problem,
    )
    return shape


def _wire_shape(engine: Engine, records: Records) -> Shape | None:
    for partition, (begin, end) in records.bounds().partitions.items():
        for batch in records.read(partition, max(begin, end - _LOOKED_AT), end):
            for key, value in zip(batch.keys, batch.values, strict=True):
                if key is not None and value is not None and (shape := _schema_of(engine, key, value)) is not None:
                    return shape
    return None


def _schema_of(engine: Engine, key: bytes, value: bytes) -> Shape | None:
    try:
        keys = msgspec.json.decode(key)["schema"]["fields"]
        envelope = msgspec.json.decode(value)["schema"]["fields"]
        after = next(each for each in envelope if each["field"] == "after")["fields"]
        names = tuple(each["field"] for each in keys if each["field"] != SHARD_KEY_FIELD)
        columns = tuple(_column(engine, each) for each in after)
    except (*UNREADABLE, KeyError, TypeError, ValueError, StopIteration):
        return None
    # Whether all values are sent is not on the wire.
    return Shape(engine=engine, columns=columns, key=names, complete_rows=engine.reads_binlog)


def _column(engine: Engine, found: Mapping[str, Any]) -> Column:
    parameters = found.get("parameters") or {}
    known = _NAMED if engine.reads_binlog else _NAMED_POSTGRES
    plain = _PLAIN if engine.reads_binlog else _PLAIN_POSTGRES
    name = str(found.get("name") or "").removeprefix("io.debezium.").removeprefix("data.").removeprefix("time.")
    kind = known.get(name) or plain.get(str(found["type"]), "text")
    length = int(parameters["length"]) if "length" in parameters else None
    if kind in ("bit", "timestamp") and length is None:
        length = 1 if kind == "bit" else 6
    return Column(
        name=str(found["field"]),
        type=kind,
        kind="enum" if kind == "enum" and not engine.reads_binlog else "base",
        nullable=bool(found.get("optional", True)),
        length=length,
        charset="utf8mb4" if engine.reads_binlog else None,
        members=_members(str(parameters.get("allowed", ""))) if kind in ("enum", "set") else None,
    )


def _members(allowed: str) -> str | None:
    labels = [label.replace("'", "''") for label in allowed.split(",")] if allowed else []
    return "(" + ",".join(f"'{label}'" for label in labels) + ")" if labels else None


_PLAIN = {
    "int16": "smallint", "int32": "int", "int64": "bigint", "float": "float", "double": "double", "boolean": "bit",
}  # fmt: skip
_PLAIN_POSTGRES = {
    "int16": "int2", "int32": "int4", "int64": "int8", "float": "float4", "double": "float8", "boolean": "bool",
}  # fmt: skip
_NAMED = {
    "Date": "date", "MicroTime": "time", "MicroTimestamp": "datetime", "ZonedTimestamp": "timestamp", "Year": "year",
    "Enum": "enum", "EnumSet": "set", "Json": "json", "Bits": "bit", "geometry.Geometry": "geometry",
    "geometry.Point": "point",
}  # fmt: skip
_NAMED_POSTGRES = {
    "Date": "date", "MicroTime": "time", "MicroTimestamp": "timestamp", "ZonedTimestamp": "timestamptz",
    "ZonedTime": "timetz", "Enum": "enum", "Json": "json", "Uuid": "uuid", "Bits": "varbit", "Interval": "interval",
    "Xml": "xml", "geometry.Point": "point",
}  # fmt: skip
