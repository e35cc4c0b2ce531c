"""What is known of the positions that a run of a lake goes up to: proven in the topic, or not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cdc_platform.lake.tables import LakeState
from cdc_platform.model.positions import Committed, parse_position
from cdc_platform.model.topology import Engine
from cdc_platform.verification.proof.verdicts import ShardVerdict, Verdict

NOT_PROVEN = "not proven"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A shard in a run: all changes up to `position` are in it (None: not known); its topic was proven up to there."""

    shard: str
    position: str | None
    topic_proven_to: str | None

    @property
    def said(self) -> str:
        """In a few words."""
        return f"topic proven up to {self.topic_proven_to}" if self.topic_proven_to else NOT_PROVEN


def standings(engine: Engine, state: LakeState, verdicts: Iterable[ShardVerdict]) -> list[Standing]:
    """Each shard of the run, by the newest verdicts: one counts that ends within what the run has."""
    newest = {verdict.shard: verdict for verdict in verdicts}
    found = []
    for shard, known in sorted(state.shards.items()):
        verdict = newest.get(shard)
        proven = None
        if verdict is not None and verdict.verdict is Verdict.PROVEN and known.position:
            within = Committed(engine, known.position).reached(parse_position(engine, verdict.proven_to))
            proven = verdict.proven_to if within else None
        found.append(Standing(shard=shard, position=known.position, topic_proven_to=proven))
    return found
