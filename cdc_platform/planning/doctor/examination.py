"""What a shard's leader said when it was examined. Values, the same for all engines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cdc_platform.canonical.catalog import CatalogTable
from cdc_platform.canonical.chunk_keys import TableKey
from cdc_platform.model.source_facts import RetainedLog
from cdc_platform.model.topology import EMPTY

# Connections that a connector has to its source: one that streams, one that asks.
EACH = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """Something that a server, its settings or a table does not have as it must: what, and the SQL that cures it."""

    what: str
    cure: str
    table: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotSeen:
    """A replication slot of a Postgres server."""

    plugin: str = "pgoutput"
    database: str = ""
    active: bool = False
    lost: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicationSeen:
    """A publication of the shard's name. `tables` are those of the dataset that it holds, by name; `narrow` says of
    those what keeps rows or columns out; `operations` are what it does not send, of insert, update and delete.
    """

    every_table: bool = False
    tables: frozenset[str] = frozenset()
    narrow: Mapping[str, str] = EMPTY
    operations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """Of what a server has only so many: `used` of `most` are taken, `ours` of those by our connectors already.

    `setting` is the variable that bounds it, `each` how many a shard needs.
    """

    setting: str
    used: int
    most: int
    ours: int = 0
    each: int = 1

    def lacking(self, shards: int) -> int:
        """How many are missing for so many shards."""
        return max(0, self.each * shards - self.ours) - max(0, self.most - self.used)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSeen:
    """A server as a whole.

    `identity` is the same by whichever address it is reached. `settings` are variables by name, as it shows them.
    `clock_s`: seconds that its clock is ahead of ours. `following`: it applies what another server sends. `account`
    is the user as a GRANT names it. `log` are all binlogs (MariaDB, MySQL). `slots` are by name (Postgres).
    `prepared` are transactions that are prepared and neither committed nor rolled back.
    """

    identity: str
    settings: Mapping[str, str] = EMPTY
    wrong_settings: tuple[Lack, ...] = ()
    capacities: tuple[Capacity, ...] = ()
    clock_s: float = 0.0
    following: bool = False
    account: str = ""
    prepared: tuple[str, ...] = ()
    log: RetainedLog | None = None
    slots: Mapping[str, SlotSeen] = EMPTY
    logs_cascades: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """One shard: its server, and what is its own there.

    `database` is the same for the same database by whichever name. `rights` are those that are missing, `unfit` is
    why a pass leaves tables out. `twins` are tables that
    differ from a captured one in case only. `role_settings` are set for the user or the database (Postgres), `limits`
    bound the connections to the database. `copies` are tables that an online schema change has made of captured ones.
    `publishes`: the connector makes its publication itself (Postgres).
    """

    server: ServerSeen
    database: str
    tables: Mapping[str, CatalogTable]
    keys: Mapping[str, TableKey]
    rights: tuple[Lack, ...] = ()
    unfit: tuple[Lack, ...] = ()
    twins: tuple[str, ...] = ()
    role_settings: Mapping[str, str] = EMPTY
    limits: tuple[Capacity, ...] = ()
    copies: tuple[str, ...] = ()
    encoding: str = ""
    slot: RetainedLog | None = None
    publication: PublicationSeen | None = None
    publishes: bool = True
