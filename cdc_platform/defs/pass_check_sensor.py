"""The sensor that reports the checks of `pass_checks`: without a run, when they change and once a day."""

# Without `from __future__ import annotations`: Dagster reads the types of a sensor that is made
# inside a function, and cannot resolve them as text.

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from cdc_platform.clients.platform import Platform
from cdc_platform.defs.audit_asset import audit_key
from cdc_platform.defs.check_suites import Suite, suites_for
from cdc_platform.defs.deadline import within
from cdc_platform.defs.latest_checks import Evaluated, latest_evaluations
from cdc_platform.defs.names import Names
from cdc_platform.defs.pass_checks import (
    CAPTURED,
    FRESH,
    OLDEST,
    RECENTLY,
    Said,
    captured,
    fresh,
    most_age,
    recently_verified,
)
from cdc_platform.defs.translator import CdcTableProps, CdcTranslator, shards_key
from cdc_platform.errors import CdcError
from cdc_platform.reconciler import last_pass
from cdc_platform.verification.audit_frame import AuditFrame

SENSOR = "pass_checks_sensor"

# Written again after so many seconds though nothing changed, so that it is seen to be alive.
DAY = 86_400.0
# Other numbers behind the same result are written at most this often, in seconds.
QUARTER = 900.0
# Audit frames read by one tick; the others by the next ones.
MOST_FRAMES = 20
LOOK_DEADLINE = 40.0


def build_pass_check_sensor(
    *,
    tables: Iterable[CdcTableProps],
    platform: str = "cdc",
    translator: CdcTranslator | None = None,
    policies: Path | None = None,
    name: str | None = None,
    minimum_interval_seconds: int = 60,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.RUNNING,
) -> dg.SensorDefinition:
    """Reports `captured`, `fresh` and `recently_verified` as they are now. Takes the resource `cdc_platform`.

    They fail when what feeds them stops, too: no pass for 15 minutes, no verification for `max_age`.

    Args:
        tables: the tables that the code location has loaded as assets.
        platform: its name.
        translator: the one the assets were made with.
        policies: the directory of suite files that the checks were made with.
        name: the sensor's name.
        minimum_interval_seconds: between two ticks.
        default_status: RUNNING: it works as soon as the code location is loaded.

    Raises:
        BadInput, TopologyError: a suite file is wrong.
    """
    translator = translator or CdcTranslator()
    known = {audit_key(translator.get_asset_spec(one).key): one for one in tables}
    suites = suites_for(policies, sorted({one.dataset for one in known.values()}))

    names = Names(platform)

    @dg.sensor(
        name=name or names.of(SENSOR),
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        description="Reports whether shards are captured, fresh and recently verified, when that changes.",
    )
    @names.taking
    def pass_checks_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        turn = int(cursor) if (cursor := context.cursor or "").isdecimal() else 0
        with names.in_(context).platform() as clients:
            events = within(
                LOOK_DEADLINE,
                lambda: evaluations(context.instance, clients, known, suites, datetime.now(UTC), turn),
                what="Judging what the last pass says",
            )
        skip = None if events else "Nothing changed."
        return dg.SensorResult(asset_events=events, skip_reason=skip, cursor=str(turn + 1))

    return pass_checks_sensor


def evaluations(
    instance: dg.DagsterInstance,
    platform: Platform,
    tables: Mapping[dg.AssetKey, CdcTableProps],
    suites: Mapping[str, Suite],
    now: datetime,
    turn: int = 0,
) -> list[dg.AssetCheckEvaluation]:
    """What is to be written now. `tables`: by the keys of their audit frames; `turn` says whose frames are read."""
    state = platform.state.read()
    record = state.get(last_pass.KEY)
    shards = {shards_key(one.platform, one.dataset): one.dataset for one in tables.values()}
    checks = [
        *(dg.AssetCheckKey(key, CAPTURED) for key in shards),
        *(dg.AssetCheckKey(key, check) for key in tables for check in (FRESH, RECENTLY)),
    ]
    before = latest_evaluations(instance, checks)
    since = {
        record.asset_entry.asset_key: newest.timestamp
        for record in instance.get_asset_records(list(shards))
        if (newest := record.asset_entry.last_materialization_record) is not None
    }
    found: list[dg.AssetCheckEvaluation] = []
    for key, said in _said(record, shards, tables, suites, now):
        # Dagster shows the result for the newest materialization only.
        if is_news(key.name, said, before.get(key), now.timestamp(), since.get(key.asset_key, 0.0)):
            found.append(_event(key, said))
    found += _recently(platform, tables, suites, before, now, turn)
    return found


def _recently(
    platform: Platform,
    tables: Mapping[dg.AssetKey, CdcTableProps],
    suites: Mapping[str, Suite],
    before: Mapping[dg.AssetCheckKey, Evaluated],
    now: datetime,
    turn: int,
) -> Iterator[dg.AssetCheckEvaluation]:
    """`recently_verified` of those tables that cannot be judged without a look at their verdicts."""
    due = [
        key
        for key, props in tables.items()
        if not _surely_recent(before.get(dg.AssetCheckKey(key, RECENTLY)), suites[props.dataset], now)
    ]
    if not due:
        return
    start = turn * MOST_FRAMES % len(due)
    frame, topology = AuditFrame(platform.settings.audit_dir), platform.topology.load()
    for key in [*due[start:], *due[:start]][:MOST_FRAMES]:
        props, check = tables[key], dg.AssetCheckKey(key, RECENTLY)
        ids = [shard.id for shard in topology.shards.get(props.dataset, ())]
        try:
            times = {one.shard: one.checked_at for one in frame.latest(props.dataset, props.table, ids)}
            said = recently_verified(times, len(ids), suites[props.dataset], now)
        except CdcError as error:
            said = Said(False, f"Nothing is known: {error}", {})
        if said is not None and is_news(RECENTLY, said, before.get(check), now.timestamp(), 0.0):
            yield _event(check, said)


def is_news(check: str, said: Said, before: Evaluated | None, now: float, materialized: float) -> bool:
    """Whether it is to be written: another result, a day old, older than a materialization, another number up. Pure."""
    if before is None or before.evaluation.passed != said.passed:
        return True
    age = now - before.at
    moved = check == CAPTURED and age >= QUARTER and before.evaluation.description != said.text
    return moved or age >= DAY or before.at < materialized


def _said(
    record: Mapping[str, Any] | None,
    shards: Mapping[dg.AssetKey, str],
    tables: Mapping[dg.AssetKey, CdcTableProps],
    suites: Mapping[str, Suite],
    now: datetime,
) -> Iterator[tuple[dg.AssetCheckKey, Said]]:
    for key, dataset in shards.items():
        if (said := captured(record, dataset, now)) is not None:
            yield dg.AssetCheckKey(key, CAPTURED), said
    for key, props in tables.items():
        if (said := fresh(record, props.dataset, suites[props.dataset], now)) is not None:
            yield dg.AssetCheckKey(key, FRESH), said


def _surely_recent(before: Evaluated | None, suite: Suite, now: datetime) -> bool:
    """Whether the oldest verdict that was known then is young enough still; newer ones only make it better."""
    most = most_age(suite)
    if most is None:
        return True
    if before is None or not before.evaluation.passed or now.timestamp() - before.at >= DAY:
        return False
    oldest = before.evaluation.metadata.get(OLDEST)
    return isinstance(oldest, dg.TimestampMetadataValue) and now.timestamp() - oldest.value <= most


def _event(key: dg.AssetCheckKey, said: Said) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=said.passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=said.text,
        metadata={name: _number(name, value) for name, value in said.numbers.items()},
    )


def _number(name: str, value: float) -> dg.MetadataValue:
    if name == OLDEST:
        return dg.MetadataValue.timestamp(value)
    return dg.MetadataValue.int(value) if isinstance(value, int) else dg.MetadataValue.float(value)
