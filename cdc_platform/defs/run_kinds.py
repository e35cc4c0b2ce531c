"""The kinds of runs that the platform makes: a tag of each, by which an instance limits how many run at once."""

from __future__ import annotations

from enum import StrEnum

TAG_KIND = "cdc/kind"


class RunOf(StrEnum):
    """The value of the tag `cdc/kind`."""

    RECONCILE = "reconcile"
    BOOTSTRAP = "bootstrap"
    BACKFILL = "backfill"
    VERIFY = "verify"
    REPAIR = "repair"
    CHECKS = "checks"
    DOCTOR = "doctor"
    SHARD = "shard"
    PRUNE = "prune"
