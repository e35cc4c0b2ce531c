"""Examines shards on one MariaDB or MySQL server, over one connection."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pymysql

from cdc_platform.canonical.catalog import CatalogTable
from cdc_platform.canonical.chunk_keys import TableKey
from cdc_platform.clients.sources.binlog_demands import wrong_settings
from cdc_platform.clients.sources.binlog_tables import binlog_tables as captured_tables
from cdc_platform.clients.sources.catalog_binlog import binlog_tables
from cdc_platform.clients.sources.replication import channels, prepared_names, prepared_status, replication_status
from cdc_platform.clients.sources.rights import account, allowed, binlog_rights, is_absent
from cdc_platform.clients.sources.source_facts import binlogs, filed_name, log_filters, server_identity
from cdc_platform.clients.sources.table_keys import mysql_table_key
from cdc_platform.model.topology import Dataset, Shard, Table
from cdc_platform.planning.doctor.examination import EACH, Capacity, Examination, Lack, ServerSeen

_SETTINGS = (
    *("binlog_expire_logs_seconds", "max_binlog_size", "max_binlog_total_size", "binlog_space_limit"),
    *("expire_logs_days", "max_connections", "max_allowed_packet", "lower_case_table_names"),
    *("innodb_native_foreign_keys", "read_only", "version"),
)


@dataclass(frozen=True, slots=True)
class BinlogExamination:
    """The questions of one connection."""

    cursor: pymysql.cursors.Cursor
    dataset: Dataset

    def shards(self, shards: Sequence[Shard]) -> Iterator[tuple[Shard, Examination]]:
        """Each shard's examination; all have the same leader. Raises pymysql.Error."""
        server = self._server()
        for shard in shards:
            yield shard, self._shard(server, shard)

    def _server(self) -> ServerSeen:
        cursor, engine = self.cursor, self.dataset.engine
        before = time.time()
        cursor.execute("SELECT UNIX_TIMESTAMP(NOW(6)), @@max_user_connections")
        ((clock, most),) = cursor.fetchall()
        clock_s = float(clock) - (before + time.time()) / 2
        cursor.execute("SHOW GLOBAL VARIABLES WHERE Variable_name IN %s", (_SETTINGS,))
        settings = {str(key): str(value) for key, value in cursor.fetchall()}
        cursor.execute("SHOW GLOBAL STATUS WHERE Variable_name = 'Threads_connected'")
        ((_, threads),) = cursor.fetchall()
        own, bound = self._own_connections(), int(settings["max_connections"])
        capacities = [Capacity(setting="max_connections", used=int(threads), most=bound, ours=own, each=EACH)]
        if int(most):
            name = "max_user_connections"
            capacities.append(Capacity(setting=name, used=own, most=int(most), ours=own, each=EACH))
        may_see_log = allowed(cursor, "SHOW BINARY LOGS")
        wrong = list(wrong_settings(cursor, engine))
        if may_see_log:
            wrong += [
                Lack(
                    what=f"{setting} is {value}: changes of other databases are not logged",
                    cure=f"Remove {setting} from the server's configuration, and start it again",
                )
                for setting, value in log_filters(cursor, engine).items()
            ]
        return ServerSeen(
            identity=server_identity(cursor, engine),
            settings=settings,
            wrong_settings=tuple(wrong),
            capacities=tuple(capacities),
            clock_s=clock_s,
            following=self._follows(),
            account=account(cursor),
            prepared=self._prepared(),
            log=binlogs(cursor, settings) if may_see_log else None,
            logs_cascades=settings.get("innodb_native_foreign_keys") == "OFF",
        )

    def _own_connections(self) -> int:
        """Those of this user, this one left out."""
        self.cursor.execute("SELECT SUBSTRING_INDEX(CURRENT_USER(), '@', 1)")
        ((name,),) = self.cursor.fetchall()
        self.cursor.execute("SHOW PROCESSLIST")
        return sum(str(row[1]) == str(name) for row in self.cursor.fetchall()) - 1

    def _follows(self) -> bool:
        sql = replication_status(self.dataset.engine)
        if not allowed(self.cursor, sql):
            return False
        self.cursor.execute(sql)
        return any(channel.running for channel in channels(self.cursor))

    def _prepared(self) -> tuple[str, ...]:
        """Prepared XA transactions; none on servers that do not tell this user (MySQL: XA_RECOVER_ADMIN)."""
        sql = prepared_status(self.dataset.engine)
        if not allowed(self.cursor, sql):
            return ()
        self.cursor.execute(sql)
        return prepared_names(self.dataset.engine, self.cursor.fetchall())

    def _shard(self, server: ServerSeen, shard: Shard) -> Examination:
        cursor, dataset = self.cursor, self.dataset
        names = [table.name for table in dataset.tables]
        cursor.execute("SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s", (shard.database,))
        there = [name.decode() if isinstance(name, bytes) else str(name) for (name,) in cursor.fetchall()]
        known, alike = captured_tables(cursor, dataset, shard, cascades=False)
        tables = binlog_tables(cursor, shard.database, names)
        return Examination(
            server=server,
            database=filed_name(shard.database, server.settings),
            tables=tables,
            keys={
                table.name: self._key(shard, table, tables[table.name])
                for table in dataset.tables
                if table.name in tables
            },
            rights=tuple(lack for lack in binlog_rights(cursor, dataset, shard) if not is_absent(lack)),
            unfit=tuple(
                Lack(what=why.why, cure=f"{why.cure}. Or take it out of the dataset's tables", table=name)
                for name, table in known.items()
                if (why := table.refusal) is not None
            ),
            twins=alike,
            copies=tuple(sorted(name for name in there if name in _copies(names))),
        )

    def _key(self, shard: Shard, table: Table, found: CatalogTable) -> TableKey:
        """The columns of its key, and which of them have numbers that no driver reads; asked where an index answers."""
        columns = [column.column for name in found.key(table.key) if (column := found.column(name)) is not None]
        leading = {index.columns[0] for index in found.indexes}
        return mysql_table_key(self.cursor, self.dataset.engine, (shard.database, table.name), columns, leading)


def _copies(tables: Sequence[str]) -> set[str]:
    """What gh-ost and pt-online-schema-change call their copies of these tables."""
    return {f"_{table}_{what}" for table in tables for what in ("gho", "ghc", "new")}
