"""Data files read as the table says they are, or, where something else wrote them, as they stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from cdc_platform.errors import LakeHeld
from cdc_platform.reading.batches import UNHELD, UNHELD_TYPE

if TYPE_CHECKING:
    from pyiceberg.table import DataScan

Reading = Callable[["DataScan"], pa.Table]

# Begins what stands in `cdc_unheld` of a value whose file has another type.
OTHER_TYPE = "\x00of type "


def as_typed(scan: DataScan) -> pa.Table:
    """As pyiceberg reads it, which refuses files that are not of the table's types."""
    return scan.to_arrow()


class DamagedFiles:
    """Reads data files whose columns are of other types: such values are NULL, and `cdc_unheld` says so of each row."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], str] = {}

    def sentences(self) -> tuple[str, ...]:
        """Each file and column that was found so far."""
        return tuple(self._found.values())

    def read(self, scan: DataScan) -> pa.Table:
        """The scan's rows. Raises LakeHeld where what the platform keeps beside the columns is not readable."""
        from pyiceberg.expressions.visitors import bind
        from pyiceberg.io.pyarrow import expression_to_pyarrow, schema_to_pyarrow

        schema = schema_to_pyarrow(scan.projection(), include_field_ids=False)
        chosen = expression_to_pyarrow(bind(scan.projection(), scan.row_filter, case_sensitive=True))
        parts = []
        for task in scan.plan_files():
            path = task.file.file_path
            if task.delete_files:
                raise LakeHeld(f"{path} has delete files beside it.", cure="Compact the table with what wrote them.")
            with scan.io.new_input(path).open() as stream:
                parts.append(self._typed(path, pq.read_table(stream), schema).filter(chosen))
        return pa.concat_tables(parts) if parts else schema.empty_table()

    def _typed(self, path: str, rows: pa.Table, schema: pa.Schema) -> pa.Table:
        columns, texts = {}, {}
        for field in schema:
            if field.name not in rows.schema.names:
                columns[field.name] = pa.nulls(len(rows), field.type)
                continue
            values = rows[field.name]
            if _fits(values.type, field.type):
                columns[field.name] = values.cast(field.type)
                continue
            if field.name.startswith("cdc_"):
                raise LakeHeld(
                    f"{path} has {field.name} as {values.type}, not {field.type}: its rows cannot be identified.",
                    cure="Something else wrote it: rename the lake's tables and let it fill new ones.",
                )
            self._found[path, field.name] = f"{path} has {field.name} as {values.type}, the table as {field.type}."
            texts[field.name] = f"{OTHER_TYPE}{values.type}"
            columns[field.name] = pa.nulls(len(rows), field.type)
        if texts:
            held = [[*(pairs or ()), *texts.items()] for pairs in columns[UNHELD].to_pylist()]
            columns[UNHELD] = pa.array(held, UNHELD_TYPE).cast(schema.field(UNHELD).type)
        return pa.table(columns, schema=schema)


def _fits(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Would Iceberg read it so? Types alike but for their width in memory, and those that it widens."""
    if _kind(found) == _kind(wanted):
        return True
    if pa.types.is_decimal(found) and pa.types.is_decimal(wanted):
        return bool(found.scale == wanted.scale and found.precision <= wanted.precision)
    return (found, wanted) in ((pa.int32(), pa.int64()), (pa.float32(), pa.float64()))


def _kind(kind: pa.DataType) -> str:
    # Names of a list's items and a map's entries, and large kinds of text and bytes, differ between writers.
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"list of {_kind(kind.value_type)}"
    if pa.types.is_map(kind):
        return f"map of {_kind(kind.key_type)} to {_kind(kind.item_type)}"
    if pa.types.is_struct(kind):
        return ", ".join(f"{field.name} {_kind(field.type)}" for field in kind)
    return str(kind).removeprefix("large_")
