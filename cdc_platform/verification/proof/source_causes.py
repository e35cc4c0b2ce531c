"""What a table's source has that loses changes, said with its verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from cdc_platform.clients.platform import Platform
from cdc_platform.model.topology import Dataset, Shard, Table
from cdc_platform.planning.health.source_hazard_kinds import KINDS
from cdc_platform.planning.health.source_hazards import SourceRecord, judged
from cdc_platform.reconciler.source_round import ask
from cdc_platform.reconciler.state_records import read_memory
from cdc_platform.verification.proof.verdicts import ShardVerdict, Verdict


def source_records(
    platform: Platform, dataset: Dataset, table: Table, shards: Iterable[Shard]
) -> Mapping[str, SourceRecord]:
    """What is wrong at the sources of these shards now, and what passes found before, for one table; by shard id."""
    if platform.facts is None:
        return {}
    asked = {shard.name: shard for shard in shards}
    known = read_memory(platform.state.read()).of(SourceRecord)
    facts = ask(platform.facts, platform.settings, ((dataset, shard) for shard in asked.values())).facts
    now = datetime.now(UTC)
    return {
        asked[name].id: judged(dataset, said, known.get(name), captured=True, now=now).about(table.name)
        for name, said in facts.items()
    }


def with_causes(verdict: ShardVerdict, record: SourceRecord | None) -> ShardVerdict:
    """The verdict with the hazards as warnings and, where the table differs, with what lost its changes as reason."""
    if record is None:
        return verdict
    # Shown with a full stop of their own.
    warnings = (*verdict.warnings, *(hazard.sentence().removesuffix(".") for hazard in record.hazards))
    causes = dict.fromkeys(
        [hazard.text for hazard in record.hazards if KINDS[hazard.kind].loses] + [gap.text for gap in record.gaps]
    )
    reason = verdict.reason
    if verdict.verdict is Verdict.MISMATCHED and causes:
        reason = f"{reason}; {'; '.join(causes)}"
    return replace(verdict, warnings=warnings, reason=reason)
