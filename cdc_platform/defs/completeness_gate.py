"""A gate for downstream assets: nothing is built on a topic that is not known to be complete."""

from __future__ import annotations

import dagster as dg

# Evaluations that are read at once, and how often: 100,000 hold a week of hundreds of tables.
_PAGE = 1_000
_PAGES = 100


def require_check(instance: dg.DagsterInstance, asset: dg.AssetKey, check: str = "complete") -> None:
    """Go on only when the newest evaluation of the check passed, in whatever run that was.

    Blocking checks stop an asset in their own run; this stops it in every other one.

    Raises:
        dagster.Failure: it failed, or there is none: what was never checked is not known to be right.
    """
    newest = _newest(instance, dg.AssetCheckKey(asset, check))
    if newest is not None:
        evaluation, run_id = newest
        if evaluation.passed:
            return
        raise dg.Failure(
            description=f"{check} of {asset.to_user_string()} fails: {evaluation.description} (run {run_id})",
            allow_retries=False,
        )
    raise dg.Failure(
        description=f"{check} of {asset.to_user_string()} was never evaluated: run its check first.",
        allow_retries=False,
    )


def _newest(instance: dg.DagsterInstance, check: dg.AssetCheckKey) -> tuple[dg.AssetCheckEvaluation, str] | None:
    """The newest evaluation and its run."""
    latest = instance.get_latest_asset_check_evaluation_record(check)
    if latest is None:
        return None
    # That of a check that is under way is none yet, whatever its type says.
    if isinstance(latest.evaluation, dg.AssetCheckEvaluation):
        return latest.evaluation, latest.run_id
    # It hides the one before it: the event log is read backwards.
    before: int | None = None
    for _ in range(_PAGES):
        records = instance.get_event_records(
            dg.EventRecordsFilter(dg.DagsterEventType.ASSET_CHECK_EVALUATION, before_cursor=before),
            limit=_PAGE,
            ascending=False,
        )
        for record in records:
            event = record.event_log_entry.dagster_event
            if event is not None and event.asset_check_evaluation_data.asset_check_key == check:
                return event.asset_check_evaluation_data, record.event_log_entry.run_id
        if len(records) < _PAGE:
            break
        before = records[-1].storage_id
    return None
