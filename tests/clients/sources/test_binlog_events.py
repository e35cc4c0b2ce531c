"""DDL statements behind a committed position: a connector commits them only with the next transaction."""

from __future__ import annotations

from cdc_platform.clients.sources.binlog_events import rowless_groups
from cdc_platform.model.positions import Committed, MariaDbPosition
from cdc_platform.model.topology import Engine

Event = tuple[str, int, str, int, int, str]


def events(*kinds: tuple[str, str]) -> list[Event]:
    return [("binlog.000001", 100 * at, kind, 1, 100 * at + 100, info) for at, (kind, info) in enumerate(kinds)]


DDL = [("Gtid", "GTID 0-1-8"), ("Query", "use `d`; ALTER TABLE t ADD COLUMN n INT")]
MORE = [("Gtid", "GTID 0-1-9"), ("Query", "TRUNCATE TABLE t")]
ROWS = [("Gtid", "BEGIN GTID 0-1-9"), ("Table_map", "t"), ("Write_rows_v1", "t"), ("Xid", "COMMIT")]
SELECTED = [("Gtid", "GTID 0-1-9"), ("Query", "CREATE TABLE u ..."), ("Table_map", "u"), ("Write_rows_v1", "u")]


def test_statements_without_rows_are_found_up_to_the_first_row() -> None:
    assert rowless_groups(events(*DDL, *MORE), cut=False) == [(0, 1, 8), (0, 1, 9)]
    assert rowless_groups(events(*DDL, *MORE), cut=True) == [(0, 1, 8)]
    assert rowless_groups(events(*DDL, *ROWS), cut=False) == [(0, 1, 8)]
    assert rowless_groups(events(*DDL, *SELECTED), cut=False) == [(0, 1, 8)]
    assert rowless_groups(events(*ROWS), cut=False) == []
    assert rowless_groups([], cut=False) == []
    assert rowless_groups(events(("Stop", ""), *DDL), cut=False) == []


def test_a_position_goes_on_only_without_a_gap() -> None:
    at = MariaDbPosition.parse("0-1-7,3-2-5")
    assert str(at.followed_by([(0, 1, 8), (3, 2, 6), (0, 2, 9)])) == "0-2-9,3-2-6"
    # Another server's file: what stands there does not follow.
    assert str(at.followed_by([(0, 1, 9)])) == "0-1-7,3-2-5"
    assert str(at.followed_by([(0, 1, 8), (0, 1, 11), (3, 2, 6)])) == "0-1-8,3-2-5"
    assert str(at.followed_by([(9, 1, 1)])) == "0-1-7,3-2-5"
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
