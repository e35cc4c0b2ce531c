"""Ready conditions for assets downstream of topics: `automation_condition=on_new_data(timedelta(hours=1))`."""

from __future__ import annotations

from datetime import timedelta
from functools import reduce
from operator import and_, or_
from typing import Any

import dagster as dg

from cdc_platform.defs.audit_asset import audit_key
from cdc_platform.defs.translator import shards_key, shards_partition
from cdc_platform.errors import BadInput

Condition = dg.AutomationCondition[Any]

_MINUTE = timedelta(minutes=1)
_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)


def on_new_data(min_interval: timedelta = timedelta(minutes=15)) -> Condition:
    """Request the asset when a topic that it depends on has new events, at most once in `min_interval`.

    Asked at the ticks of that interval (UTC; with one hour: on the hour): what came since the last request is
    handled then. A topic is materialized at most every 15 minutes, so a shorter interval brings nothing.

    Args:
        min_interval: one that the hour or the day is a multiple of: 5, 15 or 30 minutes, 1, 6 or 24 hours.

    Raises:
        BadInput: another interval.
    """
    return (
        (dg.AutomationCondition.newly_missing() | dg.AutomationCondition.any_deps_updated()).since_last_handled()
        & dg.AutomationCondition.cron_tick_passed(_cron(min_interval))
        & ~dg.AutomationCondition.any_deps_missing()
        & ~dg.AutomationCondition.in_progress()
    ).with_label(f"on_new_data({min_interval})")


def on_proof(*topics: dg.AssetKey) -> Condition:
    """Request the asset after each verification of these topics that finds all of them complete.

    It goes by the check `complete` of each topic's audit frame: a new result of one requests the asset when the
    newest results of all have passed. The asset need not depend on the audit frames.

    Args:
        topics: keys of topics. Without any, the audit frames that the asset depends on count, by their
            blocking checks (`blocking: true` of the component).
    """
    judged: Condition
    passed: Condition
    if topics:
        judged = reduce(or_, (_complete(topic, dg.AutomationCondition.newly_updated()) for topic in topics))
        passed = reduce(and_, (_complete(topic, dg.AutomationCondition.check_passed()) for topic in topics))
    else:
        judged = dg.AutomationCondition.any_deps_match(
            dg.AutomationCondition.any_checks_match(dg.AutomationCondition.newly_updated(), blocking_only=True)
        )
        passed = dg.AutomationCondition.all_deps_blocking_checks_passed()
    return (judged.since_last_handled() & passed & ~dg.AutomationCondition.in_progress()).with_label("on_proof")


def when_captured(fraction: float = 1.0, *, dataset: str, platform: str = "cdc") -> Condition:
    """Hold while less than this fraction of the dataset's shards has been captured; combine it with a trigger.

        automation_condition=on_new_data(timedelta(hours=1)) & when_captured(0.999, dataset="pins")

    It is evaluated in your code location: the sensor needs `use_user_code_server=True`. Where all shards have to be
    there, an asset that depends on `shards_key(platform, dataset)` can use `~AutomationCondition.any_deps_missing()`.

    Args:
        fraction: above 0, at most 1.
        dataset: its name.
        platform: the platform's name.

    Raises:
        BadInput: no such fraction.
    """
    if not 0.0 < fraction <= 1.0:
        raise BadInput(f"fraction is {fraction}.", cure="Give one above 0 and at most 1, such as 0.999.")
    return _Captured(fraction, dataset, platform)


class _Captured(dg.AutomationCondition[Any]):
    def __init__(self, fraction: float, dataset: str, platform: str) -> None:
        self._fraction, self._dataset, self._platform = fraction, dataset, platform

    @property
    def name(self) -> str:
        """Shown in Dagster's evaluations."""
        return f"when_captured({self._fraction}, {self._platform}/{self._dataset})"

    def evaluate(self, context: dg.AutomationContext[Any]) -> dg.AutomationResult[Any]:
        """All of the asset, or nothing."""
        instance = context.asset_graph_view.instance
        shards = set(instance.get_dynamic_partitions(shards_partition(self._platform, self._dataset)))
        captured = instance.get_materialized_partitions(shards_key(self._platform, self._dataset)) & shards
        enough = bool(shards) and len(captured) >= self._fraction * len(shards)
        return dg.AutomationResult(context, context.candidate_subset if enough else context.get_empty_subset())


def _complete(topic: dg.AssetKey, condition: Condition) -> Condition:
    key = audit_key(topic)
    checks = dg.AutomationCondition.any_checks_match(condition)
    only = checks.allow(dg.AssetSelection.checks(dg.AssetCheckKey(key, "complete")))
    return dg.AutomationCondition.asset_matches(key, only)


def _cron(interval: timedelta) -> str:
    """The cron line with ticks that far apart."""
    minutes, hours = interval // _MINUTE, interval // _HOUR
    if interval == minutes * _MINUTE and 0 < minutes < 60 and 60 % minutes == 0:
        return f"*/{minutes} * * * *"
    if interval == hours * _HOUR and 0 < hours < 24 and 24 % hours == 0:
        return f"0 */{hours} * * *"
    if interval == _DAY:
        return "0 0 * * *"
    raise BadInput(
        f"min_interval is {interval}: the ticks of a clock cannot be that far apart.",
        cure="Give 1, 5, 10, 15, 20 or 30 minutes, 1, 2, 3, 4, 6, 8 or 12 hours, or a day.",
    )
