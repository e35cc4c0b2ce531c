"""Metadata keys of what the platform reports to Dagster, by the code that makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import dagster as dg

from cdc_platform.defs import checks, snapshot_jobs
from cdc_platform.defs import reconcile_job as jobs
from cdc_platform.defs.audit_asset import audit_metadata
from cdc_platform.defs.check_suites import CheckOutcome
from cdc_platform.defs.live_passes import TAG_LOCK
from cdc_platform.defs.metadata import pass_metadata, shards_metadata, table_metadata
from cdc_platform.defs.snapshot_jobs import TAG_RUN
from cdc_platform.defs.translator import CdcTableProps
from cdc_platform.model.observed import TopicExtent
from cdc_platform.reconciler.report import ActionStatus, DatasetHealth, PassReport
from cdc_platform.snapshots.progress_events import ShardDone
from cdc_platform.snapshots.run_records import Run
from cdc_platform.verification.continuity.ledger import TableContinuity
from cdc_platform.verification.duplicates.causes import ShardDuplicates
from cdc_platform.verification.proof.verdicts import ShardVerdict
from tests.defs.harness import shard
from tests.surface.json_output import GIVEN
from tests.surface.samples import sample

KEY = dg.AssetKey(["cdc", "pins", "pins"])
_EVENT = b'{"after": {"id": 1}}'


def metadata() -> dict[str, Any]:
    """What an event tells of: metadata key to its kind, columns for tables."""
    props, verdict = sample(CdcTableProps), sample(ShardVerdict)
    report = sample(PassReport, given=GIVEN)
    failed = replace(report, outcomes=tuple(replace(one, status=ActionStatus.FAILED) for one in report.outcomes))
    pins = shard("pins", 0)
    table = table_metadata(
        props,
        shards=[pins],
        health=sample(DatasetHealth),
        lags={pins.name: 1.5},
        extent=sample(TopicExtent),
        sample=_EVENT,
    )
    outcome = sample(CheckOutcome)
    expectation = replace(outcome.expectation, check="complete", kwargs={"column": "verdict"})
    outcome = replace(outcome, expectation=expectation, shards=("00000",), passed=False)
    rows = {"00000": dict.fromkeys(("shard", "verdict", "reason", "missing", "extra", "mismatched"), None)}
    done = snapshot_jobs._materialization(sample(Run, given=GIVEN), sample(ShardDone), KEY, of="1 of 1")
    return {
        "pass": _kinds(pass_metadata(failed, clusters={"main": 1})),
        "table": _kinds(table),
        "shards of a dataset": _kinds(
            shards_metadata([pins], health=sample(DatasetHealth), homes={pins.name: "main"}, lags={pins.name: 1.5})
        ),
        "audit": _kinds(audit_metadata([verdict], [verdict], "place")),
        "bootstrap or backfill of a shard": _kinds(done.metadata),
        "check": _kinds(checks._result(KEY, outcome, rows, {}, 1, [verdict]).metadata or {}),
        "check no_duplicates": sorted(checks._of_duplicates([sample(ShardDuplicates)])),
        "check continuous": sorted(checks._of_ledger(sample(TableContinuity))),
        "tags of a run of reconcile": jobs.run_tags("cdc"),
        "tags that runs get": sorted([TAG_LOCK, TAG_RUN]),
    }


def _kinds(found: Mapping[str, Any]) -> dict[str, Any]:
    kinds: dict[str, Any] = {}
    for key, value in found.items():
        value = dg.MetadataValue.text(value) if isinstance(value, str) else value
        kind = type(value).__name__.removesuffix("MetadataValue")
        if isinstance(value, dg.TableMetadataValue):
            kinds[key] = {kind: [f"{column.name}: {column.type}" for column in value.schema.columns]}
        else:
            kinds[key] = kind.lower()
    return kinds
