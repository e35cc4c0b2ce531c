"""A directory of the cache: one process extends it, state is replaced as a whole, another version is begun again."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import msgspec
import pytest

from cdc_platform.errors import CacheHeld
from cdc_platform.model.topology import Engine
from cdc_platform.verification.duplicates.deliveries import DeliveryReader
from cdc_platform.verification.duplicates.delivery_store import TopicDeliveries
from cdc_platform.verification.proof.topic_fold import TopicFold
from cdc_platform.verification.storage.state_directory import StateDirectory, each_locked
from tests.verification.duplicates.topics import Topic
from tests.verification.proof.memory import SHAPE, MemoryTopic


class Kept(msgspec.Struct):
    files: tuple[str, ...] = ()
    version: int = 2


def directory(root: Path) -> StateDirectory:
    return StateDirectory(root / "one", version=2)


def test_state_is_read_back_and_files_that_it_does_not_keep_are_removed(tmp_path: Path) -> None:
    one = directory(tmp_path)
    assert one.load(Kept) is None
    for name in ("kept", "old"):
        (one.path / name).touch()
    one.save(Kept(("kept",)))
    assert {path.name for path in one.path.iterdir()} == {"kept", "old", "state.json"}
    with one.lock() as locked:
        assert locked
        one.save(Kept(("kept",)), keep=("kept",))
    assert {path.name for path in one.path.iterdir()} == {"kept", "lock", "state.json"}
    assert directory(tmp_path).load(Kept) == Kept(("kept",))
    one.clear()
    assert {path.name for path in one.path.iterdir()} == {"lock"}


@pytest.mark.parametrize("version", [1, 2, 3, None])
def test_state_of_another_version_is_not_read_and_a_newer_one_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, version: int | None
) -> None:
    one = directory(tmp_path)
    state = {"files": []} if version is None else {"files": [], "version": version}
    (one.path / "state.json").write_text(json.dumps(state))
    with caplog.at_level(logging.WARNING):
        found = [one.load(Kept) for _ in range(2)]
    assert found == [Kept() if version == 2 else None] * 2
    named = [record.getMessage() for record in caplog.records]
    expected = f"{one.path}/state.json was written by a newer release (version 3, this one reads 2)"
    assert [text.partition(":")[0] for text in named] == ([expected] if version == 3 else [])


def test_state_that_is_cut_short_is_not_read(tmp_path: Path) -> None:
    one = directory(tmp_path)
    one.save(Kept())
    (one.path / "state.json").write_text('{"version":2,"fil')
    assert one.load(Kept) is None


def test_directories_of_another_process_come_last_and_are_waited_for(tmp_path: Path) -> None:
    both = {name: StateDirectory(tmp_path / name, version=1) for name in ("a", "b")}
    other = both["a"].lock()
    assert other.__enter__()
    came = []
    for name in each_locked(both, "it", seconds=10.0):
        came.append(name)
        if name == "b":
            other.__exit__(None, None, None)
        with both[name].lock() as again:
            assert not again
    assert came == ["b", "a"]
    with both["a"].lock() as first, both["b"].lock() as second:
        assert first and second


def test_a_directory_that_another_process_has_done_with_is_left_to_it(tmp_path: Path) -> None:
    one = directory(tmp_path)
    with one.lock():
        assert list(each_locked({0: one}, "it", seconds=0.0, is_done=lambda key: True)) == []


def test_a_directory_that_is_held_for_too_long_is_an_error(tmp_path: Path) -> None:
    one = directory(tmp_path)
    with one.lock(), pytest.raises(CacheHeld, match=r"another process has held the thing for 0 s\."):
        list(each_locked({0: one}, "the thing", seconds=0.0))


def test_fold_and_deliveries_say_alike_that_another_process_holds_a_partition(tmp_path: Path) -> None:
    records = MemoryTopic(partitions=[{}])
    fold = TopicFold(tmp_path, "cdc", "cdc.d.t", SHAPE, records)
    fold.extend(records.bounds(), {}, lambda done, total: None)
    sent = Topic(engine=Engine.MARIADB)
    deliveries = TopicDeliveries(tmp_path, "cdc", "cdc.d.t", "id", [0])
    locks = list(tmp_path.rglob("p00000"))
    assert len(locks) == 2
    for path in locks:
        with StateDirectory(path, version=0).lock() as locked, pytest.raises(CacheHeld, match=r"cdc\.d\.t for 0 s"):
            assert locked
            if "folds" in path.parts:
                TopicFold(tmp_path, "cdc", "cdc.d.t", SHAPE, records).extend(
                    records.bounds(), {}, lambda done, total: None, seconds=0.0
                )
            else:
                deliveries.extend(
                    sent, lambda: DeliveryReader(Engine.MARIADB), {0: (0, 0)}, lambda done, total: None, seconds=0.0
                )
