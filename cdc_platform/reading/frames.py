"""Arrow batches as what people work with: Arrow, Polars, pandas or DuckDB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cdc_platform.errors import require_extra

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import polars as pl


def to_polars(batches: pa.RecordBatchReader) -> pl.DataFrame:
    """A Polars frame, in memory. Decimals of more than 38 digits are text. Raises ExtraMissing."""
    require_extra("lake")
    import polars as pl

    found = pl.from_arrow(_narrowed(batches).read_all())
    if not isinstance(found, pl.DataFrame):
        raise TypeError("not a table")
    return found


def to_pandas(batches: pa.RecordBatchReader) -> pd.DataFrame:
    """A pandas frame of Arrow's types, in memory: NULLs stay NULLs, and decimals decimals."""
    import pandas as pd

    return batches.read_all().to_pandas(types_mapper=pd.ArrowDtype)


def to_duckdb(batches: pa.RecordBatchReader, connection: Any = None, name: str = "topic") -> duckdb.DuckDBPyRelation:
    """A relation over a temporary table `name`, in a connection of its own by default; what is large DuckDB spills.

    Decimals of more than 38 digits are text. Raises ExtraMissing.
    """
    require_extra("lake")
    import duckdb

    connection = connection or duckdb.connect()
    reader = _narrowed(batches)
    quoted = '"' + name.replace('"', '""') + '"'
    connection.register("cdc_batches", reader)
    try:
        connection.execute(f"CREATE OR REPLACE TEMPORARY TABLE {quoted} AS SELECT * FROM cdc_batches")
    finally:
        connection.unregister("cdc_batches")
    found: duckdb.DuckDBPyRelation = connection.table(name)
    return found


def _narrowed(batches: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """Decimals that neither Polars nor DuckDB can hold as text."""
    wide = [at for at, each in enumerate(batches.schema) if pa.types.is_decimal256(each.type)]
    if not wide:
        return batches
    schema = batches.schema
    for at in wide:
        schema = schema.set(at, schema.field(at).with_type(pa.string()))

    def texts(column: pa.Array) -> pa.Array:
        return pa.array([None if value is None else format(value, "f") for value in column.to_pylist()], pa.string())

    def narrowed() -> Any:
        for batch in batches:
            columns = [texts(each) if at in wide else each for at, each in enumerate(batch.columns)]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, narrowed())
