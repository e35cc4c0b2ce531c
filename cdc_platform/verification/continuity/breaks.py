"""Breaks of continuity: steps that were not handed on, by shard. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cdc_platform.model.fingerprints import fingerprint


class BreakKind(StrEnum):
    """What does not hold."""

    TRANSACTION = "transaction"
    RESUME = "resume"
    FORGOTTEN = "forgotten_offset"
    FROM_SCRATCH = "began_anew"
    NOT_CAPTURED = "not_captured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """A step that was not handed on.

    `range` names it in the source's terms. `run` is the task run that resumed behind it; `expected` and `found`
    are events of a transaction that is not whole.
    """

    shard: str
    kind: BreakKind
    range: str
    found_at: datetime
    run: str = ""
    expected: int = 0
    found: int = 0

    @property
    def id(self) -> str:
        """The same for the same break, whichever process finds it."""
        text = "\n".join((self.shard, str(self.kind), self.range, self.run))
        return fingerprint(text, 12)

    def sentence(self) -> str:
        """It in one sentence."""
        match self.kind:
            case BreakKind.TRANSACTION:
                return f"{self.shard}: {self.range}: its END counts {self.expected} events, the topic has {self.found}"
            case BreakKind.RESUME:
                return f"{self.shard}: run {self.run} resumed behind what was sent before it: {self.range} was skipped"
            case BreakKind.FROM_SCRATCH:
                return (
                    f"{self.shard}: run {self.run} read the table again, its predecessor had committed nothing of the "
                    f"stream: what changed after {self.range} until then came as rows only"
                )
            case BreakKind.NOT_CAPTURED:
                return f"{self.shard}: {self.range}"
        return f"{self.shard}: run {self.run} began without the offset that its predecessor had committed: {self.range}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardContinuity:
    """What the ledger says of a shard.

    `checked` transactions are whole, `open` ones not judged yet; `resumed` runs began where their
    predecessor had committed; of `unknown` ones there is no evidence.
    """

    shard: str
    checked: int = 0
    open: int = 0
    resumed: int = 0
    unknown: int = 0
    breaks: tuple[Break, ...] = ()

    def unproven(self, proven: datetime | None) -> tuple[Break, ...]:
        """The breaks after which the shard was not proven yet. `proven`: when it last was."""
        return unproven_of(self.breaks, proven)


def unproven_of(breaks: Sequence[Break], proven: datetime | None) -> tuple[Break, ...]:
    """Those that were found after the shard was last proven."""
    return tuple(one for one in breaks if proven is None or proven <= one.found_at)
