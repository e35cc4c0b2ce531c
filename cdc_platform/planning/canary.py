"""A changed dataset configuration goes to a few shards first. Pure.

Only when these canaries stay healthy over some passes do the others follow; a
canary that fails gets its old configuration back, and the change is not rolled out
until it is changed again. What a hand changed on single connectors is no rollout and
is put right at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from cdc_platform.model.topology import EMPTY
from cdc_platform.planning.records import Kept, Record

# Values before a change: None where the key was absent.
Before = Mapping[str, str | None]


class CanaryVerdict(StrEnum):
    """State of a rollout's canaries."""

    WATCHING = "watching"
    PASSED = "passed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPolicy:
    """Bounds. Datasets with fewer than `smallest` connectors, and changes of at most `canaries`, go at once.

    Canaries must be healthy in `passes` passes and for `watch`, all of them.
    """

    smallest: int = 20
    canaries: int = 3
    passes: int = 3
    watch: timedelta = timedelta(minutes=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryRecord(Record):
    """Remembered of a rollout under way. `digest` names the configuration; `shards` what each canary had before."""

    kept = Kept("canary")

    digest: str
    shards: Mapping[str, Before]
    since: datetime
    passes: int = 0
    verdict: CanaryVerdict = CanaryVerdict.WATCHING
    reason: str | None = None

    @property
    def keys(self) -> frozenset[str]:
        """The configuration keys that the change touches."""
        return frozenset(key for before in self.shards.values() for key in before)

    def common(self) -> dict[str, str | None]:
        """What all canaries had alike before: what a new shard gets while the change is not proven."""
        first, *others = self.shards.values()
        return {key: value for key, value in first.items() if all(key in o and o[key] == value for o in others)}


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledOut(Record):
    """Remembered of a dataset: the digest of the configuration that all its connectors had."""

    kept = Kept("rollout")

    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A connector whose configuration differs: its values before, its cluster, source host and health."""

    before: Before
    cluster: str
    host: str
    healthy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """How a canary is. `incident`: it fails. `unclear`: why nothing can be said of it. Neither: it is healthy."""

    incident: str | None = None
    unclear: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutDecision:
    """What one dataset's connectors get in this pass.

    `now` may be updated. `restore` holds what a failed canary gets back. `masked`
    keys keep their values on all other connectors. `fresh` is what new connectors
    get in place of the change. `record` and `done` are remembered (None deletes).
    """

    now: frozenset[str] = frozenset()
    restore: Mapping[str, Before] = EMPTY
    masked: frozenset[str] = frozenset()
    fresh: Before = EMPTY
    record: CanaryRecord | None = None
    done: RolledOut | None = None
    finding: str | None = None


def decide(
    *,
    digest: str,
    connectors: int,
    pending: Mapping[str, Pending],
    canaries: Mapping[str, Canary],
    record: CanaryRecord | None,
    done: RolledOut | None,
    now: datetime,
    policy: RolloutPolicy,
) -> RolloutDecision:
    """Decide for one dataset.

    Args:
        digest: of the configuration desired now.
        connectors: how many of its connectors there are.
        pending: those whose configuration differs from the desired one.
        canaries: how each shard of `record` is now; one that is gone is absent.
        record: the rollout under way.
        done: the digest that all had.
        now: the pass's time.
        policy: bounds.
    """
    all_pending = frozenset(pending)
    settled = RolledOut(digest=digest)
    if record is not None and record.digest != digest:
        record = None  # the desired configuration changed again: what the canaries got is pending again
    if record is None:
        if not pending:
            return RolloutDecision(done=settled)
        known = done is not None and done.digest == digest
        if known or connectors < policy.smallest or len(pending) <= policy.canaries:
            return RolloutDecision(now=all_pending, done=done)
        healthy = [name for name in sorted(pending) if pending[name].healthy]
        if 2 * len(healthy) < len(pending):
            text = f"changed at once on {len(pending)} connectors: most of them are down, so there is nothing to risk"
            return RolloutDecision(now=all_pending, done=done, finding=text)
        record = CanaryRecord(
            digest=digest,
            shards={name: pending[name].before for name in choose(healthy, pending, policy.canaries)},
            since=now,
        )
        return _watching(
            record, done, f"tried on {', '.join(sorted(record.shards))} first, {len(pending)} connectors change"
        )
    if record.verdict is CanaryVerdict.PASSED:
        if not pending:
            return RolloutDecision(done=settled)
        return RolloutDecision(now=all_pending, record=record, done=done)
    left = {name: record.shards[name] for name in record.shards if name in canaries}
    if not left:
        return RolloutDecision(done=done, finding="its canaries are gone: chosen again in the next pass")
    record = replace(record, shards=left) if len(left) < len(record.shards) else record
    if record.verdict is CanaryVerdict.FAILED:
        return _failed(record, done)
    return _progress(record, pending, canaries, done, now, policy)


def _progress(
    record: CanaryRecord,
    pending: Mapping[str, Pending],
    canaries: Mapping[str, Canary],
    done: RolledOut | None,
    now: datetime,
    policy: RolloutPolicy,
) -> RolloutDecision:
    names = ", ".join(sorted(record.shards))
    if any(name in pending for name in record.shards):
        return _watching(replace(record, since=now, passes=0), done, f"tried on {names} first")
    unclear = {name: canary.unclear for name, canary in canaries.items() if canary.unclear}
    failed = {name: canary.incident for name, canary in canaries.items() if canary.incident and name not in unclear}
    if failed:
        worst = min(failed)
        return _failed(replace(record, verdict=CanaryVerdict.FAILED, reason=f"{worst}: {failed[worst]}"), done)
    if unclear:
        which = min(unclear)
        return _watching(record, done, f"tried on {names}; nothing can be said of {which}: {unclear[which]}")
    passes = record.passes + 1
    since = min(record.since, now)
    if passes >= policy.passes and now - since >= policy.watch:
        passed = replace(record, passes=passes, verdict=CanaryVerdict.PASSED)
        text = f"proven on {names}, goes to {len(pending)} other connectors"
        return RolloutDecision(now=frozenset(pending), record=passed, done=done, finding=text)
    text = f"tried on {names}, healthy in {passes} of {policy.passes} passes"
    return _watching(replace(record, since=since, passes=min(passes, policy.passes)), done, text)


def _watching(record: CanaryRecord, done: RolledOut | None, text: str) -> RolloutDecision:
    return RolloutDecision(
        now=frozenset(record.shards),
        masked=record.keys,
        fresh=record.common(),
        record=record,
        done=done,
        finding=f"changed configuration: {text}",
    )


def _failed(record: CanaryRecord, done: RolledOut | None) -> RolloutDecision:
    return RolloutDecision(
        restore=record.shards,
        masked=record.keys,
        fresh=record.common(),
        record=record,
        done=done,
        finding=f"changed configuration ({', '.join(sorted(record.keys))}) failed on a canary and is held: "
        f"{record.reason}. Change the override again, or take it back",
    )


def choose(healthy: list[str], pending: Mapping[str, Pending], number: int) -> tuple[str, ...]:
    """Canaries out of the healthy: spread over clusters and hosts first, then over the names. Deterministic."""
    chosen: list[str] = []
    while len(chosen) < min(number, len(healthy)):
        clusters = {pending[name].cluster for name in chosen}
        hosts = {pending[name].host for name in chosen}
        left = [name for name in healthy if name not in chosen]
        # min keeps the first of equals.
        chosen.append(min(left, key=lambda n: (pending[n].cluster in clusters, pending[n].host in hosts)))
    return tuple(sorted(chosen))
