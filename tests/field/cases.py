"""The field cases: what people reported of change data capture elsewhere, tried here on real servers.

A test shows a case on an engine by the marker `field`: its first argument is the case, the others are the engines.
Where no test does, one line says why this platform cannot have the case there, and the page that says it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from cdc_platform.model.topology import Engine


class Kind(StrEnum):
    """What goes wrong in a case. At least one test of each kind is not slow, so that `.ci/run` runs it."""

    APPLICATION = "the application is hurt"
    FALSE_PROOF = "a proof is false"
    UNTOLD = "a loss is not told"
    STRANGER = "a stranger stops a shard"
    BOOTSTRAP = "rows do not arrive"
    LEFTOVERS = "rows stay in the topic"
    EVERYDAY = "names and logins"
    OPERATORS = "what runs beside us"


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Why an engine cannot have a case, and the page of docs/ and the words that say it."""

    why: str
    page: str
    words: str


@dataclass(frozen=True, slots=True)
class Case:
    """One field case. `engines` are those it is tried on; the other ones stand in `elsewhere`."""

    id: str
    kind: Kind
    what: str
    elsewhere: Mapping[Engine, Elsewhere] = field(default_factory=dict)

    @property
    def engines(self) -> frozenset[Engine]:
        return frozenset(Engine) - self.elsewhere.keys()


MARIADB, MYSQL, POSTGRES = Engine.MARIADB, Engine.MYSQL, Engine.POSTGRES
BINLOGS = (MARIADB, MYSQL)
ALL = (MARIADB, MYSQL, POSTGRES)


def _not(on: tuple[Engine, ...], why: str, page: str, words: str) -> dict[Engine, Elsewhere]:
    return dict.fromkeys(on, Elsewhere(why, page, words))


_WHOLE_ROWS = ("a binlog holds whole rows, whatever a table's key is", "connectors.md", "`binlog_row_image=FULL`")
_MARIADB_ONLY = "the syntax is MariaDB's alone"
_NO_DDL = _not(
    (POSTGRES,), "its log holds no statements: pgoutput sends a table's columns with its rows", "hazards.md",
    "| MariaDB, MySQL | Statements that the connector cannot parse",
)  # fmt: skip

CASES: tuple[Case, ...] = (
    Case("REPL-ID", Kind.APPLICATION, "our publication makes UPDATE and DELETE fail", _not(BINLOGS, *_WHOLE_ROWS)),
    Case("ENUM-KEY", Kind.BOOTSTRAP, "chunks skip rows whose key holds an ENUM"),
    Case(
        "PG-SWAP", Kind.UNTOLD, "a table is swapped by rename and is not published",
        _not(BINLOGS, "a binlog goes by names, there is no publication: OSC-SWAP", "hazards.md",
             "| `unpublished-table` | Postgres |"),
    ),
    Case(
        "PG-PART", Kind.UNTOLD, "a partitioned table is read and not streamed",
        _not(BINLOGS, "their logs name the table, not its partitions: EXTRA-MANY", "connectors.md",
             "### Which Postgres tables are captured"),
    ),
    Case("FK-CASCADE", Kind.UNTOLD, "cascaded changes are in no binlog"),
    Case("DDL-PARSE", Kind.STRANGER, "one statement stops every connector of a server", _NO_DDL),
    Case("PK-CHANGE", Kind.FALSE_PROOF, "the primary key changes in one shard"),
    Case("SHARD-GONE", Kind.LEFTOVERS, "a shard is split or removed, its rows stay"),
    Case("EXTRA-MANY", Kind.LEFTOVERS, "partitions or tables go without row events"),
    Case("LIKE-OTHER", Kind.STRANGER, "a table is made like one of another database", _NO_DDL),
    Case("KEY-TYPES", Kind.BOOTSTRAP, "chunks by keys of every type"),
    Case(
        "OSC-SWAP", Kind.UNTOLD, "gh-ost and pt-online-schema-change",
        _not((POSTGRES,), "the tools are not for Postgres; a swap by rename is PG-SWAP", "hazards.md",
             "| `unpublished-table` | Postgres |"),
    ),
    Case(
        "STMT-DML", Kind.UNTOLD, "a session logs statements",
        _not((POSTGRES,), "logical decoding knows no statements", "hazards.md",
             "| MariaDB, MySQL | A session sets `binlog_format=STATEMENT`"),
    ),
    Case(
        "BINLOG-ZIP", Kind.UNTOLD, "compressed row events are passed over",
        _not((POSTGRES,), "its log has no such events", "hazards.md", "| `log-settings` | MariaDB, MySQL |"),
    ),
    Case(
        "HASH-COL", Kind.STRANGER, "a UNIQUE key over long text makes a hidden column",
        _not((MYSQL,), "MySQL refuses a UNIQUE key over all of a long text", "hazards.md", "| `unreadable-table` |")
        | _not((POSTGRES,), "an index makes no column", "hazards.md", "| `unreadable-table` |"),
    ),
    Case("NOLOG-DDL", Kind.UNTOLD, "a definition changes without the log", _NO_DDL),
    Case("KEY-SPELL", Kind.FALSE_PROOF, "snapshot and stream spell a key differently"),
    Case("MDL-HELD", Kind.APPLICATION, "a chunk that fails holds a lock on its table"),
    Case("ZONE", Kind.FALSE_PROOF, "the server, or its clients, are not in UTC"),
    Case("KEY-NOT-ID", Kind.APPLICATION, "`key` is not the replica identity", _not(BINLOGS, *_WHOLE_ROWS)),
    Case("PART-GROW", Kind.LEFTOVERS, "partitions are added to a compacted topic"),
    Case(
        "ARRAY-2D", Kind.FALSE_PROOF, "arrays of two dimensions, with bounds of their own",
        _not(BINLOGS, "they have no arrays", "verification.md", "| array of an enum (Postgres) |"),
    ),
    Case("PG-GUC", Kind.FALSE_PROOF, "settings of server, database or role change what is written"),
    Case(
        "SLOTS-FULL", Kind.OPERATORS, "more shards than slots",
        _not(BINLOGS, "they have no slots, and no bound on the readers of a binlog", "operations.md", "no-free-slot"),
    ),
    Case(
        "PACKET-NULL", Kind.FALSE_PROOF, "a value that the server cannot send whole is NULL",
        _not((POSTGRES,), "it gives an error, never NULL", "verification.md",
             "a row of MariaDB or MySQL is longer in canonical form than `max_allowed_packet`"),
    ),
    Case(
        "XA-ROLLBACK", Kind.FALSE_PROOF, "rows are logged when they are prepared",
        _not((POSTGRES,), "pgoutput sends a prepared transaction once it is committed", "verification.md",
             "log an XA transaction when it is prepared"),
    ),
    Case(
        "VERSIONED", Kind.STRANGER, "system-versioned tables",
        _not((MYSQL, POSTGRES), _MARIADB_ONLY, "hazards.md", "system versioning"),
    ),
    Case(
        "COL-ZIP", Kind.STRANGER, "COMPRESSED columns",
        _not((MYSQL, POSTGRES), _MARIADB_ONLY, "operations.md", "A COMPRESSED column of"),
    ),
    Case("NAMES", Kind.EVERYDAY, "hyphens, digits first, capitals, spaces, other scripts"),
    Case("AUTH", Kind.EVERYDAY, "how users log in"),
    Case(
        "DOMAINS", Kind.FALSE_PROOF, "several GTID domains, or tags, in one binlog",
        _not((POSTGRES,), "it has no GTIDs", "verification.md", "two GTID domains"),
    ),
    Case("STRIMZI", Kind.OPERATORS, "somebody else deletes our connectors"),
    Case("CASE-TWIN", Kind.STRANGER, "a table whose name differs in case only"),
    Case("DG-LOGS", Kind.OPERATORS, "Dagster with managed Python loggers on SQLite"),
)  # fmt: skip

# Neither shown nor excused yet. It may only get shorter.
OPEN: frozenset[tuple[str, Engine]] = frozenset(
    (case, engine)
    for case, engines in {
        "AUTH": ALL,
        # The connector of MySQL 3.6.1 sleeps for seconds in a transaction that it has read a chunk in: DDL of the
        # application waited for more than 10 s once.
        "MDL-HELD": (MYSQL,),
    }.items()
    for engine in engines
)
