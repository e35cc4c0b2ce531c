"""How events look: fixed, because the proof rebuilds the same bytes from the source.

Each option names its reason; an override of any of them is refused with it.
Option names and values are those of Debezium 3.5 to 3.7 and Kafka Connect 4.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cdc_platform.connectors.worker_properties import JSON_CONVERTER
from cdc_platform.model.topology import Engine

# What Postgres events hold for a TOAST value that an update left unchanged and
# the replica identity does not carry.
UNAVAILABLE_VALUE = "__debezium_unavailable_value"


@dataclass(frozen=True, slots=True)
class Fixed:
    """One option of the wire format, its value and the reason."""

    option: str
    value: str
    reason: str
    engines: tuple[Engine, ...] = tuple(Engine)


_BINLOG = (Engine.MARIADB, Engine.MYSQL)
_MYSQL = (Engine.MYSQL,)
_POSTGRES = (Engine.POSTGRES,)

FIXED: tuple[Fixed, ...] = (
    Fixed("decimal.handling.mode", "string", "Exact, and the same text as the source's own CAST."),
    Fixed("binary.handling.mode", "hex", "Base64 has two spellings and line breaks; HEX() has one."),
    Fixed(
        "time.precision.mode",
        "microseconds",
        "One unit for every column. The adaptive modes change it with the column's precision, and isostring "
        "drops trailing zeros.",
    ),
    Fixed(
        "bigint.unsigned.handling.mode",
        "precise",
        "Values above 2^63 - 1 become negative numbers otherwise; decimal.format=NUMERIC writes them as numbers.",
        _BINLOG,
    ),
    Fixed(
        "enable.time.adjuster",
        "false",
        "By default the years 0001 to 0099 are taken for two digits and moved to 1970 to 2069; the server has done "
        "that already where it was meant.",
        _BINLOG,
    ),
    Fixed(
        "driver.customCharsetMapping",
        "utf8mb4:UTF-8",
        "On a Java runtime without the module jdk.charsets the driver otherwise takes eucjpms for UTF-8, and damages "
        "the text of snapshots.",
        _MYSQL,
    ),
    Fixed("driver.detectCustomCollations", "true", "driver.customCharsetMapping has no effect without it.", _MYSQL),
    Fixed("interval.handling.mode", "string", "numeric takes a month for 30.4375 days.", _POSTGRES),
    Fixed("hstore.handling.mode", "json", "One text for each value.", _POSTGRES),
    Fixed("include.unknown.datatypes", "true", "A column that is left out cannot be proven.", _POSTGRES),
    Fixed(
        "unavailable.value.placeholder",
        UNAVAILABLE_VALUE,
        "The proof recognises unchanged TOAST values by it.",
        _POSTGRES,
    ),
    Fixed("tombstones.on.delete", "true", "Compaction removes a deleted row only after a tombstone."),
    Fixed(
        "skipped.operations",
        "t",
        "A TRUNCATE event has no key: a compacted topic refuses it and the task dies. The rows it removed "
        "are found by the proof.",
    ),
    Fixed("skip.messages.without.change", "false", "The ledger counts every change of a transaction."),
    Fixed("extended.headers.enabled", "true", "The task run id in the headers tells redelivery from a zombie."),
    Fixed("event.converting.failure.handling.mode", "fail", "The default writes NULL for what it cannot convert."),
    Fixed("event.processing.failure.handling.mode", "fail", "Anything else loses events silently."),
    Fixed("inconsistent.schema.handling.mode", "fail", "Anything else loses events silently.", _BINLOG),
    Fixed("errors.tolerance", "none", "Anything else loses events silently."),
    Fixed("schema.name.adjustment.mode", "none", "Names stay those of the source."),
    Fixed("field.name.adjustment.mode", "none", "Names stay those of the source."),
    Fixed("key.converter", JSON_CONVERTER, "The proof decodes JSON, with or without schemas."),
    Fixed("key.converter.decimal.format", "NUMERIC", "See bigint.unsigned.handling.mode."),
    Fixed("key.converter.replace.null.with.default", "false", "NULL stays NULL."),
    Fixed("value.converter", JSON_CONVERTER, "The proof decodes JSON, with or without schemas."),
    Fixed("value.converter.decimal.format", "NUMERIC", "See bigint.unsigned.handling.mode."),
    Fixed(
        "value.converter.replace.null.with.default",
        "false",
        "By default JsonConverter writes the column's default where the row has NULL.",
    ),
    Fixed(
        "header.converter",
        "org.apache.kafka.connect.storage.SimpleHeaderConverter",
        "Headers are plain text.",
    ),
)

# Part of the wire format that a dataset may choose.
CHOSEN: Mapping[str, str] = {
    "key.converter.schemas.enable": "false",
    "value.converter.schemas.enable": "false",
    # Adds a `transaction` block to each event, and BEGIN and END with counts
    # to a topic: what the ledger compares. Two records a transaction.
    "provide.transaction.metadata": "true",
}


def wire_format(engine: Engine) -> dict[str, str]:
    """The options that fix the wire format of this engine's connectors."""
    return dict(CHOSEN) | {fixed.option: fixed.value for fixed in FIXED if engine in fixed.engines}
