"""A gate for downstream assets: nothing is built on a topic that is not known to be complete."""

from __future__ import annotations

import dagster as dg

from cdc_platform.defs.audit_asset import audit_key
from cdc_platform.defs.latest_checks import latest_evaluations


def require_check(instance: dg.DagsterInstance, asset: dg.AssetKey, check: str = "complete") -> None:
    """Go on only when the newest evaluation of the check passed, in whatever run that was.

    `asset` is that of a topic, whose verdicts' checks are meant, or the one that has the check itself.

    Blocking checks stop an asset in their own run; this stops it in every other one.

    Raises:
        dagster.Failure: it failed, or there is none: what was never checked is not known to be right.
    """
    keys = [dg.AssetCheckKey(asset, check), dg.AssetCheckKey(audit_key(asset), check)]
    newest = max(latest_evaluations(instance, keys).values(), key=lambda found: found.at, default=None)
    if newest is None:
        raise dg.Failure(
            description=f"{check} of {asset.to_user_string()} was never evaluated: run its check first.",
            allow_retries=False,
        )
    if not newest.evaluation.passed:
        raise dg.Failure(
            description=f"{check} of {asset.to_user_string()} fails: {newest.evaluation.description} "
            f"(run {newest.run_id})",
            allow_retries=False,
        )
