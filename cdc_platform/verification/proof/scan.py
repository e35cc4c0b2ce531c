"""One shard's table read chunk by chunk, each chunk in its own bracket; resumable.

What was read lies on disk as sorted files; the list of chunks is the checkpoint.
Chunks are read in any order and written down in that of the key. A chunk's
bracket stays true for ever, so a run that was killed goes on behind the last
chunk that it wrote down.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from cdc_platform.canonical import hash_sql as engines
from cdc_platform.canonical.columns import Shape
from cdc_platform.clients.sources.source import Key, Slice
from cdc_platform.model.positions import Position, parse_position
from cdc_platform.verification.proof.change_events import Words, digests, gathered, spread
from cdc_platform.verification.proof.comparison import NOWHERE, Bracket, Indexes, SourceRows
from cdc_platform.verification.proof.connection_pool import ConnectionPool
from cdc_platform.verification.storage import sorted_files
from cdc_platform.verification.storage.cache import KEPT_SECONDS, cache_path, remove, remove_others
from cdc_platform.verification.storage.state_directory import StateDirectory

VERSION = 1

ROW = np.dtype([("key", "u8"), ("row", "u8"), ("chunk", "u4")])

# Rows a SELECT: some 30 ms of the server's time, and a bracket of a few transactions.
CHUNK_ROWS = 10_000

# Chunks that a table must have for each connection that reads it: below that, opening one gains nothing.
_CHUNKS_A_CONNECTION = 8

# Rows in memory before they are sorted and written, and the list of chunks with them.
_SPILL_ROWS = 500_000
_SPILL_CHUNKS = 100


@dataclass(frozen=True, slots=True)
class Chunk:
    """A range of keys (above `after` up to `until`) and the bracket it was read in."""

    after: Key | None
    until: Key | None
    bracket: Bracket


class ScanState(msgspec.Struct, frozen=True, kw_only=True, rename={"start": "since", "files": "runs"}):
    """A scan as it is on disk, for tables whose shape has this fingerprint. Positions are text."""

    fingerprint: str
    start: str
    files: tuple[str, ...]
    rows: int
    complete: bool
    chunks: tuple[tuple[Key | None, Key | None, str, str], ...]
    version: int = VERSION


class Scan:
    """The rows of one shard as they were read. `shape` says what a row is.

    `start`: where the source was before the first chunk was read; no bracket begins earlier.
    """

    def __init__(self, home: Path, names: Sequence[str], shape: Shape) -> None:
        self._home = home
        self._directory = StateDirectory(
            cache_path(home, "scans", *names), version=VERSION, file="scan.json", unversioned=1
        )
        self._path = self._directory.path
        self._shape = shape
        self._integer = engines.integer_key(shape)
        self.start: Position | None = None
        self.chunks: list[Chunk] = []
        self.complete = False
        self.rows = 0
        self._files: list[str] = []
        self._unsaved: list[Any] = []
        self._unsaved_rows = 0
        self._load()

    def run(self, pool: ConnectionPool, progress: Callable[[int], None], *, chunk_rows: int = CHUNK_ROWS) -> None:
        """Read what has not been read. Raises SourceUnavailable and SourceRejected; then call it again."""
        if self.start is None:
            self.start = pool.first.position()
        after = self.chunks[-1].until if self.chunks else None
        more = not self.complete
        reads: deque[tuple[Key | None, Key | None, Future[Slice]]] = deque()
        while more or reads:
            if more:
                until = pool.first.chunk_end(after, chunk_rows)
                if until is not None and len(self.chunks) + len(reads) >= _CHUNKS_A_CONNECTION * pool.size:
                    pool.grow()
                reads.append((after, until, pool.read(after, until)))
                after, more = until, until is not None
            # What is read ahead of a slow chunk waits in memory: two chunks a connection.
            while reads and (reads[0][2].done() or not more or len(reads) > 2 * pool.size):
                begin, end, read = reads.popleft()
                found = read.result()
                self._add(found, Chunk(begin, end, Bracket(found.low, found.high)))
                progress(len(found.keys))
        self._save()

    def source_rows(self, first: int, end: int, only: Words | None = None) -> SourceRows:
        """The rows with keys (as the fold stores them) from `first` up to, not with, `end`; `only` picks among them."""
        until = (0, end) if end < 1 << 64 else (1, 0)
        files = [sorted_files.read(self._path / name, ROW) for name in self._files]
        parts = [sorted_files.between(rows, (0, first), until) for rows in files]
        if only is not None:
            parts = [sorted_files.picked(part, only) for part in parts]
        found = np.concatenate([np.zeros(0, dtype=ROW), *parts])
        return SourceRows(found["key"].copy(), found["row"].copy(), found["chunk"].astype(np.int64))

    def chunks_of(self, keys: Words) -> Indexes:
        """For each key (as the fold stores it) the chunk it belongs to; NOWHERE where that is unknown."""
        if not self._integer or not self.chunks:
            return np.full(len(keys), NOWHERE, dtype=np.int64)
        unsigned = self._shape.column(self._shape.key[0]).unsigned
        kind = np.uint64 if unsigned else np.int64
        ends = np.array([int(chunk.until[0]) for chunk in self.chunks if chunk.until is not None], dtype=kind)
        return np.searchsorted(ends, gathered(keys).view(kind), side="left").astype(np.int64)

    def brackets(self) -> list[Bracket]:
        """The brackets, by chunk."""
        return [chunk.bracket for chunk in self.chunks]

    def discard(self) -> None:
        """Remove what is on disk."""
        remove(self._home, self._path)

    def _add(self, found: Slice, chunk: Chunk) -> None:
        rows = np.zeros(len(found.keys), dtype=ROW)
        rows["key"] = stored_keys(self._integer, found.keys)
        rows["row"] = digests(found.rows)
        rows["chunk"] = len(self.chunks)
        self.chunks.append(chunk)
        self.complete = chunk.until is None
        self.rows += len(rows)
        self._unsaved.append(rows)
        self._unsaved_rows += len(rows)
        if self._unsaved_rows >= _SPILL_ROWS or len(self._unsaved) >= _SPILL_CHUNKS:
            self._save()

    def _save(self) -> None:
        if not self._unsaved:
            return
        rows = np.concatenate(self._unsaved)
        name = f"rows-{len(self._files)}"
        sorted_files.write(self._path / name, [rows[np.argsort(rows["key"], kind="stable")]])
        self._files.append(name)
        self._unsaved, self._unsaved_rows = [], 0
        self._directory.save(
            ScanState(
                fingerprint=self._shape.fingerprint,
                start=str(self.start),
                files=tuple(self._files),
                rows=self.rows,
                complete=self.complete,
                chunks=tuple(
                    (one.after, one.until, str(one.bracket.low), str(one.bracket.high)) for one in self.chunks
                ),
            )
        )

    def _load(self) -> None:
        state = self._directory.load(ScanState)
        if state is None or state.fingerprint != self._shape.fingerprint:
            return
        engine = self._shape.engine
        self.start = parse_position(engine, state.start)
        for after, until, low, high in state.chunks:
            first = parse_position(engine, low)
            self.chunks.append(
                Chunk(after, until, Bracket(first, first if high == low else parse_position(engine, high)))
            )
        self._files = list(state.files)
        self.rows, self.complete = state.rows, state.complete


def remove_old_scans(home: Path, run_id: str) -> None:
    """Remove those of runs that were killed, or ended as pending, and that were not resumed; never this run's."""
    remove_others(home, cache_path(home, "scans", run_id), idle_s=KEPT_SECONDS)


def stored_keys(integer: bool, keys: Words) -> Words:
    """Keys of a source as the fold stores them."""
    return spread(keys) if integer else keys
