"""May tasks go on there? The judgement by itself: laws, and every refusal with its words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_platform.failover.preflight import PreflightItem, PromotionCase, preflight
from cdc_platform.failover.promotion import Obstacle, ObstacleKind, has_fix, judge, saved_position, split_brain
from cdc_platform.model.servers import ServerView, SlotView
from cdc_platform.model.topology import Address, Engine

MARIADB = ServerView(
    address=Address("db-2", 3306),
    engine=Engine.MARIADB,
    identity="two",
    writable=True,
    following=False,
    position="0-1-60",
    server_id=1,
    settings={
        "log_bin": "1",
        "binlog_format": "ROW",
        "binlog_row_image": "FULL",
        "log_bin_compress": "0",
        "binlog_expire_logs_seconds": "0",
    },
)
POSTGRES = ServerView(
    address=Address("pg-2", 5432),
    engine=Engine.POSTGRES,
    identity="two",
    writable=True,
    following=False,
    position="2000",
    settings={"wal_level": "logical", "max_slot_wal_keep_size": "-1"},
    slots={"s": SlotView(flushed=900)},
)
OLD = replace(MARIADB, address=Address("db-1", 3306), identity="one")


def kind(found: Obstacle | None) -> ObstacleKind | None:
    return found.kind if found else None


@pytest.mark.parametrize(
    ("version", "fixed"),
    [
        ("3.5.0.Final", False),
        ("3.6.0.Alpha1", False),
        ("3.6.0.Beta1", False),
        ("3.6.0.Beta2", True),
        ("3.6.0.CR1", True),
        ("3.6.0.Final", True),
        ("3.10.1.Final", True),
        ("4.0.0.Alpha1", True),
        (None, False),
        ("strange", False),
    ],
)
def test_which_release_follows_a_changed_server_id(version: str | None, fixed: bool) -> None:
    assert has_fix(version) is fixed


@pytest.mark.parametrize(
    ("saved", "position", "server_id", "version", "expected"),
    [
        ("0-1-50", "0-1-60", 1, "3.5.0.Final", None),
        ("0-1-50", "0-1-50", 1, "3.5.0.Final", None),
        ("0-1-61", "0-1-60", 1, "3.5.0.Final", ObstacleKind.DIVERGED),
        ("0-1-61", "0-1-60", 2, "3.6.0.Final", ObstacleKind.DIVERGED),
        ("1-1-1", "0-1-60", 1, "3.5.0.Final", ObstacleKind.DIVERGED),
        ("0-1-50", "", 1, "3.5.0.Final", ObstacleKind.DIVERGED),
        # Nothing was written under the new id yet: the task would start, and die at its next restart.
        ("0-1-50", "0-1-60", 2, "3.5.0.Final", ObstacleKind.SERVER_ID),
        ("0-1-50", "0-2-60", 2, "3.5.0.Final", ObstacleKind.SERVER_ID),
        ("0-1-50", "0-2-60", 1, "3.5.0.Final", ObstacleKind.SERVER_ID),
        ("0-1-50", "0-2-60", 2, None, ObstacleKind.SERVER_ID),
        ("0-1-50,0-2-55", "0-2-60", 2, "3.5.0.Final", ObstacleKind.SERVER_ID),
        ("0-1-50", "0-2-60", 2, "3.6.0.Final", None),
        ("0-1-50,0-2-55", "0-2-60", 2, "3.6.0.Final", None),
        (None, "0-2-60", 2, "3.5.0.Final", None),
        ("0-1-50,7-1-3", "0-1-60,7-1-3", 1, "3.5.0.Final", None),
    ],
)
def test_mariadb(
    saved: str | None, position: str, server_id: int, version: str | None, expected: ObstacleKind | None
) -> None:
    view = replace(MARIADB, position=position, server_id=server_id)
    assert kind(judge(view, saved, connector=version)) == expected


def test_who_is_behind_and_still_follows_is_waited_for_who_went_its_own_way_is_not() -> None:
    late = replace(MARIADB, position="0-1-49")
    assert kind(judge(late, "0-1-50")) is ObstacleKind.DIVERGED
    assert kind(judge(replace(late, following=True), "0-1-50")) is ObstacleKind.BEHIND
    assert kind(judge(replace(late, writable=False), "0-1-50")) is ObstacleKind.BEHIND


def test_the_promotion_that_is_left_is_said_in_its_order() -> None:
    found = judge(replace(MARIADB, position="0-2-60", server_id=2), "0-1-50", connector="3.5.0.Final")
    assert found is not None
    fence, number, take, write = (
        found.cure.index(words)
        for words in ("fence the old primary", "another server_id", "SET GLOBAL server_id = 1", "write one row")
    )
    assert fence < number < take < write
    assert "db-2:3306" in found.cure and "0-1-50" in found.text


sequences = st.integers(1, 10**6)
domains = st.dictionaries(st.integers(0, 3), st.tuples(st.integers(1, 4), sequences), min_size=1)


@given(saved=domains, there=domains, fixed=st.booleans())
def test_whoever_lacks_a_saved_transaction_is_never_fit(
    saved: dict[int, tuple[int, int]], there: dict[int, tuple[int, int]], fixed: bool
) -> None:
    def text(gtids: dict[int, tuple[int, int]]) -> str:
        return ",".join(f"{d}-{s}-{n}" for d, (s, n) in gtids.items())

    server = next(iter(saved.values()))[0]
    view = replace(MARIADB, position=text(there), server_id=server)
    found = judge(view, text(saved), connector="3.6.0.Final" if fixed else "3.5.0.Final")
    lacks = any(d not in there or there[d][1] < n for d, (_, n) in saved.items())
    assert (kind(found) is ObstacleKind.DIVERGED) == lacks
    if not lacks and not fixed:
        same = all(there[d][0] == s == server for d, (s, _) in saved.items())
        assert (found is None) == same


@pytest.mark.parametrize(
    ("changes", "saved", "expected"),
    [
        ({}, "1000", None),
        ({}, "2000", None),
        ({}, "2001", ObstacleKind.DIVERGED),
        ({"following": True, "writable": False}, "1000", ObstacleKind.NOT_PROMOTED),
        ({"slots": {}}, "1000", ObstacleKind.NO_SLOT),
        ({"slots": {"s": SlotView(flushed=900, temporary=True)}}, "1000", ObstacleKind.NO_SLOT),
        ({"slots": {"s": SlotView(flushed=900, status="lost")}}, "1000", ObstacleKind.NO_SLOT),
        ({"slots": {"s": SlotView(flushed=1001)}}, "1000", ObstacleKind.NO_SLOT),
        ({"slots": {"s": SlotView(flushed=1000)}}, "1000", None),
        ({"slots": {}}, None, None),
    ],
)
def test_postgres(changes: dict[str, object], saved: str | None, expected: ObstacleKind | None) -> None:
    assert kind(judge(replace(POSTGRES, **changes), saved, slot="s")) == expected  # type: ignore[arg-type]


def test_mysql_asks_the_server_itself() -> None:
    view = replace(MARIADB, engine=Engine.MYSQL, position="u:1-9", settings={"saved_is_contained": "0"})
    assert kind(judge(view, "u:1-10")) is ObstacleKind.DIVERGED
    assert kind(judge(replace(view, writable=False), "u:1-10")) is ObstacleKind.BEHIND
    assert judge(replace(view, settings={"saved_is_contained": "1"}), "u:1-9") is None


def test_mysql_servers_must_hold_what_follows_and_write_whole_rows() -> None:
    settings = dict(MARIADB.settings) | {"gtid_mode": "ON", "saved_is_contained": "1", "purged_behind_saved": ""}
    fit = replace(MARIADB, engine=Engine.MYSQL, position="u:1-9", settings=settings)

    def items(**changed: str) -> dict[str, PreflightItem]:
        view = replace(fit, settings=settings | changed)
        return {item.name: item for item in preflight(PromotionCase(new=view, saved="u:1-5"))}

    assert all(item.ok for item in items().values())
    purged = items(purged_behind_saved="u:6-7")["log kept"]
    assert (purged.ok, purged.text, purged.cure) == (
        False,
        "it purged transactions that follow the saved position u:1-5: u:6-7.",
        "Bootstrap the shard.",
    )
    lost = replace(fit, settings=settings | {"purged_behind_saved": "u:6-7"})
    assert kind(judge(lost, "u:1-5")) is ObstacleKind.LOG_PURGED, "the agent holds the task back, too"
    assert not items(binlog_row_value_options="PARTIAL_JSON")["row values"].ok
    assert not items(gtid_mode="OFF_PERMISSIVE")["gtid mode"].ok


def test_saved_positions_are_the_furthest_of_what_connect_committed() -> None:
    def offsets(**offset: object) -> list[dict[str, object]]:
        return [{"partition": {"server": "a"}, "offset": offset}]

    assert saved_position(Engine.MARIADB, offsets(file="b.1", pos=4, gtids="0-1-5")) == "0-1-5"
    assert saved_position(Engine.MARIADB, offsets(file="b.1", pos=4)) is None
    assert saved_position(Engine.POSTGRES, offsets(lsn=30, lsn_proc=20, lsn_commit=10)) == "30"
    assert saved_position(Engine.POSTGRES, []) is None


def failing(items: tuple[PreflightItem, ...]) -> list[str]:
    return [item.name for item in items if not item.ok]


def test_a_fit_server_passes_every_item() -> None:
    case = PromotionCase(new=MARIADB, old="refused", saved="0-1-50", connector="3.5.0.Final")
    assert failing(preflight(case)) == []
    assert failing(preflight(PromotionCase(new=POSTGRES, saved="1000", slot="s"))) == []
    assert "is not known" in next(str(item) for item in preflight(case) if item.name == "old leader")


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (PromotionCase(new="it does not answer"), ["reachable"]),
        (PromotionCase(new=replace(MARIADB, writable=False)), ["promoted"]),
        (PromotionCase(new=replace(MARIADB, following=True)), ["promoted"]),
        (PromotionCase(new=MARIADB, old=OLD), ["old leader"]),
        (PromotionCase(new=MARIADB, old=replace(OLD, writable=False)), []),
        (PromotionCase(new=MARIADB, old=replace(OLD, identity="two")), []),
        (PromotionCase(new=MARIADB, saved="0-1-99"), ["caught up"]),
        (PromotionCase(new=replace(MARIADB, server_id=2), saved="0-1-50"), ["gtid"]),
        (PromotionCase(new=MARIADB, saved_problem="no worker answers"), ["caught up"]),
        (PromotionCase(new=replace(MARIADB, oldest="0-1-55"), saved="0-1-50"), ["log kept"]),
        (PromotionCase(new=replace(MARIADB, settings={**MARIADB.settings, "binlog_format": "MIXED"})), ["log format"]),
        (PromotionCase(new=replace(MARIADB, settings={**MARIADB.settings, "log_bin": "0"})), ["log format"]),
        (
            PromotionCase(new=replace(MARIADB, settings={**MARIADB.settings, "binlog_row_image": "MINIMAL"})),
            ["row image"],
        ),
        (
            PromotionCase(new=replace(MARIADB, settings={**MARIADB.settings, "log_bin_compress": "1"})),
            ["log compression"],
        ),
        (
            PromotionCase(new=replace(MARIADB, settings={**MARIADB.settings, "binlog_expire_logs_seconds": "3600"})),
            ["log retention"],
        ),
        (PromotionCase(new=MARIADB, rights=("SELECT on a.t",)), ["grants"]),
        (PromotionCase(new=MARIADB, rights=None), ["grants"]),
        (PromotionCase(new=replace(POSTGRES, settings={"wal_level": "replica"})), ["log format"]),
        (
            PromotionCase(new=replace(POSTGRES, settings={"wal_level": "logical", "max_slot_wal_keep_size": "64"})),
            ["log retention"],
        ),
        (PromotionCase(new=replace(POSTGRES, slots={}), saved="1000", slot="s"), ["slot"]),
    ],
)
def test_each_failing_item_is_one_line_with_its_cure(case: PromotionCase, expected: list[str]) -> None:
    items = preflight(case)
    assert failing(items) == expected
    for item in items:
        assert "\n" not in str(item)
        assert item.ok or "Cure: " in str(item)


def test_split_brain_is_a_writable_old_leader_that_is_another_server() -> None:
    assert split_brain(OLD, OLD, MARIADB) is not None
    assert split_brain(OLD, replace(OLD, writable=False), MARIADB) is None
    assert split_brain(OLD, replace(OLD, following=True), MARIADB) is None
    assert split_brain(OLD, replace(OLD, identity="two"), MARIADB) is None
    quiet = split_brain(OLD, OLD, None)
    wrote = split_brain(OLD, replace(OLD, position="0-1-61"), None)
    assert quiet and not quiet.wrote and wrote and wrote.wrote and "0-1-60 to 0-1-61" in wrote.text
