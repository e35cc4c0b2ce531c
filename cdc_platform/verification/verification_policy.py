"""Validates a dataset's `verification` when it is written, not when it is first used."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from cdc_platform.errors import TopologyError
from cdc_platform.model.naming import one_of
from cdc_platform.model.topology import Dataset
from cdc_platform.verification.duplicates.causes import DuplicatePolicy
from cdc_platform.verification.ports import VerificationPolicy

_KNOWN = (*sorted(item.name for item in fields(VerificationPolicy)), "duplicates")
_CRON = re.compile(r"@(hourly|daily|weekly|monthly|yearly)|[0-9*/,\-]+ [0-9*/,\-]+( [0-9A-Za-z*/,\-]+){3}")


def check_policy(dataset: Dataset, where: Path | str) -> None:
    """Make sure that all of it is known and has values that can be.

    Raises:
        TopologyError: something is not; with field and cure.
    """
    try:
        policy = VerificationPolicy.of(dataset)
        DuplicatePolicy.of(dataset)
    except TopologyError as error:
        field = f"datasets.{dataset.name}.{error.field}"
        raise TopologyError(error.message, where=str(where), field=field, cure=error.cure) from error
    for name in dataset.verification:
        if name not in _KNOWN:
            raise TopologyError(
                "there is no such setting of verification.",
                where=str(where),
                field=f"datasets.{dataset.name}.verification.{name}",
                cure=one_of(name, _KNOWN, most=len(_KNOWN)),
            )
    if policy.schedule and not _CRON.fullmatch(policy.schedule):
        raise TopologyError(
            f"{policy.schedule!r} is not a cron line.",
            where=str(where),
            field=f"datasets.{dataset.name}.verification.schedule",
            cure='Five fields, such as "0 4 * * *" for four in the morning (UTC).',
        )
