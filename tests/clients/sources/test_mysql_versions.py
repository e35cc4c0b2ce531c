"""Every word of ours that some MySQL does not know, for the releases in use; a fake answers as those not at hand.

MySQL's manuals: "What Is New" and "Features removed" of 8.0, 8.4 and 9.x.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql
import pytest

from cdc_platform.clients.sources import binlog_demands, leader_servers, logs, source_facts
from cdc_platform.local.mysql import connect
from cdc_platform.local.mysql_program import OLDEST
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Address, Credentials, Dataset, Engine, Shard, Table

Version = tuple[int, int, int]
PACKAGE = Path(source_facts.__file__).parents[2]
UUID = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
# What is not MySQL's.
_MARIADB = {
    "gtid_binlog_pos",
    "log_bin_compress",
    "log_slave_updates",
    "expire_logs_days",
    "datadir",
    "hostname",
    "port",
}


@dataclass(frozen=True, slots=True)
class Word:
    """Since which release a word is known, from which on no more, and what we say there instead."""

    since: Version
    removed: Version | None = None
    instead: str = ""

    def known(self, version: Version) -> bool:
        return self.since <= version and (self.removed is None or version < self.removed)


EVER = (5, 7, 0)
WORDS = {
    "SHOW BINARY LOG STATUS": Word((8, 2, 0), instead="SHOW MASTER STATUS"),
    "SHOW MASTER STATUS": Word(EVER, (8, 4, 0), instead="SHOW BINARY LOG STATUS"),
    "SHOW REPLICA STATUS": Word((8, 0, 22)),
    "SHOW BINARY LOGS": Word(EVER),
    "SHOW BINLOG EVENTS": Word(EVER),
    "SHOW CREATE TABLE": Word(EVER),
    "SHOW GLOBAL STATUS": Word(EVER),
    "SHOW GLOBAL VARIABLES": Word(EVER),
    "SHOW GRANTS": Word(EVER),
    "SHOW GRANTS FOR CURRENT": Word((8, 0, 0)),
    "binlog_expire_logs_seconds": Word((8, 0, 1)),
    "binlog_format": Word(EVER),
    "binlog_row_image": Word(EVER),
    "binlog_row_value_options": Word((8, 0, 3)),
    "gtid_executed": Word(EVER),
    "gtid_mode": Word(EVER),
    "gtid_purged": Word(EVER),
    "log_bin": Word(EVER),
    "log_replica_updates": Word((8, 0, 26)),
    "max_allowed_packet": Word(EVER),
    "max_execution_time": Word(EVER),
    "max_user_connections": Word(EVER),
    "read_only": Word(EVER),
    "server_id": Word(EVER),
    "server_uuid": Word(EVER),
    "transaction_isolation": Word((5, 7, 20)),
    "version": Word(EVER),
    "GTID_SUBSET": Word(EVER),
    "GTID_SUBTRACT": Word(EVER),
    "JSON_QUOTE": Word(EVER),
    "SHA2": Word(EVER),
}
_FOUND = re.compile("|".join(sorted(map(re.escape, WORDS), key=len, reverse=True)))
RELEASES: list[Version] = [(8, 0, 26), (8, 0, 43), (8, 4, 6), (9, 0, 1), (9, 7, 4)]


def ours() -> set[str]:
    """The statements and variables in what we ask MySQL."""
    found: set[str] = set()
    for folder in ("clients/sources", "connectors/engines"):
        for path in (PACKAGE / folder).glob("*.py"):
            text = path.read_text()
            found |= {name.lower() for name in re.findall(r"@@(?:global\.|GLOBAL\.)?([a-z_]+)", text)}
            found |= set(
                re.findall(
                    r"\bSHOW (?:BINARY|BINLOG|MASTER|REPLICA|CREATE|GLOBAL|GRANTS|SLAVE)\b[A-Z ]*(?<=[A-Z])", text
                )
            )
    shown = {re.sub(r" (WHERE|IN)\b.*", "", word) for word in found}
    return {word for word in shown if word not in _MARIADB and word != "global"}


def test_each_statement_and_variable_of_ours_stands_in_the_table() -> None:
    assert ours() - WORDS.keys() == set()


@pytest.mark.parametrize("version", RELEASES, ids=str)
def test_each_word_is_known_to_each_release_or_another_is(version: Version) -> None:
    for name, word in WORDS.items():
        assert word.known(version) or WORDS[word.instead].known(version), name
    assert RELEASES[0] == OLDEST, "what is older lacks a word that has no other"


class Server:
    """A cursor of a MySQL of that release, with the settings that we ask for; words that it lacks are errors."""

    description = (("Replica_IO_Running",), ("Replica_SQL_Running",), ("Seconds_Behind_Source",))

    def __init__(self, version: Version) -> None:
        self._version = version
        self._values = {
            "log_bin": "1", "binlog_format": "ROW", "binlog_row_image": "FULL", "gtid_mode": "ON", "server_id": "7",
            "binlog_row_value_options": "", "binlog_expire_logs_seconds": "2592000", "read_only": "0",
            "server_uuid": "u", "version": ".".join(map(str, version)), "gtid_executed": f"{UUID}:1-9",
        }  # fmt: skip

    def execute(self, statement: str, params: object = ()) -> None:
        for name in _FOUND.findall(statement):
            if not WORDS[name].known(self._version):
                if name.startswith("SHOW"):
                    raise pymysql.err.ProgrammingError(1064, f"You have an error in your SQL syntax near '{name}'")
                raise pymysql.err.OperationalError(1193, f"Unknown system variable '{name}'")
        self._rows = self._answer(statement)

    def _answer(self, statement: str) -> list[tuple[Any, ...]]:
        if statement.startswith("SHOW BINARY LOGS"):
            return [("binlog.000001", 100)]
        if statement.startswith(("SHOW MASTER STATUS", "SHOW BINARY LOG STATUS")):
            return [("binlog.000001", 100, "", "", f"{UUID}:1-9")]
        if statement.startswith("SHOW GLOBAL VARIABLES"):
            return [("binlog_expire_logs_seconds", "2592000"), ("max_binlog_size", "1073741824")]
        if "GTID_SUB" in statement:
            return [(1, "")]
        names = re.findall(r"@@(?:global\.)?([a-z_]+)", statement)
        return [tuple(self._values[name] for name in names)] if names else []

    def fetchone(self) -> tuple[Any, ...] | None:
        return self._rows[0] if self._rows else None

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self._rows


_DATASET = Dataset(
    name="d", engine=Engine.MYSQL, tables=(Table(name="t"),), clusters=("c",),
    credentials=Credentials(user="${env:U}", password="${env:P}"),
)  # fmt: skip
_SHARD = Shard(dataset="d", id="0", leader=Address("db-1", 3306), database="d")
QUESTIONS: dict[str, tuple[Callable[[Any], object], object]] = {
    "is it fit": (lambda cursor: binlog_demands.check(cursor, _DATASET, _SHARD), None),
    "its settings": (lambda cursor: source_facts._log_settings(cursor, Engine.MYSQL), {}),
    "its position": (
        lambda c: leader_servers._mysql_view(c, _SHARD.leader, Engine.MYSQL, f"{UUID}:1-5").position,
        f"{UUID}:1-9",
    ),
    "where to begin": (
        lambda cursor: logs._mysql_offset(cursor, f"{UUID}:1-5", "d.0"),
        {"file": "binlog.000001", "pos": 4, "gtids": f"{UUID}:1-5"},
    ),
}


@pytest.mark.parametrize("version", RELEASES, ids=str)
@pytest.mark.parametrize("question", QUESTIONS)
def test_each_release_answers_what_it_is_asked(version: Version, question: str) -> None:
    ask, expected = QUESTIONS[question]
    assert ask(Server(version)) == expected


@pytest.mark.stack
@pytest.mark.mysql
def test_the_table_is_right_of_the_server_at_hand(stack: Stack) -> None:
    server, login = stack.primary(Engine.MYSQL), stack.admin(Engine.MYSQL)
    with connect(server.port, login) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT VERSION() AS version")
        version: Version = tuple(map(int, re.findall(r"\d+", cursor.fetchone()["version"])[:3]))  # type: ignore[assignment]
        for name, word in WORDS.items():
            if name in (
                "SHOW BINLOG EVENTS",
                "SHOW CREATE TABLE",
                "SHOW GRANTS FOR CURRENT",
                "GTID_SUBSET",
                "GTID_SUBTRACT",
                "JSON_QUOTE",
                "SHA2",
            ):
                continue
            try:
                cursor.execute(name if name.startswith("SHOW") else f"SELECT @@{name}")
                known = True
            except pymysql.Error as error:
                assert error.args[0] in (1064, 1193), error
                known = False
            assert known is word.known(version), (name, version)
