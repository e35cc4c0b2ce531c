"""What is wrong with a shard as a whole, and with shards beside each other."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from cdc_platform.canonical.catalog import CatalogColumn, CatalogTable
from cdc_platform.canonical.hash_sql import quote_name
from cdc_platform.connectors.identity import Identity
from cdc_platform.connectors.tables import container
from cdc_platform.model.naming import some_of
from cdc_platform.model.topology import Dataset, Engine, Shard
from cdc_platform.planning.doctor.examination import Examination
from cdc_platform.planning.doctor.findings import DoctorFinding, finding
from cdc_platform.planning.doctor.kinds import Ailment
from cdc_platform.planning.health.source_hazard_kinds import KINDS, HazardKind

# Settings of a user or database that end what a connector does, or forbid it.
_ENDING = (
    *("statement_timeout", "transaction_timeout", "lock_timeout"),
    *("idle_in_transaction_session_timeout", "idle_session_timeout"),
)

# Of what a slot may keep, so much is used.
_NEARLY_FULL = 0.8


def shard_findings(dataset: Dataset, shard: Shard, own: Identity, seen: Examination) -> Iterator[DoctorFinding]:
    """Of one shard, its tables left out."""
    for right in seen.rights:
        text = f"the user {seen.server.account} lacks {right.what}"
        yield finding(Ailment.MISSING_RIGHT, dataset.name, [shard.id], text, right.cure, table=right.table)
    if dataset.engine is Engine.POSTGRES:
        yield from _publication(dataset, shard, own, seen)
        yield from _slot(dataset, shard, own, seen)
        yield from _sessions(dataset, shard, seen)
        return
    for twin in seen.twins:
        text = f"table {twin} differs from a captured one in case only"
        cure = f"RENAME TABLE {quote_name(dataset.engine, twin)} TO ..., or move it to another database."
        yield finding(HazardKind.CASE_TWIN, dataset.name, [shard.id], text, cure)


def _publication(dataset: Dataset, shard: Shard, own: Identity, seen: Examination) -> Iterator[DoctorFinding]:
    options = {**dataset.connector, **shard.connector}
    name = quote_name(dataset.engine, options.get("publication.name") or own.publication or "")
    there = {
        table.name: f"{quote_name(dataset.engine, container(dataset, shard, table))}."
        + quote_name(dataset.engine, table.name)
        for table in dataset.tables
        if table.name in seen.tables
    }
    found = seen.publication
    if found is None:
        if not seen.publishes:
            text, cure = (
                f"there is no publication {name}",
                f"CREATE PUBLICATION {name} FOR TABLE {', '.join(there.values())}",
            )
            yield finding(Ailment.PUBLICATION, dataset.name, [shard.id], text, cure)
        return
    if found.operations:
        text = f"the publication {name} does not send {', '.join(found.operations)}"
        cure = f"ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate')"
        yield finding(Ailment.PUBLICATION, dataset.name, [shard.id], text, cure)
    for table, what in found.narrow.items():
        text = f"the publication {name} keeps out {what} of it"
        cure = f"ALTER PUBLICATION {name} SET TABLE {', '.join(there.values())}"
        yield finding(Ailment.PUBLICATION, dataset.name, [shard.id], text, cure, table=table)
    for table in there if not seen.publishes and not found.every_table else ():
        if table not in found.tables:
            text, cure = f"the publication {name} lacks it", f"ALTER PUBLICATION {name} ADD TABLE {there[table]}"
            yield finding(Ailment.PUBLICATION, dataset.name, [shard.id], text, cure, table=table)


def _slot(dataset: Dataset, shard: Shard, own: Identity, seen: Examination) -> Iterator[DoctorFinding]:
    slot = seen.server.slots.get(own.slot or "")
    why = None
    if slot is not None and slot.plugin != "pgoutput":
        why = f"is of {slot.plugin}, not of pgoutput"
    elif slot is not None and slot.database != shard.database:
        why = f"is of database {slot.database}"
    elif slot is not None and slot.lost:
        why = "has lost its WAL"
    if why is not None:
        cure = f"SELECT pg_drop_replication_slot('{own.slot}'), once it is known whose it is."
        yield finding(Ailment.SLOT_TAKEN, dataset.name, [shard.id], f"the slot {own.slot} is there, and {why}", cure)
    kept = seen.slot
    if kept is not None and kept.left is not None and kept.bytes > _NEARLY_FULL * (kept.bytes + kept.left):
        text = f"its slot keeps {kept.bytes:,} bytes of WAL and may keep {kept.left:,} more"
        yield finding(HazardKind.LOG_FILLING, dataset.name, [shard.id], text, KINDS[HazardKind.LOG_FILLING].cure)
    unbounded = seen.server.settings.get("max_slot_wal_keep_size") == "-1"
    if kept is None and dataset.source_log.full_bytes is None and unbounded:
        text = "nothing bounds the WAL that its slot will keep; how much disk is free is not known"
        cure = "ALTER SYSTEM SET max_slot_wal_keep_size = '...', or source_log in the dataset."
        yield finding(Ailment.UNBOUNDED_LOG, dataset.name, [shard.id], text, cure)


def _sessions(dataset: Dataset, shard: Shard, seen: Examination) -> Iterator[DoctorFinding]:
    bad = {name: value for name, value in seen.role_settings.items() if name in _ENDING and value.strip("0msin ")}
    if seen.role_settings.get("default_transaction_read_only") in ("on", "true", "yes", "1"):
        bad["default_transaction_read_only"] = "on"
    for name, value in bad.items():
        text = f"sessions of {seen.server.account} begin with {name} = {value}"
        cure = f"ALTER ROLE {seen.server.account} RESET {name}, or ALTER DATABASE ... RESET {name}"
        yield finding(Ailment.SESSION_LIMITS, dataset.name, [shard.id], text, cure)


def shared_databases(dataset: Dataset, seen: Mapping[str, Examination]) -> Iterator[DoctorFinding]:
    """Shards of a dataset, by id, that read one database."""
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    for shard, one in seen.items():
        places[one.server.identity, one.database].append(shard)
    for shards in places.values():
        if len(shards) > 1:
            text = f"shards {some_of(sorted(shards), 4)} read one database"
            cure = "Correct leader or database of all but one of them in the topology."
            yield finding(HazardKind.SHARED_DATABASE, dataset.name, shards, text, cure)


def differences(dataset: Dataset, seen: Mapping[str, Examination]) -> Iterator[DoctorFinding]:
    """Tables that are not defined as in most shards of the dataset; `seen` by the shard's id."""
    for table in dataset.tables:
        shapes: dict[_Shape, list[str]] = defaultdict(list)
        first: dict[_Shape, CatalogTable] = {}
        for shard, one in seen.items():
            if (found := one.tables.get(table.name)) is not None and found.columns:
                shape = _shape(found)
                shapes[shape].append(shard)
                first.setdefault(shape, found)
        if len(shapes) < 2:
            continue
        usual = Counter({shape: len(shards) for shape, shards in shapes.items()}).most_common(1)[0][0]
        for shape, shards in shapes.items():
            if shape != usual:
                texts, cures = _difference(dataset.engine, first[shape], first[usual])
                text = f"it differs from {len(shapes[usual])} other shards: {'; '.join(texts)}"
                yield finding(Ailment.SHARDS_DIFFER, dataset.name, shards, text, "; ".join(cures), table=table.name)


# Columns as (name, type, nullable, collation, generated), and the key.
_Shape = tuple[tuple[tuple[str, str, bool, str, str], ...], tuple[str, ...]]


def _shape(table: CatalogTable) -> _Shape:
    columns = sorted((c.name, c.declared, c.column.nullable, c.collation, str(c.generated)) for c in table.columns)
    return tuple(columns), table.primary_key


def _difference(engine: Engine, here: CatalogTable, there: CatalogTable) -> tuple[Sequence[str], Sequence[str]]:
    """What differs, and the statements that make `here` like `there`."""
    sql = quote_name(engine, here.name)
    if engine is Engine.POSTGRES:
        sql = f"{quote_name(engine, here.place)}.{sql}"
    texts, cures = [], []
    ours, theirs = {c.name: c for c in here.columns}, {c.name: c for c in there.columns}
    for name in ours.keys() - theirs.keys():
        texts.append(f"column {name} is only here")
        cures.append(f"ALTER TABLE {sql} DROP COLUMN {quote_name(engine, name)}")
    for name in theirs.keys() - ours.keys():
        texts.append(f"column {name} is missing")
        cures.append(f"ALTER TABLE {sql} ADD COLUMN {quote_name(engine, name)} {_declaration(theirs[name])}")
    for name in sorted(ours.keys() & theirs.keys()):
        if _of(ours[name]) != _of(theirs[name]):
            texts.append(f"column {name} is {_declaration(ours[name])}, there {_declaration(theirs[name])}")
            change = f"ALTER COLUMN {quote_name(engine, name)} TYPE {theirs[name].declared}"
            if engine.reads_binlog:
                change = f"MODIFY COLUMN {quote_name(engine, name)} {_declaration(theirs[name])}"
            cures.append(f"ALTER TABLE {sql} {change}")
    if here.primary_key != there.primary_key:
        texts.append(f"the primary key is ({', '.join(here.primary_key)}), there ({', '.join(there.primary_key)})")
        key = ", ".join(quote_name(engine, name) for name in there.primary_key)
        cures.append(f"ALTER TABLE {sql} DROP the primary key, ADD PRIMARY KEY ({key})")
    return texts, cures


def _of(column: CatalogColumn) -> tuple[str, bool, str, str]:
    return column.declared, column.column.nullable, column.collation, str(column.generated)


def _declaration(column: CatalogColumn) -> str:
    collation = f" COLLATE {column.collation}" if column.collation else ""
    made = f" GENERATED {str(column.generated).upper()}" if column.generated else ""
    return f"{column.declared}{collation}{made}{'' if column.column.nullable else ' NOT NULL'}"
