"""What the last pass says of each check that needs no verification: `captured` and `fresh`; and `recently_verified`.

They are judged without Great Expectations, so that a sensor can, each minute: **`captured`** on the shards of each
dataset, `fresh` and `recently_verified` of the tables where the suite has them in the form of the default one.
"""

# Without `from __future__ import annotations`: Dagster reads the types of an op that is made
# inside a function, and cannot resolve them as text.

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from cdc_platform.defs.check_suites import CheckOutcome, Suite
from cdc_platform.defs.names import Names
from cdc_platform.defs.translator import TAG_PLATFORM, CdcTableProps, shards_key
from cdc_platform.reconciler import last_pass

CAPTURED = "captured"
FRESH = "fresh"
RECENTLY = "recently_verified"
# Metadata of the latter: when the newest verdict of the shard was found that was verified longest ago.
OLDEST = "oldest_verdict"
OP = "judge_captured"

# The last pass says how things are for so long; one is made each five minutes at least.
PASS_COUNTS = timedelta(minutes=15)

_BETWEEN = "expect_column_values_to_be_between"


@dataclass(frozen=True, slots=True)
class Said:
    """What a check of this kind is found to be: in one sentence, and in numbers."""

    passed: bool
    text: str
    numbers: Mapping[str, float | int]


def captured(record: Mapping[str, Any] | None, dataset: str, now: datetime) -> Said | None:
    """Whether all shards of the dataset are up, by the record of the last pass; None where there was no pass."""
    if record is None:
        return None
    if silence := _silence(record, now):
        return Said(False, f"{silence}: whether the shards are captured is not known.", {})
    found = _dataset(record, dataset)
    if found is None:
        return Said(False, "The last pass did not see the dataset.", {})
    up, shards = int(found.get("up", 0)), int(found.get("shards", 0))
    states = {name: int(count) for name, count in (found.get("states") or {}).items() if name != "RUNNING"}
    down = "".join(f", {count} {name}" for name, count in sorted(states.items()))
    return Said(up == shards > 0, f"{up} of {shards} shards up{down}.", {"shards_up": up, "shards": shards})


def fresh(record: Mapping[str, Any] | None, dataset: str, suite: Suite, now: datetime) -> Said | None:
    """Whether no shard of the dataset is further behind its source than the suite allows, by the last pass.

    None where that is not to be said: the suite expects something else, there was no pass, or it knows of no lag since
    the workers' metrics are not read. Then the lag at the last verification counts.
    """
    most = _most(suite, FRESH, "lag_s")
    if most is None or record is None:
        return None
    lags = (_dataset(record, dataset) or {}).get("lag_s") or {}
    if not lags:
        return None
    if silence := _silence(record, now):
        return Said(False, f"{silence}: how far the shards are behind is not known.", {})
    worst, half = float(lags.get("1.0", 0.0)), float(lags.get("0.5", 0.0))
    text = f"The shard furthest behind its source is {worst:.0f} s behind, half of them at most {half:.1f} s."
    return Said(worst <= most, text, {"lag_s": worst, "lag_s_p50": half, "lag_s_p99": float(lags.get("0.99", worst))})


def recently_verified(checked: Mapping[str, datetime], shards: int, suite: Suite, now: datetime) -> Said | None:
    """Whether each shard's newest verdict is young enough; None where the suite expects something else.

    Args:
        checked: shard to the time of its newest verdict.
        shards: how many there are.
        suite: the dataset's.
        now: the time.
    """
    most = most_age(suite)
    if most is None:
        return None
    never = shards - len(checked)
    if not checked:
        return Said(False, f"None of {shards} shards was ever verified.", {"never_verified": never})
    oldest = min(checked.values())
    age = (now - oldest).total_seconds()
    text = f"The oldest verdict is {age / 3600:.1f} h old"
    text += f", {never} of {shards} shards were never verified." if never else "."
    return Said(age <= most and not never, text, {"never_verified": never, OLDEST: oldest.timestamp()})


def as_passes_say(
    outcome: CheckOutcome, record: Mapping[str, Any] | None, dataset: str, suite: Suite, now: datetime
) -> CheckOutcome:
    """`fresh` by the last pass, where it knows: a verification saw the lag of then. All else as it is."""
    if outcome.expectation.check != FRESH or (said := fresh(record, dataset, suite, now)) is None:
        return outcome
    return CheckOutcome(expectation=outcome.expectation, passed=said.passed, problem="" if said.passed else said.text)


def build_captured_checks(*, tables: Iterable[CdcTableProps], platform: str = "cdc") -> list[dg.AssetChecksDefinition]:
    """The check `captured` of each dataset, on the asset of its shards: all of them are up, by the last pass.

    `pass_checks_sensor` reports it when it changes and once a day; a run judges it at once. It takes the resource
    `cdc_platform`.
    """
    keys = {shards_key(one.platform, one.dataset): one.dataset for one in tables}
    if not keys:
        return []
    specs = [
        dg.AssetCheckSpec(CAPTURED, asset=key, description="All shards are captured, by the last pass.") for key in keys
    ]

    names = Names(platform)

    @dg.multi_asset_check(
        name=names.of(OP),
        specs=specs,
        can_subset=True,
        op_tags={TAG_PLATFORM: platform},
        required_resource_keys={names.resource},
    )
    def cdc_captured(context: dg.AssetCheckExecutionContext) -> Iterable[dg.AssetCheckResult]:
        with names.in_(context).platform() as clients:
            record = clients.state.read().get(last_pass.KEY)
        now = datetime.now(UTC)
        for check in context.selected_asset_check_keys:
            said = captured(record, keys[check.asset_key], now) or Said(False, "There was no pass yet.", {})
            yield dg.AssetCheckResult(
                asset_key=check.asset_key,
                check_name=check.name,
                passed=said.passed,
                severity=dg.AssetCheckSeverity.WARN,
                description=said.text,
                metadata=dict(said.numbers),
            )

    return [cdc_captured]


def _silence(record: Mapping[str, Any], now: datetime) -> str | None:
    age = last_pass.age(record, now)
    if age is None:
        return "The record of the last pass cannot be read"
    return f"The last pass was {age / 60:.0f} minutes ago" if age > PASS_COUNTS.total_seconds() else None


def _dataset(record: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    found = record.get("datasets")
    one = found.get(name) if isinstance(found, Mapping) else None
    return one if isinstance(one, Mapping) else None


def most_age(suite: Suite) -> float | None:
    """Seconds that verdicts may be old; None where the suite expects something else."""
    return _most(suite, RECENTLY, "age_s")


def _most(suite: Suite, check: str, column: str) -> float | None:
    """The bound of the check; None where the suite has none in the form of the default one."""
    for item in suite.expectations:
        if item.check == check and item.type == _BETWEEN and item.kwargs.keys() == {"column", "max_value"}:
            most = item.kwargs["max_value"]
            if isinstance(most, Mapping):
                most = suite.parameters.get(str(most.get("$PARAMETER")))
            if item.kwargs["column"] == column and isinstance(most, int | float):
                return float(most)
    return None
