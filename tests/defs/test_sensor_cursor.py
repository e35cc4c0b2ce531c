"""When the sensor asks for a pass."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_platform.defs.sensor_cursor import ALL, SensorCursor, TickDecision, decide, wait_after
from cdc_platform.planning.actions import DeleteConnector
from cdc_platform.planning.plan import Plan, Refusal
from cdc_platform.reconciler import last_pass
from cdc_platform.reconciler.pending_changes import Due
from cdc_platform.reconciler.report import DatasetHealth, ShardDown

HEALTHY = {"pins": DatasetHealth(dataset="pins", shards=2, up=2, down=())}
SICK = {
    "pins": DatasetHealth(
        dataset="pins", shards=2, up=1, down=(ShardDown(shard="pins.1", state="FAILED", reason="Connect says FAILED"),)
    )
}


def due(*names: str, health: dict[str, DatasetHealth] | None = None, **fields: object) -> Due:
    actions = tuple(DeleteConnector(cluster="main", name=name, reason="its shard is gone") for name in names)
    defaults: dict[str, object] = {
        "plan": Plan(actions=actions),
        "captured": (),
        "records": (),
        "health": health or HEALTHY,
    }
    return Due(**(defaults | fields))  # type: ignore[arg-type]


def ask(what: Due, cursor: SensorCursor, now: float, refresh: float = 900.0) -> TickDecision:
    return decide(what, cursor, now=now, refresh_seconds=refresh)


def settled(now: float = 1000.0) -> SensorCursor:
    return ask(due(), SensorCursor(), now).cursor


@pytest.mark.parametrize("text", [None, "", "nonsense", "[]", "null", '{"tries": "many"}', '{"health": 3}', "\ud800"])
def test_a_garbled_cursor_is_a_fresh_one(text: str | None) -> None:
    assert SensorCursor.parse(text) == SensorCursor()


@given(st.text(max_size=20), st.integers(0, 99), st.dictionaries(st.text(max_size=5), st.text(max_size=5)))
def test_a_cursor_survives_dagster(need: str, tries: int, health: dict[str, str]) -> None:
    cursor = SensorCursor(need=need, tries=tries, health=health, refreshed=1.5)
    assert SensorCursor.parse(cursor.dump()) == cursor


def test_a_newer_cursor_with_unknown_fields_is_read() -> None:
    assert SensorCursor.parse('{"tries": 2, "later": 1}').tries == 2


def test_the_first_tick_asks_for_a_pass_that_observes_everything() -> None:
    decision = ask(due(), SensorCursor(), 1000.0)
    assert decision.run and decision.observe == (ALL,)


def test_nothing_due_is_a_skip_that_says_so() -> None:
    decision = ask(due(), settled(), 1060.0)
    assert not decision.run
    assert decision.reason == "Nothing to change. 2 of 2 shards up."


def test_a_plan_asks_for_a_pass() -> None:
    decision = ask(due("pins.9"), settled(), 1060.0)
    assert decision.run
    assert "Delete connector 1" in decision.reason


def test_the_same_plan_is_put_right_again_each_time_it_comes_back() -> None:
    cursor = settled()
    for number in range(10):
        decision = ask(due("pins.9"), cursor, 1060.0 + 120 * number)
        assert decision.run
        cursor = ask(due(), decision.cursor, 1120.0 + 120 * number).cursor


def test_a_need_that_passes_do_not_meet_is_asked_for_ever_more_rarely() -> None:
    cursor, asked = settled(0.0), []
    for tick in range(1, 120):
        decision = ask(due("pins.9"), cursor, tick * 60.0, refresh=1e9)
        cursor = decision.cursor
        if decision.run:
            asked.append(tick)
        else:
            assert "passes did not do it" in decision.reason
    assert asked[:3] == [1, 2, 3]
    gaps = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert gaps == sorted(gaps)
    assert max(gaps) == 5


def test_a_report_that_is_overdue_neither_waits_nor_starts_the_waiting_anew() -> None:
    cursor = settled()
    for tick in range(20):
        cursor = ask(due("pins.9"), cursor, 1060.0 + tick).cursor
    assert not ask(due("pins.9"), cursor, 1090.0).run
    overdue = ask(due("pins.9", records=(last_pass.KEY,)), cursor, 1090.0)
    assert overdue.run
    assert overdue.cursor.tries == cursor.tries + 1
    assert not ask(due("pins.9"), overdue.cursor, 1091.0).run


def test_another_need_does_not_wait_for_the_one_that_failed() -> None:
    cursor = settled()
    for tick in range(20):
        cursor = ask(due("pins.9"), cursor, 1060.0 + tick).cursor
    assert not ask(due("pins.9"), cursor, 1090.0).run
    assert ask(due("pins.9", "pins.8"), cursor, 1090.0).run


def test_shards_that_run_for_the_first_time_ask_for_a_pass() -> None:
    decision = ask(due(captured=("pins.1",)), settled(), 1060.0)
    assert decision.run and "not on record yet: pins.1" in decision.reason


def test_a_change_of_health_is_observed_once() -> None:
    decision = ask(due(health=SICK), settled(), 1060.0)
    assert decision.run and decision.observe == ("pins",)
    assert decision.reason == "Health changed; 1 of 2 shards up."
    assert not ask(due(health=SICK), decision.cursor, 1120.0).run
    assert ask(due(), decision.cursor, 1120.0).run


def test_a_new_refusal_is_told_once() -> None:
    refused = due(plan=Plan(refusals=(Refusal(scope="cluster main", reason="unreachable"),)))
    decision = ask(refused, settled(), 1060.0)
    assert decision.run and "cluster main" in decision.reason
    assert not ask(refused, decision.cursor, 1120.0).run


def test_metadata_is_refreshed_when_it_got_old() -> None:
    cursor = settled(1000.0)
    assert not ask(due(), cursor, 1800.0).run
    decision = ask(due(), cursor, 1900.0)
    assert decision.run and decision.observe == (ALL,)


def test_waits_grow_to_a_limit() -> None:
    assert [wait_after(n) for n in (1, 2, 3, 4, 5, 50)] == [0.0, 0.0, 60.0, 120.0, 240.0, 300.0]
