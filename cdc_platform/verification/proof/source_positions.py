"""Source positions of decoded events: which transaction, and where in it. By engine."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cdc_platform.model.position_codec import format_lsn
from cdc_platform.model.positions import mysql_transaction
from cdc_platform.model.topology import Engine
from cdc_platform.verification.proof.change_events import (
    ORIGIN_BITS,
)

# Bits of `sub` for the row within an event, and above them for the offset in the binlog file.
_ROW_BITS = 20
_LAST_ROW = (1 << _ROW_BITS) - 1
_LAST_OFFSET = (1 << (ORIGIN_BITS - _ROW_BITS)) - 1


def _binlog_positions(found: Sequence[Any], events: Any) -> None:
    """`domain-server-sequence`; sub is the offset in the binlog."""
    texts = [item.source.gtid or "0-0-0" for item in found]
    numbers = np.fromstring("-".join(texts).replace("-", " "), sep=" ", dtype=np.uint64)
    if len(numbers) != 3 * len(texts):
        raise ValueError("not a GTID of MariaDB")
    numbers = numbers.reshape(-1, 3)
    events["stream"] = numbers[:, 0]
    events["seq"] = numbers[:, 2]
    events["sub"] = _binlog_offsets(found)


def _mysql_positions(found: Sequence[Any], events: Any) -> None:
    """`uuid:number`, or `uuid:tag:number`."""
    transactions = [mysql_transaction(item.source.gtid or "00000000:0") for item in found]
    events["stream"] = [stream for stream, _ in transactions]
    events["seq"] = [number for _, number in transactions]
    events["sub"] = _binlog_offsets(found)


class _FileBits(dict[str | None, int]):
    """Seven bits for the name of a binlog file, above those for the offset in it and for the row."""

    def __missing__(self, name: str | None) -> int:
        self[name] = (zlib.crc32((name or "").encode()) & 0x7F) << ORIGIN_BITS
        return self[name]


_FILES = _FileBits()


def _binlog_offsets(events: Sequence[Any]) -> npt.NDArray[np.uint64]:
    sources = [item.source for item in events]
    found = np.array([source.pos for source in sources], dtype=np.uint64)
    found &= np.uint64(_LAST_OFFSET)
    found <<= np.uint64(_ROW_BITS)
    rows = [source.row for source in sources]
    if any(rows):
        found |= np.array([min(row or 0, _LAST_ROW) for row in rows], dtype=np.uint64)
    found |= np.array([_FILES[source.file] for source in sources], dtype=np.uint64)
    return found


def _postgres_positions(found: Sequence[Any], events: Any) -> None:
    """Transaction id and LSN."""
    events["stream"] = [(item.source.txId or 0) & 0xFFFFFFFF for item in found]
    events["seq"] = [item.source.lsn or 0 for item in found]


# An array of positions alone.
POSITION_DTYPE = np.dtype([("stream", "u4"), ("seq", "u8"), ("sub", "u8")])

# Writes stream, seq and sub of decoded envelopes into an array that has these fields.
POSITIONS: dict[Engine, Callable[[Sequence[Any], Any], None]] = {
    Engine.MARIADB: _binlog_positions,
    Engine.MYSQL: _mysql_positions,
    Engine.POSTGRES: _postgres_positions,
}


def position_text(engine: Engine, event: Any) -> str | None:
    """Where an envelope's change was made, for people: a GTID, or the LSN of the row. None: a snapshot read it."""
    if event.op == "r":
        return None
    if engine.reads_binlog:
        return str(event.source.gtid) if event.source.gtid else None
    return None if event.source.lsn is None else format_lsn(event.source.lsn)
