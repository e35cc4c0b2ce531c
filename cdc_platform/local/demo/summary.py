"""What the demo prints at its end."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSummary:
    """One dataset's figures. `missing` counts changes without an event, `source_rows` is the COUNT(*)."""

    engine: str
    shards: int
    connectors_running: int
    changes_written: int
    events_seen: int
    distinct: int
    missing: int
    unexpected: int
    source_rows: int
    topic_rows: int

    @property
    def holds(self) -> bool:
        """True when every connector runs and every change was seen."""
        return (
            self.connectors_running == self.shards
            and self.missing == 0
            and self.unexpected == 0
            and self.distinct == self.changes_written
            and self.source_rows == self.topic_rows
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DagsterSummary:
    """What went through Dagster, as its own API says."""

    address: str
    reconcile_runs: int
    failed_runs: int
    ticks: int
    materialized_partitions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The demo's result. `seconds` by phase."""

    datasets: dict[str, DatasetSummary]
    dagster: DagsterSummary
    changes: dict[str, int]
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """True when all of it holds, and no run of Dagster failed on the way."""
        dagster = self.dagster
        return (
            bool(self.datasets)
            and all(dataset.holds for dataset in self.datasets.values())
            and dagster.reconcile_runs > 0
            and dagster.failed_runs == 0
            and dagster.ticks > 0
            and dagster.materialized_partitions > 0
        )

    def document(self) -> dict[str, object]:
        """The summary as JSON; totals first."""
        rows = self.datasets.values()
        return {
            "ok": self.ok,
            "datasets": len(self.datasets),
            "shards": sum(row.shards for row in rows),
            "connectors": sum(row.connectors_running for row in rows),
            "changes_written": sum(row.changes_written for row in rows),
            "events_seen": sum(row.events_seen for row in rows),
            "distinct": sum(row.distinct for row in rows),
            "missing": sum(row.missing for row in rows),
            "changes": dict(self.changes),
            "by_dataset": {name: asdict(row) for name, row in self.datasets.items()},
            "dagster": asdict(self.dagster),
            "seconds": {phase: round(seconds, 1) for phase, seconds in self.seconds.items()},
        }
