"""What goes wrong around a lake: catalog or store away, full, or behind. Nothing is lost, doubled or half there."""

from __future__ import annotations

import os
import resource
import shutil
import traceback
from pathlib import Path

import pytest

from cdc_platform.errors import LakeUnavailable
from cdc_platform.lake.current import open_view
from cdc_platform.lake.policy import LakePolicy
from cdc_platform.verification.proof.verdicts import Verdict
from tests.lake.test_lake import events, of_the_topic, rows, run, source_rows, verdicts, worked
from tests.verification.proof.memory import MemoryWorld


@pytest.fixture
def world(tmp_path: Path, policy: LakePolicy) -> MemoryWorld:
    made = MemoryWorld(tmp_path / "cache", shards=("00000", "00001"))
    made.cache.mkdir()
    worked(made)
    run(made, policy)
    worked(made, 1)
    return made


def assert_whole(world: MemoryWorld, policy: LakePolicy) -> None:
    assert events(policy) == of_the_topic(world)
    assert rows(open_view(policy, "d", "t")) == source_rows(world)
    assert {verdict.verdict for verdict in verdicts(world, policy).values()} == {Verdict.PROVEN}


def test_lake_with_a_catalog_that_is_behind_takes_the_run_that_it_forgot_again(
    world: MemoryWorld, policy: LakePolicy, tmp_path: Path
) -> None:
    """A backup of the catalog was restored: it has the first run, the store has files of both."""
    catalog = tmp_path / "lake" / "catalog.db"
    shutil.copy(catalog, tmp_path / "backup.db")
    assert run(world, policy).run == 2
    shutil.copy(tmp_path / "backup.db", catalog)
    assert run(world, policy).run == 2
    assert_whole(world, policy)


def test_lake_whose_catalog_is_away_says_so_and_goes_on_when_it_is_back(
    world: MemoryWorld, policy: LakePolicy, tmp_path: Path
) -> None:
    (tmp_path / "lake").rename(tmp_path / "elsewhere")
    with pytest.raises(LakeUnavailable, match=r"the lake of t cannot be read or written.*See to its catalog"):
        run(world, policy)
    (tmp_path / "elsewhere").rename(tmp_path / "lake")
    run(world, policy)
    assert_whole(world, policy)


def test_lake_whose_store_lost_its_files_says_so(world: MemoryWorld, policy: LakePolicy, tmp_path: Path) -> None:
    (tmp_path / "lake" / "d").rename(tmp_path / "elsewhere")
    with pytest.raises(LakeUnavailable, match=r"cannot be read or written"):
        run(world, policy)
    (tmp_path / "elsewhere").rename(tmp_path / "lake" / "d")
    run(world, policy)
    assert_whole(world, policy)


def test_lake_whose_store_is_full_says_so_and_writes_nothing(world: MemoryWorld, policy: LakePolicy) -> None:
    """The kernel lets the process write no file of more than 2 KB: the file of the run fits, data files do not."""
    before = events(policy)
    verdicts(world, policy)  # folds the topic: the cache is full in other tests
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2_048, 2_048))
            run(world, policy)
        except LakeUnavailable as error:
            os._exit(7 if "cannot be read or written" in str(error) else 8)
        except BaseException:  # noqa: BLE001 -- a child has nobody to raise to
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert events(policy) == before
    run(world, policy)
    assert_whole(world, policy)
