"""How much log a source may keep for its shards."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cdc_platform.errors import TopologyError


class WhenFull(StrEnum):
    """What happens before a source is full of the log that a shard's slot keeps."""

    ALERT = "alert"
    GIVE_UP_SLOT = "give_up_slot"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLog:
    """How much log a source may keep for a shard, and what happens before that.

    `full_bytes`: what the slot of a shard may keep (Postgres; None: what `max_slot_wal_keep_size` says). So many
    `alert_seconds` before it is full, or before binlogs that the connector needs are purged, there is an alert.
    `outage_seconds` is the longest that connectors may be down: the doctor names servers that keep less.
    """

    full_bytes: int | None = None
    alert_seconds: int = 6 * 3600
    when_full: WhenFull = WhenFull.ALERT
    outage_seconds: int = 24 * 3600

    def __post_init__(self) -> None:
        if self.when_full is WhenFull.GIVE_UP_SLOT and self.full_bytes is None:
            raise TopologyError(
                "a slot is given up by its size.", field="source_log.full_bytes", cure="Say how many bytes it may keep."
            )


# Of a dataset that says nothing of it.
DEFAULT_SOURCE_LOG = SourceLog()
