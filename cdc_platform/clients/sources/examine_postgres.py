"""Examines a shard on a Postgres server, over a connection to its database."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import psycopg

from cdc_platform.clients.sources.catalog_postgres import postgres_tables
from cdc_platform.clients.sources.publication import Demand, demand, refusals
from cdc_platform.clients.sources.rights import is_absent, postgres_rights
from cdc_platform.clients.sources.table_keys import postgres_keys
from cdc_platform.connectors.identity import Identity
from cdc_platform.connectors.tables import container
from cdc_platform.model.source_facts import RetainedLog
from cdc_platform.model.topology import Dataset, Shard
from cdc_platform.planning.doctor.examination import (
    EACH,
    Capacity,
    Examination,
    Lack,
    PublicationSeen,
    ServerSeen,
    SlotSeen,
)

# Transactions that have been prepared for longer are not about to end.
_PREPARED_SECONDS = 30

_SERVER = """
SELECT (SELECT system_identifier::text FROM pg_control_system()),
       (SELECT oid::bigint FROM pg_database WHERE datname = current_database()),
       (SELECT json_object_agg(name, setting) FROM pg_settings
         WHERE name IN ('wal_level', 'max_slot_wal_keep_size', 'max_connections', 'superuser_reserved_connections',
                        'reserved_connections', 'max_replication_slots', 'max_wal_senders', 'server_encoding')),
       (SELECT coalesce(sum(numbackends), 0)::bigint FROM pg_stat_database),
       (SELECT count(*) FROM pg_stat_replication),
       (SELECT coalesce(json_agg(json_build_array(slot_name, plugin, database, active,
                                                  wal_status IS NOT DISTINCT FROM 'lost')), '[]')
          FROM pg_replication_slots),
       pg_is_in_recovery(), extract(epoch FROM clock_timestamp())::float8, quote_ident(current_user),
       (SELECT json_build_object('role', r.rolconnlimit, 'database', d.datconnlimit,
                                 'of_role', (SELECT count(*) FROM pg_stat_activity WHERE usename = current_user),
                                 'of_database', (SELECT numbackends FROM pg_stat_database s WHERE s.datid = d.oid))
          FROM pg_roles r, pg_database d WHERE r.rolname = current_user AND d.datname = current_database()),
       (SELECT coalesce(json_agg(gid), '[]') FROM pg_prepared_xacts
         WHERE prepared < clock_timestamp() - make_interval(secs => %(prepared)s)),
       (SELECT coalesce(json_agg(x ORDER BY s.setrole <> 0, s.setdatabase <> 0), '[]')
          FROM pg_db_role_setting s, unnest(s.setconfig) x
         WHERE s.setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = current_user))
           AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))),
       (SELECT json_build_array(s.wal_status, s.safe_wal_size, greatest(0, pg_wal_lsn_diff(
                  CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END,
                  s.restart_lsn))::bigint)
          FROM pg_replication_slots s WHERE s.slot_name = %(slot)s)
"""

# What a publication holds of a table; columns and rows may be kept out since Postgres 15.
_PUBLICATION = """
SELECT p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete,
       (SELECT coalesce(json_agg(json_build_array(t.schemaname, t.tablename)), '[]')
          FROM pg_publication_tables t WHERE t.pubname = p.pubname),
       (SELECT coalesce(json_agg(json_build_array(n.nspname, c.relname, to_jsonb(r) ->> 'prqual' IS NOT NULL,
                                                  coalesce(to_jsonb(r) ->> 'prattrs', '') <> '')), '[]')
          FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE r.prpubid = p.oid)
  FROM pg_publication p WHERE p.pubname = %s
"""


def examine_postgres(cursor: psycopg.Cursor[Any], dataset: Dataset, shard: Shard, own: Identity) -> Examination:
    """The shard's examination. Raises psycopg.Error."""
    before = time.time()
    cursor.execute(_SERVER, {"prepared": _PREPARED_SECONDS, "slot": own.slot})
    (row,) = cursor.fetchall()
    middle = (before + time.time()) / 2
    identity, oid, settings, backends, senders, slots, standby, clock, user, limits, prepared, own_settings, kept = row
    server = ServerSeen(
        identity=identity,
        settings=settings,
        wrong_settings=tuple(_wrong(settings)),
        capacities=_capacities(settings, backends, senders, len(slots), limits),
        clock_s=clock - middle,
        following=standby,
        account=user,
        prepared=tuple(prepared),
        slots={
            name: SlotSeen(plugin=plugin or "physical", database=database or "", active=active, lost=lost)
            for name, plugin, database, active, lost in slots
        },
    )
    wanted = demand(dataset, shard, own.publication or "")
    publication = _publication(cursor, wanted)
    # What a connector makes and alters by itself needs the rights to do so, unless nothing is left to do.
    publishes = wanted.ours and not (publication and (publication.every_table or _holds_all(publication, dataset)))
    places = {table.name: (container(dataset, shard, table), table.name) for table in dataset.tables}
    tables = postgres_tables(cursor, list(places.values()))
    rights = postgres_rights(cursor, dataset, publishes=publishes)
    return Examination(
        server=server,
        database=str(oid),
        tables={name: tables[place] for name, place in places.items() if place in tables},
        keys=postgres_keys(cursor, dataset.tables),
        rights=tuple(lack for lack in rights if not is_absent(lack)),
        unfit=tuple(Lack(what=no.why, cure=no.cure, table=name) for (_, name), no in refusals(cursor, wanted).items()),
        role_settings=dict(setting.partition("=")[::2] for setting in own_settings),
        limits=_database_limit(limits),
        encoding=settings["server_encoding"],
        slot=RetainedLog(bytes=kept[2] or 0, written=0, left=kept[1], state=kept[0] or "lost") if kept else None,
        publication=publication,
        publishes=wanted.ours,
    )


def _wrong(settings: Mapping[str, str]) -> list[Lack]:
    if settings["wal_level"] == "logical":
        return []
    return [
        Lack(
            what=f"wal_level is {settings['wal_level']}: the log has no rows that could be decoded",
            cure="ALTER SYSTEM SET wal_level = logical, and start the server again",
        )
    ]


def _capacities(
    settings: Mapping[str, str], backends: int, senders: int, slots: int, limits: Mapping[str, int]
) -> tuple[Capacity, ...]:
    reserved = int(settings["superuser_reserved_connections"]) + int(settings.get("reserved_connections", 0))
    free = int(settings["max_connections"]) - reserved
    found = [
        Capacity(setting="max_replication_slots", used=slots, most=int(settings["max_replication_slots"])),
        Capacity(setting="max_wal_senders", used=senders, most=int(settings["max_wal_senders"])),
        Capacity(setting="max_connections", used=backends, most=free, ours=limits["of_role"], each=EACH),
    ]
    if limits["role"] >= 0:
        own = limits["of_role"]
        found.append(
            Capacity(setting="the user's CONNECTION LIMIT", used=own, most=limits["role"], ours=own, each=EACH)
        )
    return tuple(found)


def _database_limit(limits: Mapping[str, int]) -> tuple[Capacity, ...]:
    if limits["database"] < 0:
        return ()
    used, most = limits["of_database"], limits["database"]
    return (Capacity(setting="the database's CONNECTION LIMIT", used=used, most=most, each=EACH),)


def _publication(cursor: psycopg.Cursor[Any], wanted: Demand) -> PublicationSeen | None:
    cursor.execute(_PUBLICATION, (wanted.publication,))
    row = cursor.fetchone()
    if row is None:
        return None
    every, *sends, tables, parts = row
    narrow = {
        name: " and ".join(what for has, what in ((rows, "rows (WHERE)"), (columns, "columns (a column list)")) if has)
        for schema, name, rows, columns in parts
        if (schema, name) in wanted.tables and (rows or columns)
    }
    return PublicationSeen(
        every_table=every,
        tables=frozenset(name for schema, name in tables if (schema, name) in wanted.tables),
        narrow=narrow,
        operations=tuple(name for name, sent in zip(("insert", "update", "delete"), sends, strict=True) if not sent),
    )


def _holds_all(publication: PublicationSeen, dataset: Dataset) -> bool:
    return publication.tables >= {table.name for table in dataset.tables}
