"""The two tables of Iceberg that a captured table lands in: `<table>_changes` and `<table>_base`.

One commit of `changes` is one run, whole or not at all; the catalog sees to it. Its snapshot names a file with the
run's number, the topic's offsets up to which it goes, and what is known of each shard.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from cdc_platform.errors import LakeConflict, LakeHeld, LakeUnavailable, require_extra
from cdc_platform.lake.policy import LakePolicy

if TYPE_CHECKING:
    from pyiceberg.catalog.sql import SqlCatalog
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

# Properties of snapshots: the file of a run of `changes`; bucket to the run up to which `base` has it.
STATE, MERGED = "cdc.state", "cdc.merged"
# The same of all snapshots that one rewrite of a table makes.
REWRITE = "cdc.rewrite"

BUCKET, KEY, RUN, CURRENT = "cdc_bucket", "cdc_key", "cdc_run", "cdc_current"

# An event's transaction as numbers, by which positions see it (`model.positions`); 0 of what a snapshot read.
STREAM, SEQ = "cdc_stream", "cdc_seq"

# pyiceberg sends an append again on top of what another writer committed meanwhile: its events would be there twice.
# Its bounds of columns fail on moments past the year 9999, so that only those are kept by which is read here.
_ONE_WRITER = {
    "commit.retry.num-retries": "0",
    "format-version": "2",
    "write.metadata.metrics.default": "counts",
    "write.metadata.metrics.column.cdc_bucket": "full",
    "write.metadata.metrics.column.cdc_run": "full",
}


class ShardState(msgspec.Struct, frozen=True, kw_only=True):
    """A shard as a run found it: what its connector had committed (all of it is in the run), None: not known.

    `verdict` is the newest one that the topic had then, of the positions up to `proven_to`, of the run `verification`;
    None: there was none, or it was about positions that the run does not have.
    """

    position: str | None = None
    verdict: str | None = None
    proven_to: str | None = None
    verification: str | None = None


class Late(msgspec.Struct, frozen=True, kw_only=True):
    """Events that a run found of a window (`until`: its end, seconds since 1970) which was whole before it."""

    at: str
    shard: str
    until: int
    events: int
    keys: tuple[str, ...] = ()


class LakeState(msgspec.Struct, frozen=True, kw_only=True):
    """The file of a run: its number from 1 on, the topic's id, the next offset of each partition, the shards.

    `late`: events that came too late, by the runs of the last week. Files of earlier releases lack it, and verdicts.
    """

    run: int = 0
    topic_id: str | None = None
    offsets: dict[int, int] = {}
    shards: dict[str, ShardState] = {}
    late: tuple[Late, ...] = ()
    events: int = 0
    version: int = 1


@dataclass(frozen=True, slots=True)
class LakeTables:
    """The tables of one captured table; `base` is there from the first merge on."""

    catalog: SqlCatalog
    namespace: str
    table: str

    def changes(self) -> Table | None:
        """Every event; None before the first run."""
        return self._load(f"{self.table}_changes")

    def base(self) -> Table | None:
        """The rows by bucket; None before the first merge."""
        return self._load(f"{self.table}_base")

    def make_changes(self, schema: pa.Schema) -> Table:
        """`changes`, made where it is not there."""
        with lake_errors(self.table):
            self.catalog.create_namespace_if_not_exists(self.namespace)
            return self.catalog.create_table_if_not_exists(
                (self.namespace, f"{self.table}_changes"), schema, properties=_ONE_WRITER
            )

    def make_base(self, schema: pa.Schema) -> Table:
        """`base`, made where it is not there, or not whole after a kill: a partition each bucket."""
        from pyiceberg.transforms import IdentityTransform

        with lake_errors(self.table):
            made = self.catalog.create_table_if_not_exists(
                (self.namespace, f"{self.table}_base"), schema, properties=_ONE_WRITER
            )
            if not made.spec().fields:
                with made.update_spec() as update:
                    update.add_field(BUCKET, IdentityTransform(), BUCKET)
            return made

    def _load(self, name: str) -> Table | None:
        from pyiceberg.exceptions import NoSuchTableError

        with lake_errors(self.table):
            try:
                return self.catalog.load_table((self.namespace, name))
            except NoSuchTableError:
                return None


def open_tables(policy: LakePolicy, dataset: str, table: str) -> LakeTables:
    """The tables of a captured table. Raises ExtraMissing and LakeUnavailable."""
    require_extra("lake")
    from pyiceberg.catalog.sql import SqlCatalog

    with lake_errors(table):
        catalog = SqlCatalog("cdc", uri=policy.catalog, warehouse=policy.warehouse)
    return LakeTables(catalog, dataset, table)


@contextmanager
def lake_errors(table: str) -> Iterator[None]:
    """Raises LakeConflict where another writer was first, LakeUnavailable where catalog or store fail.

    And LakeHeld where a file is not what the table says.
    """
    from pyiceberg.exceptions import CommitFailedException, ResolveError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except CommitFailedException as error:
        raise LakeConflict(
            f"another writer has committed to the lake of {table} meanwhile; nothing of this run was written.",
            cure="Run it again: it takes what is new since then. One schedule a table is enough.",
        ) from error
    except (ResolveError, pa.ArrowInvalid) as error:
        raise LakeHeld(
            f"a data file of the lake of {table} is not of the table's types: {error}.",
            cure="Something else wrote it: rename the lake's tables and let it fill new ones.",
        ) from error
    except (SQLAlchemyError, OSError) as error:
        raise LakeUnavailable(
            # SQLAlchemy adds lines with the statement and a link.
            f"the lake of {table} cannot be read or written: {str(error).splitlines()[0]}.",
            cure="See to its catalog and its store, then run it again: what was not committed is rewritten.",
        ) from error


def state_of(changes: Table, snapshot: Snapshot | None) -> LakeState:
    """What the snapshot's file says; an empty state without a snapshot."""
    place = property_of(snapshot, STATE)
    if place is None:
        return LakeState()
    with changes.io.new_input(place).open() as stream:
        return msgspec.json.decode(stream.read(), type=LakeState)


def state_place(changes: Table, run: int) -> str:
    """Where the file of a run that is not committed yet is to be."""
    return f"{changes.location()}/cdc/state-{run:08d}-{uuid.uuid4().hex}.json"


def write_state(changes: Table, state: LakeState, place: str) -> None:
    """Write the file of a run, before the commit that names it."""
    with changes.io.new_output(place).create() as stream:
        stream.write(msgspec.json.encode(state))


def merged_of(snapshot: Snapshot | None) -> Mapping[int, int]:
    """Bucket to the run up to which this snapshot of `base` has its changes."""
    text = property_of(snapshot, MERGED)
    return {} if text is None else msgspec.json.decode(text, type=dict[int, int])


def property_of(snapshot: Snapshot | None, name: str) -> Any:
    """What a snapshot says of itself under this name; None without it."""
    if snapshot is None or snapshot.summary is None:
        return None
    return snapshot.summary.additional_properties.get(name)
