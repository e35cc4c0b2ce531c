"""What the source says, read without any of our code, against what a reader of the topic was given."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from psycopg import sql

from cdc_platform.model.topology import Engine, Shard
from tests.canonical import torture
from tests.canonical.test_torture import BINLOG_COLUMNS
from tests.verification.proof.harness import Harness

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def python_rows(table: pa.Table) -> list[dict[str, Any]]:
    """The rows as Python values; moments as microseconds where Python's calendar would end."""
    for at, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type) and (pa.compute.year(table[at]).to_numpy() > 9999).any():
            table = table.set_column(at, field.name, table[at].cast(pa.int64()))
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def differences(harness: Harness, shard: Shard, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Every value of table `t` that is not what the reader has, and every row that only one of them has."""
    read = {row["id"]: row for row in rows}
    assert len(read) == len(rows), "a row was read twice"
    return _binlog(harness, shard, read) if harness.engine.reads_binlog else _postgres(harness, shard, read)


def _binlog(harness: Harness, shard: Shard, read: dict[int, dict[str, Any]]) -> list[str]:
    columns = BINLOG_COLUMNS[harness.engine]
    kinds = {"id": "BIGINT", **{name: kind for name, (kind, _) in columns.items()}}
    kinds |= {"gv": "INT", "gs": "INT", "nn": "TIMESTAMP(6)"}
    quoted = ",".join("`" + name.replace("`", "``") + "`" for name in kinds)
    source = {row[0]: dict(zip(kinds, row, strict=True)) for row in harness.execute(shard, f"SELECT {quoted} FROM t")}
    found = [f"{key}: only one has it" for key in source.keys() ^ read.keys()]
    for key in source.keys() & read.keys():
        for name, kind in kinds.items():
            ours, theirs = read[key][name], source[key][name]
            if not _same_binlog(kind, ours, theirs, harness.engine):
                found.append(f"{key} {name} {kind}: read {ours!r}, source {theirs!r}, {read[key]['cdc_unheld']}")
    return found


def _same_binlog(kind: str, ours: Any, theirs: Any, engine: Engine) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    plain = re.split(r"[ (]", kind)[0]
    if (plain == "FLOAT" and "," in kind) or kind == "DOUBLE(10,4)":
        digits = 3 if plain == "FLOAT" else 4
        return f"{ours:.{digits}f}" == f"{theirs:.{digits}f}"
    if plain == "FLOAT":
        return bool(float(f"{ours:.6g}") == theirs)
    if plain == "BIT":
        return int(ours) == int.from_bytes(theirs, "big")
    if plain == "TIMESTAMP":
        return bool(ours == theirs.replace(tzinfo=UTC))
    if plain in ("POINT", "GEOMETRY"):
        return bool(ours["wkb"] == theirs[4:] and ours["srid"] == int.from_bytes(theirs[:4], "little"))
    if plain == "SET":
        return bool(",".join(ours) == theirs)
    if plain == "JSON" and engine is Engine.MYSQL:
        return bool(json.loads(ours) == json.loads(theirs))
    if plain == "DOUBLE":
        return repr(float(ours)) == repr(float(theirs))
    return bool(ours == theirs) and type(ours) is type(theirs)


_SENT = {"line": "line_send", "lseg": "lseg_send", "box": "box_send", "path": "path_send", "circle": "circle_send"}


def _postgres(harness: Harness, shard: Shard, read: dict[int, dict[str, Any]]) -> list[str]:
    kinds = {"id": "bigint", **{name: kind for name, (kind, _) in torture.POSTGRES.items()}}
    harness.execute(shard, "SET TimeZone = 'UTC'")
    names = ",".join(_shown(kind, sql.Identifier(name).as_string()) for name, kind in kinds.items())
    source = {
        int(row[0]): dict(zip(kinds, row, strict=True)) for row in harness.execute(shard, f"SELECT {names} FROM t")
    }
    found = [f"{key}: only one has it" for key in source.keys() ^ read.keys()]
    for key in source.keys() & read.keys():
        unheld = dict(read[key]["cdc_unheld"] or ())
        for name, kind in kinds.items():
            ours, theirs = read[key][name], source[key][name]
            if name in unheld:
                same = ours is None and unheld[name] == _unheld_text(theirs)
            elif ours is None or theirs is None:
                same = ours is theirs
            else:
                same = _same_postgres(kind, ours, theirs)
            if not same:
                found.append(f"{key} {name} {kind}: read {ours!r} {unheld.get(name, '')[:80]}, source {theirs!r}")
    return found


def _unheld_text(theirs: Any) -> Any:
    """As it is at the source; of an array its JSON."""
    return theirs if isinstance(theirs, str) else json.dumps(theirs)


def _shown(kind: str, name: str) -> str:
    """SQL: a value's text by its output function, or what compares better."""
    if kind.endswith("[]"):
        items = "SELECT json_agg(CASE WHEN e IS NULL THEN NULL ELSE concat(e,'') END ORDER BY o)"
        items = f"coalesce(({items} FROM unnest({name}) WITH ORDINALITY u(e,o)),'[]')"
        return f"CASE WHEN {name} IS NOT NULL THEN {items} END"
    if kind.startswith("timetz"):
        return f"({name} AT TIME ZONE 'UTC')::time::text"
    if kind.startswith("timestamp"):
        return (
            f"CASE WHEN {name} IN ('infinity','-infinity') THEN {name}::text"
            f" ELSE ((extract(epoch from {name})*1000000)::bigint)::text END"
        )
    if kind == "money":
        return f"{name}::numeric::text"
    if kind == "hstore":
        return f"hstore_to_json({name})::text"
    if kind == "interval":
        parts = ",".join(
            f"extract({part} from {name})::text" for part in ("year", "month", "day", "hour", "minute", "second")
        )
        return f"CASE WHEN {name} IS NOT NULL THEN concat_ws(' ',{parts}) END"
    if kind in _SENT or kind == "polygon":
        return f"encode({_SENT.get(kind, 'poly_send')}({name}),'hex')"
    return f"CASE WHEN num_nulls({name}) = 0 THEN concat({name},'') END"


def _same_postgres(kind: str, ours: Any, theirs: Any) -> bool:
    if kind.endswith("[]"):
        if kind == "time[]":  # the connector keeps milliseconds
            theirs = [item and re.sub(r"([.][0-9]{3})[0-9]+", r"\1", item) for item in theirs]
        return len(ours) == len(theirs) and all(
            mine is his if mine is None or his is None else _same_element(kind[:-2], mine, his)
            for mine, his in zip(ours, theirs, strict=True)
        )
    plain = re.split(r"[ (]", kind)[0]
    if plain in ("timestamp", "timestamptz"):
        if isinstance(ours, int):
            return ours == int(theirs)
        return bool((ours.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1) == int(theirs))
    return _same_element(kind, ours, theirs)


def _same_element(kind: str, ours: Any, theirs: str) -> bool:
    plain = re.split(r"[ (]", kind)[0]
    if plain in ("smallint", "int", "bigint", "oid", "posint"):
        return isinstance(ours, int) and ours == int(theirs)
    if plain in ("real", "double", "float8"):
        value = float(np.float32(theirs)) if plain == "real" else float(theirs)
        return (math.isnan(ours) and math.isnan(value)) or struct.pack(">d", ours) == struct.pack(">d", value)
    if plain == "numeric" and kind == "numeric":
        return bool(ours == theirs)
    if plain in ("numeric", "money"):
        return isinstance(ours, Decimal) and format(ours, "f") == theirs
    if plain == "boolean":
        return isinstance(ours, bool) and ours == (theirs == "t")
    if kind == "bit(1)":
        return isinstance(ours, bool) and ours == (theirs == "1")
    if plain == "bytea":
        return bool(ours == bytes.fromhex(theirs[2:]))
    if plain == "time" and isinstance(ours, int):
        return False
    if plain in ("date", "time", "timetz", "timestamp", "timestamptz"):
        return _as_text(plain, ours) == _as_text(plain, theirs)
    if plain == "hstore":
        return bool(dict(ours) == json.loads(theirs))
    if plain == "interval":
        numbers = [Decimal(part) for part in re.findall(r"-?[0-9.]+", ours)]
        return numbers[:5] == [Decimal(part) for part in theirs.split()[:5]] and abs(
            numbers[5] - Decimal(theirs.split()[5])
        ) <= Decimal("0.000001")
    if plain == "point":
        x, y = theirs[1:-1].split(",")
        return struct.pack(">2d", ours["x"], ours["y"]) == struct.pack(">2d", float(x), float(y))
    if plain == "polygon":
        corners = bytes.fromhex(theirs)[4:]
        closed = len(corners) > 16 and struct.unpack(">2d", corners[:16]) == struct.unpack(">2d", corners[-16:])
        # A last corner that repeats the first is not on the wire (docs/verification.md).
        return bool(ours == (corners[:-16] if closed else corners))
    if plain in _SENT:
        return bool(ours.hex() == theirs)
    return bool(ours == theirs)


def _as_text(kind: str, value: Any) -> str:
    text = str(value)
    if kind == "timestamptz":
        text = text.removesuffix("+00:00").removesuffix("+00")
    return text.rstrip("0").rstrip(".") if "." in text else text
