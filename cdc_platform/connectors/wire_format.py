"""How events look: fixed, because the proof rebuilds the same bytes from the source.

Each option names its reason; an override of any of them is refused with it.
Option names and values are those of Debezium 3.5 to 3.7 and Kafka Connect 4.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cdc_platform.connectors.worker_properties import JSON_CONVERTER


@dataclass(frozen=True, slots=True)
class Fixed:
    """One option of the wire format, its value and the reason."""

    option: str
    value: str
    reason: str


# The same for all engines; each engine's module adds its own.
COMMON: tuple[Fixed, ...] = (
    Fixed("decimal.handling.mode", "string", "Exact, and the same text as the source's own CAST."),
    Fixed("binary.handling.mode", "hex", "Base64 has two spellings and line breaks; HEX() has one."),
    Fixed(
        "time.precision.mode",
        "microseconds",
        "One unit for every column. The adaptive modes change it with the column's precision, and isostring "
        "drops trailing zeros.",
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
