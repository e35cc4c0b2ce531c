"""What is wrong with a shard's tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cdc_platform.canonical.catalog import CatalogTable, Generated, TableKind
from cdc_platform.canonical.chunk_keys import unfit_key
from cdc_platform.canonical.column_hazards import hazards, refused, stops
from cdc_platform.canonical.hash_sql import form, quote_name
from cdc_platform.canonical.key_text import readable_key
from cdc_platform.connectors.column_lists import captured_columns
from cdc_platform.connectors.identity import SHARD_KEY_FIELD
from cdc_platform.model.topology import BootstrapMode, Dataset, Engine, Shard, Table
from cdc_platform.planning.doctor.examination import Examination
from cdc_platform.planning.doctor.findings import DoctorFinding, finding
from cdc_platform.planning.doctor.kinds import Ailment, Kind, Severity
from cdc_platform.planning.health.source_hazard_kinds import KINDS, HazardKind

_TABLES = {
    Engine.MARIADB: (TableKind.TABLE, TableKind.PARTITIONED, TableKind.VERSIONED),
    Engine.MYSQL: (TableKind.TABLE, TableKind.PARTITIONED),
    Engine.POSTGRES: (TableKind.TABLE, TableKind.PARTITIONED),
}
_WITHOUT_TRANSACTIONS = frozenset({"myisam", "mrg_myisam", "memory", "csv", "archive", "aria", "blackhole"})
_CHANGING = ("pt_osc_", "repack_trigger")
_LEAVE_OUT = "Take it out of the dataset's tables."


def table_findings(dataset: Dataset, shard: Shard, seen: Examination) -> Iterator[DoctorFinding]:
    """Of all tables of a shard. Raises OverrideRefused."""
    for table in dataset.tables:
        found = seen.tables.get(table.name)
        if found is None:
            # A user without rights does not see it: then that is what is missing.
            if all(right.table != table.name for right in seen.rights):
                text, cure = "the table is not there", "Create it, or take it out of the dataset's tables."
                yield finding(Ailment.MISSING_TABLE, dataset.name, [shard.id], text, cure, table=table.name)
            continue
        captured = captured_columns(dataset, shard, table, dataset.verification.get("ignore_columns", ()))
        yield from _Table(dataset, shard, table, found, seen, captured).findings()


@dataclass(frozen=True, slots=True)
class _Table:
    """One table of one shard; `captured` says of a column whether events carry it and the proof looks at it."""

    dataset: Dataset
    shard: Shard
    table: Table
    found: CatalogTable
    seen: Examination
    captured: Callable[[str], bool]

    def findings(self) -> Iterator[DoctorFinding]:
        if self.found.kind not in _TABLES[self.engine]:
            yield self._say(Ailment.NOT_A_TABLE, f"it is a {self.found.kind}, not a table", _LEAVE_OUT)
            return
        left_out = [lack for lack in self.seen.unfit if lack.table == self.table.name]
        for lack in left_out:
            yield self._say(HazardKind.LEFT_OUT, f"it is left out: {lack.what}", lack.cure)
        yield from self._key(left_out=bool(left_out))
        yield from self._columns(left_out=bool(left_out))
        yield from self._postgres() if self.engine is Engine.POSTGRES else self._binlog()
        if changing := [name for name in self.found.triggers if name.startswith(_CHANGING)]:
            drop = f"DROP TRIGGER {quote_name(self.engine, changing[0])}"
            drop += f" ON {self.sql}" if self.engine is Engine.POSTGRES else ""
            text = f"an online schema change is under way, or was interrupted: trigger {changing[0]}"
            yield self._say(Ailment.ONLINE_CHANGE, text, f"Let it end. Of an interrupted one: {drop}")
        for copy in self.seen.copies:
            if copy.startswith(f"_{self.found.name}_"):
                text = f"an online schema change is under way, or was interrupted: table {copy}"
                drop = f"DROP TABLE {quote_name(self.engine, copy)}"
                yield self._say(Ailment.ONLINE_CHANGE, text, f"Let it end. Of an interrupted one: {drop}")

    @property
    def engine(self) -> Engine:
        return self.dataset.engine

    @property
    def sql(self) -> str:
        """Its name in a statement to its database."""
        name = quote_name(self.engine, self.found.name)
        return f"{quote_name(self.engine, self.found.place)}.{name}" if self.engine is Engine.POSTGRES else name

    def _say(self, kind: Kind, text: str, cure: str = "", weight: Severity | None = None) -> DoctorFinding:
        cure = cure or (KINDS[kind].cure if isinstance(kind, HazardKind) else "")
        return finding(kind, self.dataset.name, [self.shard.id], text, cure, table=self.table.name, weight=weight)

    def _key(self, *, left_out: bool) -> Iterator[DoctorFinding]:
        named = self.table.key
        key = self.found.key(named)
        if not key:
            text = "it has no primary key"
            if named:
                text = f"no unique key of NOT NULL columns has just the columns of `key` ({', '.join(named)})"
            columns = ", ".join(quote_name(self.engine, name) for name in named or ("id",))
            cure = f"ALTER TABLE {self.sql} ADD {'UNIQUE' if named else 'PRIMARY KEY'} ({columns})"
            kept = "compact" in self.dataset.topics.config.get("cleanup.policy", "compact")
            weight = Severity.ERROR if kept and not left_out else Severity.WARNING
            yield self._say(Ailment.NO_KEY, text, f"{cure}; or name a unique key of NOT NULL columns as `key`.", weight)
            return
        if SHARD_KEY_FIELD in key:
            cure = f"ALTER TABLE {self.sql} RENAME COLUMN {SHARD_KEY_FIELD} TO shard_id"
            yield self._say(Ailment.RESERVED_NAME, f"its key has a column called {SHARD_KEY_FIELD}", cure)
        unfit = unfit_key(self.engine, self.seen.keys[self.table.name])
        if unfit is not None and self.dataset.bootstrap is BootstrapMode.INCREMENTAL:
            cure = "Name another unique key as `key`, or set `bootstrap: snapshot`."
            yield self._say(Ailment.KEY_NOT_READ_IN_CHUNKS, unfit, cure)
        for name in key:
            column = self.found.column(name)
            if column is not None and column.generated and self.engine is Engine.POSTGRES:
                text = f"the key column {name} is generated: it is in no event"
                yield self._say(Ailment.NO_KEY, text, "Name another unique key as `key`.", Severity.ERROR)
            elif column is not None and not readable_key(self.engine, column.column):
                text = f"the key column {name}: keys of type {column.declared} cannot be looked up"
                yield self._say(Ailment.UNPROVABLE, text, "Name another unique key as `key`.")

    def _columns(self, *, left_out: bool) -> Iterator[DoctorFinding]:
        for text, cure in self._unreadable() if self.engine is Engine.MARIADB and not left_out else ():
            yield self._say(HazardKind.UNREADABLE, text, cure)
        for column in self.found.columns:
            modify = (
                f"ALTER TABLE {self.sql} MODIFY {quote_name(self.engine, column.name)} ..., or leave the table out."
            )
            if (why := stops(self.engine, column.column) or refused(self.engine, column.column)) is not None:
                yield self._say(HazardKind.UNREADABLE, why, f"Another type or character set: {modify}")
        sent = [
            column
            for column in self.found.columns
            if self.captured(column.name) and not (column.generated and self.engine is Engine.POSTGRES)
        ]
        for column in sent:
            if form(self.engine, column.column) is None and stops(self.engine, column.column) is None:
                text = f"column {column.name}: the type {column.declared} has no canonical form"
                cure = "Another type, or `ignore_columns` in the dataset's verification."
                yield self._say(Ailment.UNPROVABLE, text, cure)
        if self.seen.encoding == "SQL_ASCII":
            text = "the database's encoding is SQL_ASCII: its text has no defined characters"
            yield self._say(Ailment.UNPROVABLE, text, "Load it into a database whose encoding is UTF8.")
        known = [column.column for column in sent if stops(self.engine, column.column) is None]
        for text in hazards(self.engine, known):
            yield self._say(Ailment.VALUES, text, "Avoid such values.")

    def _binlog(self) -> Iterator[DoctorFinding]:
        found = self.found
        for key in found.foreign_keys if not self.seen.server.logs_cascades else ():
            if key.acts:
                text = f"the foreign key {key.name} ({key.acts}) changes rows below the binlog: they are not captured"
                drop = f"ALTER TABLE {self.sql} DROP FOREIGN KEY {quote_name(self.engine, key.name)}, and ADD it"
                yield self._say(HazardKind.CASCADE, text, f"{drop} again with ON DELETE RESTRICT ON UPDATE RESTRICT.")
        if found.kind is TableKind.PARTITIONED:
            text = "it is partitioned: rows that go with a partition go without a row in the log"
            yield self._say(Ailment.PARTITIONED, text, "Delete rows by statements, or `verify` after such a change.")
        if found.storage.lower() in _WITHOUT_TRANSACTIONS:
            text = f"its engine is {found.storage}, which has no transactions"
            yield self._say(Ailment.NOT_TRANSACTIONAL, text, f"ALTER TABLE {self.sql} ENGINE = InnoDB")

    def _unreadable(self) -> Iterator[tuple[str, str]]:
        """What the connector's parser does not know; a pass leaves nothing out for it."""
        for period in self.found.periods:
            yield f"the connector does not know the period {period}", f"ALTER TABLE {self.sql} DROP PERIOD FOR {period}"
        for column in self.found.columns:
            if column.hidden:
                text = f"column {column.name} is INVISIBLE, which the connector does not know"
                yield text, f"ALTER TABLE {self.sql} MODIFY {quote_name(self.engine, column.name)} without INVISIBLE"

    def _postgres(self) -> Iterator[DoctorFinding]:
        left_out = any(lack.table == self.found.name for lack in self.seen.unfit)
        if self.found.kind is TableKind.PARTITIONED and not left_out:
            text = "it is partitioned: rows that come or go with a partition are not in the log"
            yield self._say(Ailment.PARTITIONED, text, "`verify` after DROP, DETACH or ATTACH PARTITION, and `repair`.")
        if self.found.row_security:
            text = "its policies hide rows from the connector's user"
            yield self._say(Ailment.ROW_SECURITY, text, f"ALTER ROLE {self.seen.server.account} BYPASSRLS")
        made = [column.name for column in self.found.columns if column.generated is not Generated.NO]
        if made:
            text = f"no event carries its generated columns ({', '.join(made)})"
            drop = f"ALTER TABLE {self.sql} ALTER COLUMN {quote_name(self.engine, made[0])} DROP EXPRESSION"
            yield self._say(Ailment.GENERATED, text, f"Compute them downstream; or {drop}, and fill it by a trigger.")
        columns = [column.column for column in self.found.columns if self.captured(column.name)]
        whole = set(hazards(self.engine, columns))
        for text in hazards(self.engine, columns, complete_rows=self.found.identity == "f"):
            if text not in whole:
                yield self._say(Ailment.LARGE_VALUES, text, f"ALTER TABLE {self.sql} REPLICA IDENTITY FULL")


def hidden_columns(dataset: Dataset, shard: Shard, seen: Examination) -> Iterator[DoctorFinding]:
    """Columns that `SELECT *` leaves out, on MySQL, whose connector reads them."""
    for name, table in seen.tables.items() if dataset.engine is Engine.MYSQL else ():
        for column in table.columns:
            if column.hidden:
                text = f"column {column.name} is INVISIBLE: events carry it, and SELECT * does not show it"
                quoted = quote_name(dataset.engine, column.name)
                cure = f"ALTER TABLE {quote_name(dataset.engine, name)} ALTER COLUMN {quoted} SET VISIBLE"
                yield finding(Ailment.HIDDEN, dataset.name, [shard.id], text, cure, table=name)
