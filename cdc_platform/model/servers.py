"""What a database server says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cdc_platform.model.topology import EMPTY, Address, Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotView:
    """A logical slot on a server. `flushed` is an LSN as a number; None where the slot never was used."""

    flushed: int | None
    temporary: bool = False
    synced: bool = False
    failover: bool = False
    status: str = "reserved"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerView:
    """What one database server says of itself.

    `identity` is the same for two addresses of one server. `position` is its GTID
    position or set (binlog engines) or its LSN as a number in text; `oldest` what was
    written before the log that it keeps. `behind` are the seconds to the server that it
    follows, None where that is unknown. `settings` are the server's own, by its own names.
    """

    address: Address
    engine: Engine
    identity: str
    writable: bool
    following: bool
    position: str
    version: int = 0
    server_id: int | None = None
    oldest: str = ""
    behind: float | None = None
    settings: Mapping[str, str] = EMPTY
    slots: Mapping[str, SlotView] = field(default_factory=dict)
