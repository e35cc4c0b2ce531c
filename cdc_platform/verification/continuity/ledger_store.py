"""The ledger of one table on disk: a cache, extended from one check to the next.

`state.json` says how far the transactions' topic was read and what is known of each shard; beside
it lie the ENDs and events that do not balance yet, which normally are few. What was read is
appended to files and balanced part by part, so memory is bounded however much is new. A kill costs
what was read since the last state, and events are dropped from where they come from only after that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from cdc_platform.verification.continuity.handovers import ShardSent
from cdc_platform.verification.continuity.transaction_balance import END, SEEN, Balance, Rows, balance, bucket_of
from cdc_platform.verification.proof.change_events import Words
from cdc_platform.verification.storage import sorted_files
from cdc_platform.verification.storage.cache import cache_path
from cdc_platform.verification.storage.state_directory import StateDirectory, each_locked

VERSION = 1

# Rows balanced at once, some 40 bytes each and four times that for a moment.
BATCH_ROWS = 1_000_000
_PIECE = 250_000

# Transactions that were whole, remembered so that a replay of one opens nothing: 8 bytes each.
REMEMBERED = 500_000

_WAIT_SECONDS = 600.0


class ShardLedger(msgspec.Struct):
    """What is known of one shard. `runs` are the task runs that were judged."""

    sent: ShardSent = msgspec.field(default_factory=ShardSent)
    checked: int = 0
    resumed: int = 0
    unknown: int = 0
    runs: list[str] = []


class LedgerState(msgspec.Struct, rename={"ledgers": "books"}):
    """What is known. `next` is by partition of the transactions' topic, `taken` by partition of the table's
    which files of transaction counts were taken in; `shards` and `runs` number what ENDs and events name.
    """

    topic_id: str = ""
    next: dict[int, int] = {}
    taken: dict[int, list[str]] = {}
    shards: list[str] = []
    runs: list[str] = []
    ledgers: dict[str, ShardLedger] = {}
    newest: int = 0
    file: str = ""
    serial: int = 0
    version: int = VERSION

    def ledger(self, shard: str) -> ShardLedger:
        """The shard's own."""
        return self.ledgers.setdefault(shard, ShardLedger())


class LedgerStore:
    """One table's ledger. Used by one process at a time, under `lock`."""

    def __init__(self, home: Path, platform: str, topic: str, topic_id: str) -> None:
        path = cache_path(home, "ledger", platform, topic, topic_id)
        self._directory, self._path = StateDirectory(path, version=VERSION), path
        self.state = LedgerState()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the ledger; `state` is what is there now. Raises CacheHeld when another process does not let go."""
        for _ in each_locked({0: self._directory}, "the ledger", seconds=_WAIT_SECONDS):
            self.state = self._directory.load(LedgerState) or LedgerState()
            yield

    def open_rows(self) -> tuple[Rows, Rows]:
        """ENDs and events that do not balance yet."""
        if not self.state.file:
            return np.zeros(0, dtype=END), np.zeros(0, dtype=SEEN)
        ends = np.array(sorted_files.read(self._path / f"{self.state.file}.ends", END))
        return ends, np.array(sorted_files.read(self._path / f"{self.state.file}.seen", SEEN))

    def _closed(self) -> Words:
        if not self.state.file:
            return np.zeros(0, dtype=np.uint64)
        return np.fromfile(self._path / f"{self.state.file}.closed", dtype=np.uint64)

    def write_down(self, kind: str, rows: Rows) -> None:
        """Add rows (`ends` or `seen`) to what the next `balanced` takes in."""
        with (self._path / f"new.{kind}").open("ab") as stream:
            rows.tofile(stream)

    def begin(self) -> None:
        """Drop what was written down and not balanced: its process died."""
        ends, seen = self.open_rows()
        for kind, rows in (("ends", ends), ("seen", seen)):
            (self._path / f"new.{kind}").write_bytes(b"")
            self.write_down(kind, rows)

    def balanced(self, batch_rows: int = BATCH_ROWS) -> Balance:
        """Balance all that was written down, part by part."""
        parts = {"ends": self._new("ends", END), "seen": self._new("seen", SEEN)}
        buckets = 1 + sum(map(len, parts.values())) // batch_rows
        checked: Counter[int] = Counter()
        ends, seen = [np.zeros(0, dtype=END)], [np.zeros(0, dtype=SEEN)]
        known = self._closed()
        closed = [known]
        for bucket in range(buckets):
            ended, sent = (_bucket(rows, bucket, buckets) for rows in parts.values())
            found = balance(ended, sent, known)
            checked.update(found.checked)
            ends.append(found.ends)
            seen.append(found.seen)
            closed.append(found.closed)
        return Balance(checked, np.concatenate(ends), np.concatenate(seen), np.concatenate(closed))

    def save(self, ends: Rows, seen: Rows, closed: Words) -> None:
        """Make these the open rows and the last transactions that were whole, and the state the state."""
        self.state.serial += 1
        name = f"open-{self.state.serial}"
        sorted_files.write(self._path / f"{name}.ends", [ends])
        sorted_files.write(self._path / f"{name}.seen", [seen])
        sorted_files.write(self._path / f"{name}.closed", [closed[-REMEMBERED:]])
        self.state.file = name
        self._directory.save(self.state, keep={f"{name}.{kind}" for kind in ("ends", "seen", "closed")})

    def _new(self, kind: str, dtype: np.dtype[Any]) -> Rows:
        return sorted_files.read(self._path / f"new.{kind}", dtype)


def _bucket(rows: Rows, bucket: int, buckets: int) -> Rows:
    if buckets == 1:
        return np.array(rows)
    parts: Sequence[Rows] = [
        piece[bucket_of(piece, buckets) == bucket]
        for piece in (np.array(rows[at : at + _PIECE]) for at in range(0, len(rows), _PIECE))
    ]
    return np.concatenate([np.zeros(0, dtype=rows.dtype), *parts])


def numbered(names: list[str], known: dict[str, int], name: str) -> int:
    """The number of a name; a new one gets the next."""
    code = known.get(name)
    if code is None:
        code = known[name] = len(names)
        names.append(name)
    return code


def codes(names: Sequence[str]) -> Mapping[str, int]:
    """Name to number."""
    return {name: code for code, name in enumerate(names)}
