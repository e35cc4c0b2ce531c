"""Columns as Iceberg has them: what of Arrow's types it lacks, by the next wider one that it has."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

_DIGITS = 38  # of a decimal in Iceberg


def lake_type(kind: pa.DataType) -> pa.DataType:
    """Small and unsigned integers become wider ones, ENUMs and long decimals text, a TIME of MariaDB microseconds."""
    if pa.types.is_dictionary(kind) or (pa.types.is_decimal(kind) and kind.precision > _DIGITS):
        return pa.string()
    if kind in (pa.int8(), pa.int16(), pa.uint8(), pa.uint16()):
        return pa.int32()
    if kind == pa.uint32() or pa.types.is_duration(kind):
        return pa.int64()
    if kind == pa.uint64():
        return pa.decimal128(20, 0)
    if pa.types.is_list(kind):
        return pa.list_(lake_type(kind.value_type))
    return kind


def lake_schema(schema: pa.Schema) -> pa.Schema:
    """All of a batch's fields so; every one may be NULL."""
    return pa.schema([pa.field(each.name, lake_type(each.type)) for each in schema])


def lake_batch(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch in the types of `lake_schema` of its own."""
    arrays = [_converted(array, field.type) for array, field in zip(batch.columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _converted(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if array.type == kind:
        return array
    if pa.types.is_decimal(array.type) and pa.types.is_string(kind):
        return pa.array([None if value is None else format(value, "f") for value in array.to_pylist()], kind)
    return array.cast(kind)


def plain_values(array: pa.Array) -> list[Any]:
    """The values as `ArrowColumn.token` takes them: dates and times as integers."""
    kind = array.type
    if pa.types.is_timestamp(kind) or pa.types.is_time(kind) or pa.types.is_duration(kind):
        array = array.cast(pa.int64())
    elif pa.types.is_date32(kind):
        array = array.cast(pa.int32())
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _lists(array)
    found: list[Any] = array.to_pylist()
    return found


def _lists(array: pa.Array) -> list[Any]:
    flat, sizes, found, at = plain_values(array.flatten()), array.value_lengths().to_pylist(), [], 0
    for size in sizes:
        found.append(None if size is None else flat[at : at + size])
        at += size or 0
    return found
