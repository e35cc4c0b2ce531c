"""DDL statements behind a committed position: a connector commits them only with the next transaction."""

from __future__ import annotations

from itertools import takewhile

import pytest

from cdc_platform.clients.sources.binlog_events import GroupReader
from cdc_platform.clients.sources.binlog_tail import BinlogTail
from cdc_platform.errors import SourceRejected
from cdc_platform.model.positions import Committed, MariaDbPosition, MySqlPosition
from cdc_platform.model.topology import Engine

Event = tuple[str, int, str, int, int, str]


def events(*kinds: tuple[str, str], begin: int = 4) -> list[Event]:
    """As SHOW BINLOG EVENTS has them, a hundred bytes each."""
    return [
        ("binlog.000001", begin + 100 * at, kind, 1, begin + 100 * (at + 1), info)
        for at, (kind, info) in enumerate(kinds)
    ]


def rowless(*kinds: tuple[str, str], cut: bool = False) -> list[str]:
    """GTIDs of statements without rows, up to the first group that is another."""
    found = GroupReader(4).read(events(*kinds), cut=cut)
    return [group.gtid for group in takewhile(lambda group: group.rowless, found)]


DDL = [("Gtid", "GTID 0-1-8"), ("Query", "use `d`; ALTER TABLE t ADD COLUMN n INT")]
MORE = [("Gtid", "GTID 0-1-9"), ("Query", "TRUNCATE TABLE t")]
ROWS = [("Gtid", "BEGIN GTID 0-1-9"), ("Table_map", "t"), ("Write_rows_v1", "t"), ("Xid", "COMMIT")]
SELECTED = [("Gtid", "GTID 0-1-9"), ("Query", "CREATE TABLE u ..."), ("Table_map", "u"), ("Write_rows_v1", "u")]
FINISHED = [("Gtid", "XA COMMIT X'61',X'',1 GTID 0-1-9"), ("Query", "XA COMMIT X'61',X'',1")]


def test_statements_without_rows_are_found_up_to_the_first_row() -> None:
    assert rowless(*DDL, *MORE) == ["0-1-8", "0-1-9"]
    assert rowless(*DDL, *MORE, cut=True) == ["0-1-8"]
    assert rowless(*DDL, *ROWS) == ["0-1-8"]
    assert rowless(*DDL, *SELECTED) == ["0-1-8"]
    assert rowless(*DDL, *FINISHED) == ["0-1-8"]
    assert rowless(*DDL, ("Gtid", "GTID 0-1-9")) == ["0-1-8"], "what follows may be about to"
    assert rowless(*ROWS) == rowless() == []


@pytest.mark.parametrize("end", ["Rotate", "Stop"])
def test_the_last_statement_of_a_file_is_whole(end: str) -> None:
    assert rowless(*DDL, (end, ""), cut=True) == ["0-1-8"]
    assert rowless(*DDL[:1], (end, ""), cut=True) == []


def test_what_begins_in_a_group_s_middle_tells_nothing() -> None:
    reader = GroupReader(104)
    assert (reader.read(events(*DDL[1:], *MORE), cut=False), reader.lost) == ([], True)


UUID = "1eed3f01-eca0-11f1-a46d-02fc00000001"
TRUNCATED = ("Query", "TRUNCATE bb.t /* xid=29 */")


def mysql(transaction: str, kind: str = "Gtid") -> tuple[str, str]:
    return (kind, f"SET @@SESSION.GTID_NEXT= '{UUID}:{transaction}'")


# What follows a GTID and is no statement without rows, as MySQL 9.7 shows it.
WITH_ROWS = {
    "rows": [("Query", "BEGIN"), ("Table_map", "table_id: 108 (bb.t)"), ("Write_rows", ""), ("Xid", "COMMIT")],
    "rows, compressed": [("Transaction_payload", "")],
    "create, select": [("Query", "BEGIN"), ("Query", "CREATE TABLE `bb`.`u` (`id` int) START TRANSACTION")],
    "prepared": [("Query", "XA START X'61',X'',1"), ("Table_map", ""), ("Write_rows", "")],
    "committed later": [("Query", "XA COMMIT X'61',X'',1")],
    "something new": [("Unheard_of", "")],
}


@pytest.mark.parametrize("follows", WITH_ROWS)
def test_statements_without_rows_of_mysql_are_found_up_to_the_first_row(follows: str) -> None:
    known = [
        ("Previous_gtids", f"{UUID}:1-6"),
        mysql("7"),
        TRUNCATED,
        mysql("tg:1", "Gtid_tagged_log_event"),
        TRUNCATED,
    ]
    assert rowless(*known) == [f"{UUID}:7", f"{UUID}:tg:1"]
    assert rowless(*known, cut=True) == [f"{UUID}:7"]
    assert rowless(*known, mysql("8"), *WITH_ROWS[follows], mysql("9"), TRUNCATED) == [f"{UUID}:7", f"{UUID}:tg:1"]
    assert rowless(("Gtid", "SET @@SESSION.GTID_NEXT= 'ANONYMOUS'"), TRUNCATED) == []


class Server:
    """The binlog files of a server; counts what is asked."""

    def __init__(self, *files: list[tuple[str, str]], refused: bool = False) -> None:
        self.files = {f"binlog.{n:06d}": events(*kinds) for n, kinds in enumerate(files, 1)}
        self.asked: list[tuple[str, int]] = []
        self.refused = refused

    def ask(self, file: str, place: int, at_most: int) -> list[Event]:
        self.asked.append((file, place))
        if self.refused or file not in self.files:
            raise SourceRejected("no such file", where="db", cure="none")
        return [event for event in self.files[file] if event[1] >= place][:at_most]


def rows(transaction: int) -> list[tuple[str, str]]:
    return [mysql(f"{transaction}"), *WITH_ROWS["rows"]]


def ddl(transaction: int) -> list[tuple[str, str]]:
    return [mysql(f"{transaction}"), TRUNCATED]


def beyond(server: Server, committed: str, now: str, *, file: int = 1, place: int = 4, times: int = 1) -> str | None:
    tail = BinlogTail(Engine.MYSQL, server.ask)
    at = Committed(Engine.MYSQL, f"{UUID}:{committed}", file=f"binlog.{file:06d}", place=place)
    found = [tail.beyond(at, lambda: MySqlPosition.parse(f"{UUID}:{now}")) for _ in range(times)]
    return (found[-1] or "").removeprefix(f"{UUID}:")


ROTATED = ("Rotate", "binlog.000002;pos=4")
BEFORE_2 = ("Previous_gtids", f"{UUID}:1-4")


def test_what_follows_the_place_that_was_committed_is_read_in_one_page() -> None:
    server = Server([*rows(1), *rows(2), *ddl(3)])
    assert beyond(server, "1-2", "1-3", place=1004) == "1-3"
    assert server.asked == [("binlog.000001", 1004)]
    # Rows that are not committed: the connector is behind, and nothing more is looked for.
    server = Server([*rows(1), *rows(2), *ddl(3)])
    assert beyond(server, "1", "1-3", place=504) == "1"
    assert server.asked == [("binlog.000001", 504)]


@pytest.mark.parametrize("place", [4, 1104], ids=["a task that began again", "in a group's middle"])
def test_a_place_that_says_little_is_made_up_for_from_the_file_s_begin(place: int) -> None:
    """MySQL's connector is at 4 when it has begun again, and behind a GTID's event when it has read one."""
    server = Server([*rows(1), *rows(2), *ddl(3), *ddl(4)])
    assert beyond(server, "1-2", "1-4", place=place) == "1-4"


def test_statements_of_files_before_and_behind_are_found() -> None:
    server = Server([*rows(1), *rows(2), *ddl(3), *ddl(4), ROTATED], [BEFORE_2, *ddl(5)])
    assert beyond(server, "1-2", "1-5", file=2) == "1-5"
    assert beyond(server, "1-2", "1-5", file=1, place=1004) == "1-5"
    # A file that ended with the server names no other.
    stopped = Server([*rows(1), *rows(2), *ddl(3), *ddl(4), ("Stop", "")], [BEFORE_2, *ddl(5)])
    assert beyond(stopped, "1-2", "1-5", file=1, place=1004) == "1-5"
    # What was purged is not known.
    del server.files["binlog.000001"]
    assert beyond(server, "1-2", "1-5", file=2) == "1-2"


def test_a_long_way_is_gone_in_parts() -> None:
    """20 pages when asked once, and on from there."""
    long = [event for transaction in range(1, 1001) for event in rows(transaction)]
    server = Server([*long, *ddl(1001)])
    assert beyond(server, "1-1000", "1-1001") == "1-1000"
    assert len(server.asked) == 1 + 1 + 20
    assert beyond(server, "1-1000", "1-1001", times=2) == "1-1001"
    wide = [mysql("1"), ("Query", "BEGIN"), *[("Write_rows", "")] * 1000, ("Xid", ""), *ddl(2)]
    assert beyond(Server(wide), "1", "1-2") == "1-2"
    assert beyond(Server(wide), "7", "1-2") == "7"


def test_a_log_that_may_not_be_read_adds_nothing() -> None:
    assert beyond(Server([*rows(1), *ddl(2)], refused=True), "1", "1-2") == "1"
    tail = BinlogTail(Engine.MARIADB, Server().ask)
    assert tail.beyond(Committed(Engine.MARIADB, "0-1-7"), lambda: MariaDbPosition.parse("0-1-8")) == "0-1-7"
    assert tail.beyond(Committed(Engine.MARIADB, None), lambda: MariaDbPosition.parse("0-1-8")) is None


def test_a_set_takes_in_what_need_not_be_next() -> None:
    at = MySqlPosition.parse(f"{UUID}:1-6")
    assert str(at.followed_by([f"{UUID}:7", f"{UUID}:9", f"{UUID}:tg:1"])) == f"{UUID}:1-7:9,{UUID}:tg:1"
    assert str(MySqlPosition.parse("").followed_by([f"{UUID}:7"])) == f"{UUID}:7"
    assert at.followed_by([]) == at


def test_a_position_goes_on_only_without_a_gap() -> None:
    at = MariaDbPosition.parse("0-1-7,3-2-5")
    assert str(at.followed_by(["0-1-8", "3-2-6", "0-2-9"])) == "0-2-9,3-2-6"
    # Another server's file: what stands there does not follow.
    assert str(at.followed_by(["0-1-9"])) == "0-1-7,3-2-5"
    assert str(at.followed_by(["0-1-8", "0-1-11", "3-2-6"])) == "0-1-8,3-2-5"
    assert str(at.followed_by(["9-1-1"])) == "0-1-7,3-2-5"
    assert at.followed_by([]) == at


def test_what_was_committed_says_where_it_stands() -> None:
    found = Committed.parse(Engine.MARIADB, {"file": "binlog.000001", "pos": 179049003, "gtids": "0-1-419091"})
    assert (found.position, found.file, found.place) == ("0-1-419091", "binlog.000001", 179049003)


def test_a_window_s_mark_on_an_offset_is_no_snapshot_under_way() -> None:
    """A task keeps `INCREMENTAL` over restarts, for as long as no window closes."""
    stream = {"file": "binlog.000001", "pos": 4, "gtids": "0-1-8"}
    assert Committed.parse(Engine.MARIADB, {**stream, "snapshot": "INCREMENTAL"}).busy is None
    assert Committed.parse(Engine.MARIADB, {**stream, "snapshot": "INITIAL"}).busy == "initial snapshot"
    under_way = {**stream, "snapshot": "INCREMENTAL", "incremental_snapshot_collections": "[]"}
    assert Committed.parse(Engine.MARIADB, under_way).busy == "incremental snapshot"
