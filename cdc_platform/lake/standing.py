"""What is known of the positions that a run of a lake goes up to: proven in the topic, or not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cdc_platform.lake.tables import LakeState, ShardState
from cdc_platform.model.positions import Committed, parse_position
from cdc_platform.model.topology import Engine
from cdc_platform.verification.proof.verdicts import ShardVerdict, Verdict

NOT_PROVEN = "not proven"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A shard in a run: all changes up to `position` are in it (None: not known).

    `topic_proven_to`: the topic was proven up to there. `verdict`: what it was instead; None without one.
    """

    shard: str
    position: str | None
    topic_proven_to: str | None
    verdict: str | None = None

    @property
    def said(self) -> str:
        """In a few words."""
        if self.topic_proven_to:
            return f"topic proven up to {self.topic_proven_to}"
        return NOT_PROVEN if self.verdict is None else f"{NOT_PROVEN}: the topic was {self.verdict}"


def judged(engine: Engine, position: str | None, verdict: ShardVerdict | None) -> ShardState:
    """What a run keeps of a shard: its connector's position, and the verdict if that is about what the run has."""
    if position is None or verdict is None or not _within(engine, verdict.proven_to, position):
        return ShardState(position=position)
    return ShardState(
        position=position,
        verdict=str(verdict.verdict),
        proven_to=verdict.proven_to,
        verification=verdict.run_id,
    )


def standings(engine: Engine, state: LakeState, verdicts: Iterable[ShardVerdict]) -> list[Standing]:
    """Each shard of the run: by its newest verdict if that ends within what the run has, else by the one it kept."""
    newest = {verdict.shard: verdict for verdict in verdicts}
    found = []
    for shard, known in sorted(state.shards.items()):
        now = judged(engine, known.position, newest.get(shard))
        best = known if now.verdict is None else now
        proven = best.proven_to if best.verdict == Verdict.PROVEN else None
        found.append(Standing(shard=shard, position=known.position, topic_proven_to=proven, verdict=best.verdict))
    return found


def _within(engine: Engine, proven_to: str, position: str) -> bool:
    return bool(proven_to) and Committed(engine, position).reached(parse_position(engine, proven_to))
