"""What a plan does and says about hazards at the sources. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from cdc_platform.model.naming import ShardName, some_of
from cdc_platform.planning.actions import GiveUpSlot, PublishTables
from cdc_platform.planning.diagnosis import ConnectorView
from cdc_platform.planning.health.source_hazard_kinds import HazardKind
from cdc_platform.planning.health.source_hazards import Hazard, SourceRecord
from cdc_platform.planning.inputs import Part
from cdc_platform.planning.plan import Finding

# A hazard of more shards of a dataset is one finding.
_APART = 5


def source_part(records: Mapping[str, SourceRecord], shards: Collection[str], views: Sequence[ConnectorView]) -> Part:
    """Publications that are repaired, and what an operator should know of these shards' sources."""
    known = {name: record for name, record in records.items() if name in shards}
    actions = [
        PublishTables(cluster=view.cluster.name, name=view.name, tables=_lacking(known[view.name]))
        for view in views
        if view.name in known and known[view.name].publish
    ]
    leaving = [
        GiveUpSlot(cluster=view.cluster.name, name=view.name, reason=_filling(known[view.name]))
        for view in views
        if view.name in known and known[view.name].give_up
    ]
    return Part(actions=[*actions, *leaving], findings=[*_findings(known)])


def incomplete(records: Mapping[str, SourceRecord]) -> dict[str, str]:
    """Shards of which changes are being lost, and by what."""
    return {name: hazard.sentence() for name, record in records.items() if (hazard := record.losing)}


def _lacking(record: SourceRecord) -> tuple[str, ...]:
    return tuple(hazard.table for hazard in record.hazards if hazard.kind is HazardKind.UNPUBLISHED)


def _filling(record: SourceRecord) -> str:
    return next((h.text for h in record.hazards if h.kind is HazardKind.LOG_FILLING), "its log is nearly full")


def _findings(records: Mapping[str, SourceRecord]) -> Iterable[Finding]:
    alike: dict[tuple[str, str], dict[str, Hazard]] = defaultdict(dict)
    for name, record in sorted(records.items()):
        for hazard in record.hazards:
            alike[ShardName.parse(name).dataset, hazard.sentence()][name] = hazard
    for (dataset, sentence), found in alike.items():
        if len(found) > _APART:
            yield Finding(subject=dataset, text=f"{len(found)} shards ({some_of(list(found), _APART)}): {sentence}")
        else:
            yield from (Finding(subject=name, text=sentence) for name in found)
