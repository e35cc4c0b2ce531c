"""How full a source's log is, and when that is too much."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from cdc_platform.errors import TopologyError
from cdc_platform.model.positions import Committed
from cdc_platform.model.source_facts import LogFile, RetainedLog
from cdc_platform.model.source_log import SourceLog, WhenFull
from cdc_platform.model.topology import Engine
from cdc_platform.planning.health.log_guard import LogSeen, binlog_state, slot_state

NOW = datetime(2030, 1, 1, tzinfo=UTC)
GIB, HOUR = 1 << 30, 3600.0
EARLIER = NOW - timedelta(minutes=5)


def slot(size: int, left: int | None = None, state: str = "reserved") -> RetainedLog:
    return RetainedLog(bytes=size, written=0, left=left, state=state)


def test_a_slot_that_keeps_little_of_what_it_may_is_no_hazard() -> None:
    assert slot_state(slot(GIB, 9 * GIB), SourceLog(), None, NOW).hazard == ""
    assert slot_state(slot(GIB), SourceLog(), LogSeen(EARLIER, GIB, 0), NOW).seconds_left is None


def test_a_slot_is_told_by_its_share_and_by_the_time_that_is_left() -> None:
    assert "6.0 GiB of WAL and is full at 10.0 GiB" in slot_state(slot(6 * GIB, 4 * GIB), SourceLog(), None, NOW).hazard
    # 1 GiB in five minutes: the other 8 last 40 minutes.
    filling = slot_state(slot(2 * GIB, 8 * GIB), SourceLog(), LogSeen(EARLIER, GIB, 0), NOW)
    assert filling.seconds_left == pytest.approx(2400) and "in 40 min" in filling.hazard
    assert slot_state(slot(2 * GIB, 8 * GIB), SourceLog(alert_seconds=60), LogSeen(EARLIER, GIB, 0), NOW).hazard == ""


def test_a_slot_that_a_transaction_fills_says_that_its_connector_is_not_why() -> None:
    for unread, told in ((6 * GIB, False), (GIB, False), (GIB // 4, True), (None, False)):
        found = slot_state(replace(slot(6 * GIB, 4 * GIB), unread=unread), SourceLog(), None, NOW)
        assert ("an open or prepared transaction" in found.hazard) is told
    assert slot_state(replace(slot(GIB, 9 * GIB), unread=0), SourceLog(), None, NOW).hazard == ""


def test_without_a_bound_nothing_is_claimed_of_the_disk() -> None:
    state = slot_state(slot(20 * GIB), SourceLog(), LogSeen(EARLIER, GIB, 0), NOW)
    assert state.full is None and state.seconds_left is None and "not known" in state.hazard
    assert "lost" in slot_state(slot(0, state="lost"), SourceLog(), None, NOW).lost
    assert "the next checkpoint" in slot_state(slot(9, -1, state="unreserved"), SourceLog(), None, NOW).hazard


def test_a_slot_is_given_up_only_where_the_topology_says_so() -> None:
    given = SourceLog(full_bytes=10 * GIB, when_full=WhenFull.GIVE_UP_SLOT)
    assert slot_state(slot(9 * GIB), given, None, NOW).give_up
    assert not slot_state(slot(8 * GIB), given, None, NOW).give_up
    assert not slot_state(slot(11 * GIB), replace(given, when_full=WhenFull.ALERT), None, NOW).give_up
    with pytest.raises(TopologyError, match="full_bytes"):
        SourceLog(when_full=WhenFull.GIVE_UP_SLOT)


def binlogs(**more: float | int | None) -> RetainedLog:
    return replace(RetainedLog(bytes=GIB, written=10 * GIB, seconds=24 * HOUR), **more)  # type: ignore[arg-type]


def test_binlogs_are_told_before_what_the_connector_needs_is_purged() -> None:
    assert binlog_state(binlogs(), SourceLog(), None, 60.0, NOW).hazard == ""
    late = binlog_state(binlogs(), SourceLog(), None, 19 * HOUR, NOW)
    assert late.seconds_left == 5 * HOUR and "19.0 h behind" in late.hazard and "in 5.0 h" in late.hazard
    assert binlog_state(binlogs(seconds=None), SourceLog(), None, 19 * HOUR, NOW).hazard == ""
    assert binlog_state(binlogs(), SourceLog(), None, None, NOW).seconds_left is None
    # Retention shorter than the time of the alert is no reason for one.
    assert binlog_state(binlogs(seconds=HOUR), SourceLog(), None, 5.0, NOW).hazard == ""


def test_binlogs_that_are_bounded_in_size_last_as_long_as_their_rate_lets_them() -> None:
    # 1 GiB in five minutes: 6 GiB last half an hour.
    state = binlog_state(binlogs(left=6 * GIB), SourceLog(), LogSeen(EARLIER, 0, 9 * GIB), 1200.0, NOW)
    assert state.seconds_left == pytest.approx(600) and "keeps binlogs for 30 min" in state.hazard
    # The numbers of binlogs began anew.
    assert binlog_state(binlogs(left=6 * GIB), SourceLog(), LogSeen(EARLIER, 0, 99 * GIB), 1200.0, NOW).hazard == ""


UUID = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
KEPT = {
    Engine.MARIADB: ("0-1-100", "0-1-200", ["0-1-99", "0-1-150", "0-1-201"]),
    Engine.MYSQL: (f"{UUID}:1-100", f"{UUID}:1-200", [f"{UUID}:1-99", f"{UUID}:1-150", f"{UUID}:1-201"]),
}


@pytest.mark.parametrize("engine", KEPT)
def test_the_oldest_binlogs_that_are_kept_are_held_against_the_connectors_place(engine: Engine) -> None:
    first, second, places = KEPT[engine]
    kept = replace(binlogs(), begins=(LogFile("bin.000007", first), LogFile("bin.000008", second)))

    def state(position: str | None = None, *, file: str | None = None, busy: str | None = None) -> tuple[str, str]:
        found = binlog_state(kept, SourceLog(), None, 300.0, NOW, Committed(engine, position, busy, file))
        return found.hazard, found.lost

    lost, next_, fine = (state(place) for place in places)
    assert "purged" in lost[1] and "bin.000007" in lost[1]
    assert "still needs bin.000007" in next_[0] and not next_[1] and fine == ("", "")
    # Without GTIDs it goes by the names of the files, also past the sixth digit.
    assert state(file="bin.000006")[1] and state(file="bin.000007") == next_ and state(file="bin.1000000") == fine
    # A snapshot holds no place in the log, and a place that is not known is not judged.
    assert state(places[0], busy="initial snapshot") == fine == state()
    assert binlog_state(kept, SourceLog(), None, 300.0, NOW).lost == ""
