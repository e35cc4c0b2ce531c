"""Rows a second of a snapshot run, kept by letting fewer shards read at a time. Pure.

A pause reaches a connector within its signal poll (2 s), and what it reads until then has to be
paid back: so the number of shards that read begins with one, grows by one and is halved, as TCP does with its window.
"""

from __future__ import annotations

from dataclasses import dataclass

# Seconds of the budget that may be saved up.
_SAVED = 5.0
# Seconds without a debt before one more shard may read.
_CALM = 10.0


@dataclass(slots=True)
class Throttle:
    """Keeps the rows read near `rows_per_s`; None is no limit. Times are seconds of any steady clock."""

    rows_per_s: int | None
    lanes: int = 1
    _allowance: float = 0.0
    _rows: int | None = None
    _at: float = 0.0
    _calm_since: float = 0.0
    _full: bool = False

    def update(self, rows: int, now: float) -> None:
        """Take note that `rows` were read by the run so far."""
        if self.rows_per_s is None:
            return
        if self._rows is None:
            self._rows, self._at, self._calm_since = rows, now, now
            return
        saved = self.rows_per_s * _SAVED
        earned = (now - self._at) * self.rows_per_s
        was_open = self._allowance >= 0
        self._allowance = min(saved, self._allowance + earned - (rows - self._rows))
        self._rows, self._at = rows, now
        if self._allowance < 0 or not self._full:
            if self._allowance < 0 and was_open:
                self.lanes = max(1, self.lanes // 2)
            self._calm_since = now
        elif now - self._calm_since >= _CALM:
            self.lanes += 1
            self._calm_since = now

    def allowed(self, shards: int) -> int:
        """How many of `shards` may read now."""
        if self.rows_per_s is None:
            return shards
        self._full = shards > self.lanes
        return 0 if self._allowance < 0 else min(shards, self.lanes)
