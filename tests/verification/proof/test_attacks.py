"""What could make the proof say `proven` of what is not, one attack each, on a table and a topic in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cdc_platform.clients.sources.source import Slice
from cdc_platform.verification.ports import Progress
from cdc_platform.verification.proof.verdicts import ShardVerdict, Verdict
from cdc_platform.verification.storage import sorted_files
from tests.verification.proof.memory import MemoryTopic, MemoryWorld, event, key_json


def _world(tmp_path: Path, rows: int = 60, **more: Any) -> MemoryWorld:
    world = MemoryWorld(tmp_path, **more)
    for table in world.tables.values():
        for key in range(rows):
            table.put(key, f"row {key}")
    return world


def _named(verdict: ShardVerdict) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for sample in verdict.samples:
        found.setdefault(sample.kind, []).append(int(json.loads(sample.key)["id"]))
    return {kind: sorted(keys) for kind, keys in found.items()}


def assert_says(verdict: ShardVerdict, **kinds: list[int]) -> None:
    assert verdict.verdict is Verdict.MISMATCHED, verdict
    assert _named(verdict) == kinds


def test_an_event_that_is_lost_shows_until_a_later_one_of_its_key_heals_it(tmp_path: Path) -> None:
    world = _world(tmp_path)
    world.table.lose = True
    world.table.put(5, "lost")
    world.table.lose = False
    world.table.put(1, "another")
    assert_says(world.verify("one"), mismatched=[5])
    world.table.put(5, "healed")
    assert world.verify("two").verdict is Verdict.PROVEN


@pytest.mark.parametrize("lost", ["delete", "insert", "both"])
def test_a_delete_and_an_insert_of_one_key_of_which_something_is_lost(tmp_path: Path, lost: str) -> None:
    world = _world(tmp_path)
    world.table.lose = lost in ("delete", "both")
    world.table.delete(7)
    world.table.lose = lost in ("insert", "both")
    world.table.put(7, "again")
    verdict = world.verify()
    if lost == "delete":  # the insert tells all
        assert verdict.verdict is Verdict.PROVEN
    else:
        assert_says(verdict, **({"missing": [7]} if lost == "insert" else {"mismatched": [7]}))


def test_a_key_that_changed_of_which_one_half_is_lost(tmp_path: Path) -> None:
    world = _world(tmp_path)
    for old, new, lost in ((3, 103, "delete"), (4, 104, "insert")):
        world.table.lose = lost == "delete"
        world.table.delete(old)
        world.table.lose = lost == "insert"
        world.table.put(new, f"row {old}")
    assert_says(world.verify(), extra=[3], missing=[104])


def test_a_topic_made_anew_under_the_same_name_is_not_proven_by_what_was_kept(tmp_path: Path) -> None:
    world = _world(tmp_path)
    assert world.verify("one").verdict is Verdict.PROVEN
    world.topic.partitions = [{} for _ in range(3)]
    world.topic.topic_id = "/another=="
    world.table.put(5, "the first of the new topic")
    verdict = world.verify("two")
    assert (verdict.verdict, verdict.missing, verdict.mismatched) == (Verdict.MISMATCHED, 59, 0)


@pytest.mark.parametrize("stage", ["topic", "source"])
def test_a_topic_made_anew_in_mid_run_is_not_proven(tmp_path: Path, stage: str) -> None:
    """Whole or half in the old topic's records: neither is a proof of the new one."""
    world = _world(tmp_path, topic=MemoryTopic(batch=10))

    def anew(step: Progress) -> None:
        if step.stage == stage and world.topic.topic_id == "id":
            world.topic.topic_id = "new"
            if stage == "source":
                world.topic.partitions[0].clear()

    verdict = world.verify("one", anew)
    assert verdict.verdict is (Verdict.UNVERIFIABLE if stage == "topic" else Verdict.MISMATCHED), verdict
    if stage == "topic":
        assert "made anew in mid-run" in verdict.reason


def test_a_topic_that_goes_away_in_mid_run_is_unverifiable(tmp_path: Path) -> None:
    world = _world(tmp_path, topic=MemoryTopic(batch=10))

    def gone(taken: int) -> None:
        world.topic.gone = True

    world.topic.on_batch = gone
    verdict = world.verify()
    assert (verdict.verdict, verdict.reason) == (Verdict.UNVERIFIABLE, "there is no such topic")


def test_a_log_cut_at_its_end_in_mid_run_is_not_proven(tmp_path: Path) -> None:
    world = _world(tmp_path, topic=MemoryTopic(batch=10))

    def cut(step: Progress) -> None:
        if step.stage == "topic" and step.done == step.total:
            part = world.topic.partitions[0]
            del part[max(part)]

    verdict = world.verify("one", cut)
    assert verdict.verdict is Verdict.UNVERIFIABLE
    assert "was cut or made anew in mid-run" in verdict.reason
    assert_says(world.verify("two"), missing=[57])


def test_retention_that_cuts_in_mid_read_is_out_of_scope(tmp_path: Path) -> None:
    world = _world(tmp_path, topic=MemoryTopic(batch=5))

    def cut(taken: int) -> None:
        if taken == 5:
            world.topic.begins[0] = 15
            for offset in range(15):
                world.topic.partitions[0].pop(offset, None)

    world.topic.on_batch = cut
    verdict = world.verify()
    assert verdict.verdict is Verdict.UNVERIFIABLE, verdict
    assert "retention has removed its beginning" in verdict.reason
    # What was read before the cut was there when it was compared.
    assert 10 <= verdict.missing <= 15
    assert world.verify("again").missing == 15


def test_a_connector_that_claims_more_than_the_topic_holds_is_found_out(tmp_path: Path) -> None:
    """Its producer failed and its offset was committed all the same, or somebody set the offset ahead."""
    world = _world(tmp_path)
    world.table.lose = True
    world.table.put(8, "never acknowledged")
    world.table.lose = False
    world.table.committed = world.table.seq + 1_000
    assert_says(world.verify("one"), mismatched=[8])


def test_offsets_set_back_are_pending_until_they_are_there_again(tmp_path: Path) -> None:
    world = _world(tmp_path)
    world.table.committed = 3
    assert world.verify("one").verdict is Verdict.PENDING
    for key in range(60):  # all of it once more
        world.topic.append(key, event(key, f"row {key}", key + 1, op="c"))
    world.table.committed = None
    assert world.verify("two").verdict is Verdict.PROVEN


def test_a_zombie_that_sends_old_events_again_does_not_hide_that_the_new_one_is_lost(tmp_path: Path) -> None:
    world = _world(tmp_path)
    world.table.put(5, "new")
    world.topic.append(5, event(5, "row 5", 6, op="c"))
    assert world.verify("one").verdict is Verdict.PROVEN
    world.table.lose = True
    world.table.put(5, "newer")
    world.table.lose = False
    world.topic.append(5, event(5, "row 5", 6, op="c"))
    assert_says(world.verify("two"), mismatched=[5])


def test_events_in_another_order_than_the_source_s_are_named(tmp_path: Path) -> None:
    """A zombie sends an old event behind the new one: who goes by offset has a row of the past."""
    world = _world(tmp_path)
    world.table.put(5, "new")
    world.topic.append(5, event(5, "row 5", 6, op="c"))
    for run in ("one", "two"):
        found = world.verify(run)
        assert found.verdict is Verdict.PROVEN
        assert [text.split(" stands")[0] for text in found.warnings] == ['shard 00000: an older row of {"id": "5"}']
    world.table.put(5, "newer")
    assert world.verify("three").warnings == ()


def test_a_tombstone_without_a_delete_counts_from_where_it_stands(tmp_path: Path) -> None:
    """As `repair` or a person writes one: a row that only the topic has goes by it, and so does one that lives."""
    world = _world(tmp_path)
    world.table.lose = True
    world.table.delete(4)
    world.table.lose = False
    assert_says(world.verify("one"), extra=[4])
    world.topic.append(4, None)
    assert world.verify("two").verdict is Verdict.PROVEN
    world.topic.append(5, None)
    assert_says(world.verify("three"), missing=[5])
    world.table.put(5, "written again")
    assert world.verify("four").verdict is Verdict.PROVEN


def test_clocks_that_jump_change_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1e9]

    def jumping() -> float:
        clock[0] += 86_400.0 * (-40 if int(clock[0]) % 2 else 41)
        return clock[0]

    monkeypatch.setattr("time.time", jumping)
    world = _world(tmp_path)
    assert world.verify("one").verdict is Verdict.PROVEN
    world.table.lose = True
    world.table.put(5, "lost")
    assert_says(world.verify("two"), mismatched=[5])


def test_a_null_is_not_an_empty_string_nor_a_column_that_is_missing(tmp_path: Path) -> None:
    world = _world(tmp_path)
    part = world.topic.partitions[0]
    for key, title in ((3, '""'), (6, "null"), (9, '"null"')):
        value = event(key, "x", world.table.seq, op="u").replace(b'"title":"x"', f'"title":{title}'.encode())
        part[world.topic.end(0)] = (key_json(key), value)
    value = event(12, "x", world.table.seq, op="u").replace(b',"title":"x"', b"")
    part[world.topic.end(0)] = (key_json(12), value)
    assert_says(world.verify(), mismatched=[3, 6, 9, 12])


def test_what_cannot_be_read_of_one_shard_does_not_hide_another_s(tmp_path: Path) -> None:
    """However many records of one shard are bad, one of another's counts, until its key is sent again."""
    world = _world(tmp_path, shards=("00000", "00001"))
    for _ in range(300):
        world.topic.append(0, b'{"op":', "00000")
    world.topic.append(3, b'{"op":', "00001")
    assert [one.verdict for one in world.verify_all("one")] == [Verdict.UNVERIFIABLE] * 2
    part = world.topic.partitions[0]
    bad = [offset for offset, record in part.items() if record[1] == b'{"op":']
    for offset in bad[:150]:  # retention takes some of them, not all
        del part[offset]
    world.topic.begins[0] = bad[149] + 1
    for key in range(0, 60, 3):
        world.tables["00000"].put(key, "backfilled")
        if key != 3:
            world.tables["00001"].put(key, "backfilled")
    assert [one.verdict for one in world.verify_all("two")] == [Verdict.PROVEN, Verdict.UNVERIFIABLE]
    world.tables["00001"].put(3, "backfilled")
    assert [one.verdict for one in world.verify_all("three")] == [Verdict.PROVEN] * 2


def test_rows_that_share_a_key_in_64_bits_are_never_proven(tmp_path: Path) -> None:
    """Crafted text keys can do that, and so can two dates that are one on the wire."""
    world = _world(tmp_path)
    slice_now = world.table._slice_now

    def twice(chosen: Callable[[int], bool]) -> Slice:
        found = slice_now(chosen)
        here = np.flatnonzero(found.keys == 5)
        return replace(
            found,
            keys=np.concatenate([found.keys, found.keys[here]]),
            rows=np.concatenate([found.rows, found.rows[here]]),
        )

    world.table._slice_now = twice  # type: ignore[method-assign]
    verdict = world.verify()
    assert verdict.verdict is Verdict.UNVERIFIABLE
    assert "1 rows of the source have the key of another one" in verdict.reason


@pytest.mark.parametrize("what", ["run-*", "carried-*", "state.json"])
def test_a_fold_that_lost_a_file_is_begun_anew(tmp_path: Path, what: str) -> None:
    """A cleaner of old files went through the cache: no hang, no row less."""
    world = _world(tmp_path)
    assert world.verify("one").verdict is Verdict.PROVEN
    for path in (tmp_path / "folds").rglob(what):
        path.unlink()
    world.table.put(5, "new")
    assert world.verify("two").verdict is Verdict.PROVEN
    world.table.lose = True
    world.table.put(6, "lost")
    assert_says(world.verify("three"), mismatched=[6])


@pytest.mark.timeout(60)
def test_a_fold_that_loses_a_file_in_mid_run_ends_and_is_unverifiable(tmp_path: Path) -> None:
    world = _world(tmp_path)
    assert world.verify("one").verdict is Verdict.PROVEN

    def lose(step: Progress) -> None:
        if step.stage == "reach":
            for path in (tmp_path / "folds").rglob("run-*"):
                path.unlink()

    world.table.lose = True
    world.table.put(5, "lost")  # so that it is looked at again, behind another wait
    verdict = world.verify("two", lose)
    assert verdict.verdict is Verdict.UNVERIFIABLE
    assert "the cache cannot be used: [Errno 2]" in verdict.reason


def test_a_cache_that_cannot_be_written_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = _world(tmp_path)

    def full(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sorted_files, "sync", full)
    verdict = world.verify()
    assert verdict.verdict is Verdict.UNVERIFIABLE
    assert "the cache cannot be used: [Errno 28] No space left on device" in verdict.reason


def test_what_a_killed_run_left_in_the_cache_is_removed_in_a_week(tmp_path: Path) -> None:
    world = _world(tmp_path)
    world.table.committed = 1
    assert world.verify("waits").verdict is Verdict.PENDING
    assert world.verify("waits too").verdict is Verdict.PENDING
    left = {path.name: path for path in (tmp_path / "scans").iterdir()}
    assert set(left) == {"waits", "waits%20too"}
    os.utime(left["waits"], (0, 0))
    world.table.committed = None
    assert world.verify("waits too").verdict is Verdict.PROVEN
    assert not left["waits"].exists()
    assert not any(path.is_file() for path in (tmp_path / "scans").rglob("*"))
