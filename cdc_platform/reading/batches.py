"""Rows of wire tokens as Arrow record batches, typed as at the source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from cdc_platform.canonical.arrow_columns import ArrowColumn, Unheld, arrow_fields
from cdc_platform.canonical.columns import Column
from cdc_platform.errors import BadInput
from cdc_platform.model.topology import Engine

# What stands beside a table's own columns.
SHARD = "cdc_shard"
UNHELD = "cdc_unheld"
OPERATION = "cdc_operation"
POSITION = "cdc_position"

UPSERT, DELETE = "upsert", "delete"

UNHELD_TYPE = pa.map_(pa.string(), pa.string())


class BatchBuilder:
    """Collects rows; `extra` are columns beside `cdc_shard`, the table's own and `cdc_unheld`, with their types.

    Raises BadInput when a column of the table has the name of one of them.
    """

    def __init__(
        self, engine: Engine, columns: Sequence[Column], extra: Mapping[str, pa.DataType] | None = None
    ) -> None:
        self._extra = dict(extra or {})
        self._columns = arrow_fields(engine, tuple(columns))
        own = {SHARD, UNHELD, *self._extra}
        if taken := sorted(own & {column.name for column in columns}):
            raise BadInput(
                f"the table has a column {taken[0]}, which is the name of one that is put beside its own.",
                cure="Leave it out of the capture, or rename it at the source.",
            )
        self.schema = pa.schema(
            [
                pa.field(SHARD, pa.string(), nullable=False),
                *(pa.field(name, kind) for name, kind in self._extra.items()),
                *(found for found, _ in self._columns),
                pa.field(UNHELD, UNHELD_TYPE),
            ]
        )
        self._labels = {found.name: list(made.labels) for found, made in self._columns if _is_labelled(made)}
        self._start()

    def __len__(self) -> int:
        return len(self._shards)

    def add(
        self,
        shard: str,
        tokens: Mapping[str, bytes | None],
        extra: Mapping[str, Any] | None = None,
        unheld: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Take a row in; columns without a token are NULL. `unheld`: what is known to be so, beside what is found."""
        self._shards.append(shard)
        for name, values in self._more.items():
            values.append((extra or {}).get(name))
        unheld = list(unheld)
        for (found, made), values in zip(self._columns, self._values, strict=True):
            try:
                values.append(made.value(tokens.get(found.name) or b"null"))
            except Unheld as value:
                values.append(None)
                unheld.append((found.name, value.text))
        self._unheld.append(unheld or None)

    def batch(self) -> pa.RecordBatch:
        """What was collected; nothing is left of it here."""
        arrays: list[pa.Array] = [pa.array(self._shards, pa.string())]
        arrays += [pa.array(self._more[name], kind) for name, kind in self._extra.items()]
        for at, (found, made) in enumerate(self._columns):
            arrays.append(self._array(at, found.name, made))
        arrays.append(pa.array(self._unheld, UNHELD_TYPE))
        self._start()
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _start(self) -> None:
        self._shards: list[str] = []
        self._more: dict[str, list[Any]] = {name: [] for name in self._extra}
        self._values: list[list[Any]] = [[] for _ in self._columns]
        self._unheld: list[list[tuple[str, str]] | None] = []

    def _array(self, at: int, name: str, made: ArrowColumn) -> pa.Array:
        values = self._values[at]
        if _is_labelled(made):
            return self._dictionary(name, values)
        try:
            return pa.array(values, made.type)
        except (pa.ArrowInvalid, OverflowError):
            # A value beyond the type: a column that was altered since the reader asked for the table's shape.
            return pa.array([self._held(at, row, name, made) for row in range(len(values))], made.type)

    def _held(self, at: int, row: int, name: str, made: ArrowColumn) -> Any:
        value = self._values[at][row]
        try:
            pa.array([value], made.type)
        except (pa.ArrowInvalid, OverflowError):
            self._unheld[row] = [*(self._unheld[row] or ()), (name, made.token(value).decode())]
            return None
        return value

    def _dictionary(self, name: str, values: Sequence[str | None]) -> pa.Array:
        labels = self._labels[name]
        index = {label: at for at, label in enumerate(labels)}
        for value in values:
            # Labels that were added since, or that the catalog does not list.
            if value is not None and value not in index:
                index[value] = len(labels)
                labels.append(value)
        codes = pa.array([None if value is None else index[value] for value in values], pa.int32())
        ordered = bool(self.schema.field(name).type.ordered)
        return pa.DictionaryArray.from_arrays(codes, pa.array(labels, pa.string()), ordered=ordered)


def _is_labelled(made: ArrowColumn) -> bool:
    return bool(pa.types.is_dictionary(made.type))
