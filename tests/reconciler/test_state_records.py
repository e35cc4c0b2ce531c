"""A kind of record is stored, read and deleted by what its class says, or the pass says that it is not.

A kind that only this module knows stands for one that is added later.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from cdc_platform.errors import InternalError
from cdc_platform.planning.health.liveness import LiveRecord
from cdc_platform.planning.holds import HoldRecord
from cdc_platform.planning.inputs import Part
from cdc_platform.planning.memory import KINDS, RecordChanges
from cdc_platform.planning.records import Kept, Record, Writer
from cdc_platform.reconciler.state_records import changed_records, deleted_with, documents_of, read_memory
from tests.planning.worlds import NOW


@dataclass(frozen=True, slots=True)
class Note(Record):
    """A kind of record that is not listed yet."""

    kept = Kept("note", with_connector=True)

    text: str


NOTES = {"pins.00000": Note("new"), "pins.00001": None}


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "note", Note)


def test_a_kind_that_is_not_listed_can_be_neither_changed_nor_read() -> None:
    with pytest.raises(InternalError, match="Note is no kind of record"):
        RecordChanges({Note: NOTES})
    with pytest.raises(InternalError, match="Note is no kind of record"):
        read_memory({"note/pins.00000": {"text": "old"}}).of(Note)


@pytest.mark.usefixtures("listed")
def test_a_listed_kind_is_stored_read_and_deleted_without_another_line() -> None:
    documents = {"note/pins.00001": {"text": "old"}, "note/pins.00002": {"text": "kept"}}
    stored = changed_records(
        RecordChanges({Note: {**NOTES, "pins.00002": Note("kept"), "pins.00003": None}}), documents
    )
    assert stored == {"note/pins.00000": {"text": "new"}, "note/pins.00001": None}
    assert read_memory(documents).of(Note) == {"pins.00001": Note("old"), "pins.00002": Note("kept")}
    assert deleted_with("pins.00000")["note/pins.00000"] is None


@pytest.mark.usefixtures("listed")
def test_two_steps_of_a_plan_do_not_change_the_same_record() -> None:
    one, other = (Part(records=RecordChanges({Note: {name: Note("x")}})) for name in ("pins.00000", "pins.00001"))
    assert (one + other).records.of(Note).keys() == {"pins.00000", "pins.00001"}
    with pytest.raises(InternalError, match=r"two steps of the plan change note/pins\.00000"):
        one + other + one


def test_a_plan_may_not_write_what_others_write() -> None:
    hold = HoldRecord(run="r", reason="x", since=NOW)
    with pytest.raises(InternalError, match=r"a plan may not change hold/pins\.00000"):
        changed_records(RecordChanges({HoldRecord: {"pins.00000": hold}}), {})


def test_each_record_is_written_at_its_writers_time() -> None:
    live = RecordChanges({LiveRecord: {"pins.00000": LiveRecord(since=NOW)}})
    assert documents_of(live, Writer.RESTART) == {}
    assert documents_of(live).keys() == {"live/pins.00000"}


def test_prefixes_are_those_of_the_classes() -> None:
    assert {kind.kept.prefix: kind for kind in KINDS.values()} == KINDS
