"""What the sensor remembers from tick to tick, and what it decides on it. Pure.

The cursor only saves work. Lost or garbled, the next tick asks for one pass more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import msgspec

from cdc_platform.model.fingerprints import fingerprint
from cdc_platform.reconciler.pending_changes import Due
from cdc_platform.reconciler.report import DatasetHealth

ALL = "*"

# The same need, not met by this many passes in a row, is asked for ever more rarely.
PATIENT_PASSES = 3
FIRST_WAIT = 60.0
LONGEST_WAIT = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorCursor:
    """`need` is the fingerprint of what was due, asked for `tries` times, and not again before `not_before`.

    `health` maps a dataset to a digest of its health as last asked to be observed, `refused`
    holds the refusals as last reported; `refreshed` is when all tables were observed, `turn` how often.
    Times are seconds since the epoch.
    """

    need: str = ""
    tries: int = 0
    not_before: float = 0.0
    refreshed: float = 0.0
    turn: int = 0
    refused: str = ""
    health: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str | None) -> SensorCursor:
        """The cursor; a fresh one for anything that is not one."""
        try:
            return msgspec.json.decode(text or "{}", type=cls)
        except (msgspec.DecodeError, UnicodeEncodeError):
            return cls()

    def dump(self) -> str:
        """As Dagster keeps it."""
        return msgspec.json.encode(self).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class TickDecision:
    """Whether to ask for a pass. `observe` names the datasets whose tables it shall observe, or ALL."""

    run: bool
    reason: str
    cursor: SensorCursor
    observe: tuple[str, ...] = ()


def decide(due: Due, cursor: SensorCursor, *, now: float, refresh_seconds: float) -> TickDecision:
    """Ask for a pass when something is due, when health changed, or when the assets' metadata got old."""
    health = {name: digest(one) for name, one in due.health.items()}
    refused = _hash("\n".join(f"{refusal.scope}: {refusal.reason}" for refusal in due.plan.refusals))
    changed = tuple(name for name, one in sorted(health.items()) if cursor.health.get(name) != one)
    refresh = now - cursor.refreshed >= refresh_seconds
    seen = replace(cursor, health=health, refused=refused)
    if refresh:
        seen = replace(seen, refreshed=now, turn=seen.turn + 1)
    observe = (ALL,) if refresh else changed

    if due:
        tries = cursor.tries if due.fingerprint == cursor.need else 0
        if tries and now < cursor.not_before and not due.overdue:
            wait = cursor.not_before - now
            reason = f"{tries} passes did not do it; next in {wait:.0f} s: {due.sentence()}"
            return TickDecision(run=False, reason=reason, cursor=cursor)
        asked = replace(seen, need=due.fingerprint, tries=tries + 1, not_before=now + wait_after(tries + 1))
        return TickDecision(run=True, reason=due.sentence(), cursor=asked, observe=observe)

    idle = replace(seen, need="", tries=0, not_before=0.0)
    up = up_of(due.health)
    if refused != cursor.refused:
        return TickDecision(run=True, reason=due.plan.sentence(), cursor=idle, observe=observe)
    if changed and not refresh:
        return TickDecision(run=True, reason=f"Health changed; {up}.", cursor=idle, observe=observe)
    if refresh:
        return TickDecision(run=True, reason=f"All assets are observed again; {up}.", cursor=idle, observe=observe)
    return TickDecision(run=False, reason=f"{due.plan.sentence()} {up}.", cursor=idle)


def wait_after(tries: int) -> float:
    """Seconds until the same need is asked for again after that many passes."""
    if tries < PATIENT_PASSES:
        return 0.0
    return min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** (tries - PATIENT_PASSES))


def up_of(health: Mapping[str, DatasetHealth]) -> str:
    """`11 of 12 shards up`."""
    up = sum(one.up for one in health.values())
    return f"{up} of {sum(one.shards for one in health.values())} shards up"


def digest(health: DatasetHealth) -> str:
    """The same for two moments when the same shards were down in the same state."""
    down = ",".join(f"{one.shard}={one.state}" for one in health.down)
    return f"{health.up}/{health.shards}:{_hash(down)}"


def _hash(text: str) -> str:
    return fingerprint(text, 12) if text else ""
