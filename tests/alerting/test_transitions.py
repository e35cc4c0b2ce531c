"""Alerts decided: on transitions, once a cause, with recovery, damped when they flap."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from cdc_platform.alerting.conditions import AlertCondition
from cdc_platform.alerting.transitions import AlertPolicy, AlertRecord, Route, decide, due, failed
from cdc_platform.model.alert_messages import Event, Message, Severity

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ALL = Route(name="all")
POLICY = AlertPolicy()


def condition(key: str = "a", **fields: object) -> AlertCondition:
    defaults: dict[str, object] = {
        "key": key, "cause": "c", "severity": Severity.CRITICAL, "title": f"{key} is down", "text": f"{key} fails.",
        "advice": "Look.", "owners": ("ann",), "runbook": "https://wiki/x", "run": "https://dagster/runs/1",
    }  # fmt: skip
    return AlertCondition(**(defaults | fields))  # type: ignore[arg-type]


class Rounds:
    """Rounds one after the other on the same records."""

    def __init__(self, *routes: Route, policy: AlertPolicy = POLICY) -> None:
        self.routes = routes or (ALL,)
        self.policy = policy
        self.records: dict[str, AlertRecord] = {}
        self.now = NOW

    def round(self, *present: AlertCondition, gone: tuple[str, ...] = (), after: timedelta = MINUTE) -> list[Message]:
        self.now += after
        decision = decide({c.key: c for c in present}, gone, self.records, self.routes, self.now, self.policy)
        for key, record in decision.records.items():
            if record is None:
                self.records.pop(key, None)
            else:
                self.records[key] = record
        return list(decision.messages)


def test_alerts_are_sent_on_transitions_only() -> None:
    rounds = Rounds()
    (first,) = rounds.round(condition())
    assert (first.event, first.title) == (Event.FIRING, "[CRITICAL] a is down")
    for part in ("a fails.", "What to do: Look.", "Owner: ann", "Runbook: https://wiki/x", "https://dagster/runs/1"):
        assert part in first.body
    assert rounds.round(condition()) == []
    assert rounds.round() == []  # not seen to be over
    (last,) = rounds.round(gone=("a",))
    assert (last.event, last.title) == (Event.RECOVERED, "[RECOVERED] a is down")
    assert "It lasted 0:03:00" in last.body
    assert last.incident == first.incident
    assert last.id != first.id
    assert rounds.round(gone=("a",)) == []


def test_alerts_of_one_cause_are_one_message() -> None:
    many = [condition(f"t{n:02d}") for n in range(40)]
    rounds = Rounds()
    (first,) = rounds.round(*many)
    assert first.title == "[CRITICAL] t00 is down and 39 more"
    assert "and 30 more." in first.body
    (last,) = rounds.round(gone=tuple(c.key for c in many))
    assert last.title == "[RECOVERED] t00 is down and 39 more"


def test_alerts_wait_for_their_patience_and_a_blip_is_no_alert() -> None:
    rounds = Rounds()
    patient = condition(patience=timedelta(minutes=2))
    assert rounds.round(patient) == []
    assert rounds.round(gone=("a",)) == []
    assert rounds.records == {}
    assert rounds.round(patient) == []
    assert rounds.round(patient) == []
    assert len(rounds.round(patient)) == 1


def test_alerts_that_get_worse_are_told_once_more() -> None:
    rounds = Rounds()
    assert [m.event for m in rounds.round(condition(severity=Severity.WARNING))] == [Event.FIRING]
    assert [m.event for m in rounds.round(condition())] == [Event.WORSE]
    assert rounds.round(condition()) == []
    assert rounds.round(condition(severity=Severity.WARNING)) == []
    assert [m.event for m in rounds.round(gone=("a",))] == [Event.RECOVERED]


def test_alerts_go_by_owner_and_severity_and_recovery_to_whom_it_fired() -> None:
    routes = (
        Route(name="ann", owners=("ann",)),
        Route(name="bob", owners=("bob",)),
        Route(name="pager", severities=(Severity.CRITICAL,)),
    )
    rounds = Rounds(*routes)
    assert [m.route for m in rounds.round(condition(severity=Severity.WARNING))] == ["ann"]
    assert [m.route for m in rounds.round(gone=("a",))] == ["ann"]
    assert sorted(m.route for m in rounds.round(condition(owners=("bob",)))) == ["bob", "pager"]
    rounds.routes = routes[1:2]
    assert [m.route for m in rounds.round(gone=("a",))] == ["bob"]


def test_alerts_for_nobody_are_reported() -> None:
    decision = decide({"a": condition()}, (), {}, [], NOW, POLICY)
    assert decision.unrouted == ("a is down",)


def test_alerts_that_flap_stay_open_until_it_is_quiet() -> None:
    rounds = Rounds()
    events = []
    for _ in range(20):
        events += [m.event for m in rounds.round(condition())]
        events += [m.event for m in rounds.round(gone=("a",))]
    assert events == [Event.FIRING, Event.RECOVERED] * 2 + [Event.FIRING]
    assert rounds.round(after=timedelta(minutes=20)) == []
    assert [m.event for m in rounds.round(after=timedelta(minutes=20))] == [Event.RECOVERED]


def test_a_round_decided_twice_on_the_same_records_gives_the_same_messages() -> None:
    one = decide({"a": condition()}, (), {}, [ALL], NOW, POLICY)
    assert one == decide({"a": condition()}, (), {}, [ALL], NOW, POLICY)


def test_a_message_that_is_not_taken_waits_ever_longer_and_holds_its_route_in_order() -> None:
    (message,) = Rounds().round(condition())
    later = failed(message, NOW, POLICY)
    assert later is not None
    assert later.not_before == NOW + timedelta(seconds=30)
    behind = replace(message, id="b", event=Event.RECOVERED, created=message.created + MINUTE)
    other = replace(message, id="c", route="other")
    assert due([behind, later, other], NOW) == {"other": [other]}
    assert due([behind, later], NOW + MINUTE) == {"all": [later, behind]}
    waits = []
    for _ in range(12):
        assert later is not None
        later = failed(later, NOW, POLICY)
        assert later is not None and later.not_before is not None
        waits.append(later.not_before - NOW)
    assert waits == sorted(waits)
    assert waits[-1] == timedelta(seconds=POLICY.retry.longest)
    assert failed(later, message.created + timedelta(days=8), POLICY) is None


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 90)), max_size=40))
def test_alerts_alternate_whatever_comes_and_goes(steps: list[tuple[bool, int]]) -> None:
    rounds = Rounds()
    events = []
    for there, minutes in steps:
        found = rounds.round(*([condition()] if there else []), gone=("a",), after=timedelta(minutes=minutes))
        events += [m.event for m in found]
    assert events[::2] == [Event.FIRING] * len(events[::2])
    assert events[1::2] == [Event.RECOVERED] * len(events[1::2])
    # In the end the last word is true, or it is being waited whether it stays so.
    rounds.round(gone=("a",), after=timedelta(hours=2))
    assert not any(record.open for record in rounds.records.values())
