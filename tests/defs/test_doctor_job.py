"""The job `doctor`: green over sound sources, and red with a table over an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import dagster as dg
import pytest

from cdc_platform.clients.platform import Platform
from cdc_platform.defs.reconcile_job import build_cdc_jobs
from cdc_platform.settings import Settings
from tests.defs.harness import WORLDS, Harness, HarnessResource, topology
from tests.reconciler.doctor.fakes import FakeExaminer
from tests.reconciler.doctor.test_doctor import unread

JOB = build_cdc_jobs().doctor


class Examined(HarnessResource):
    """The harness with sources in memory."""

    @contextmanager
    def platform(self) -> Iterator[Platform]:
        with super().platform() as platform:
            yield replace(platform, examiner=EXAMINERS[str(self.config_file)])


EXAMINERS: dict[str, FakeExaminer] = {}


def run(request: pytest.FixtureRequest, examiner: FakeExaminer, **config: Any) -> dg.ExecuteInProcessResult:
    name = request.node.name
    WORLDS[name] = Harness(Settings())
    WORLDS[name].put(topology())
    EXAMINERS[name] = examiner
    return JOB.execute_in_process(
        resources={"cdc_platform": Examined(config_file=name)},
        run_config={"ops": {"examine_sources": {"config": config}}},
        raise_on_error=False,
    )


def test_sound_sources_are_a_green_run(request: pytest.FixtureRequest) -> None:
    examiner = FakeExaminer()
    done = run(request, examiner, dataset="pins", shards=["0-1"])
    assert done.success and sorted(examiner.asked) == ["pins.00000", "pins.00001"]


def test_an_error_fails_the_run_and_stands_in_its_table(request: pytest.FixtureRequest) -> None:
    done = run(request, FakeExaminer({"pins.00001": unread}))
    (failure,) = [event for event in done.all_events if event.is_step_failure]
    told = failure.step_failure_data.user_failure_data
    assert told is not None and "1 errors" in str(told.description)
    table = told.metadata["findings"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [record.data["kind"] for record in table.records] == ["missing-right"]


def test_tables_without_their_dataset_are_refused(request: pytest.FixtureRequest) -> None:
    done = run(request, FakeExaminer(), tables=["pins"])
    (failure,) = [event for event in done.all_events if event.is_step_failure]
    assert "Name the dataset" in str(failure.step_failure_data.user_failure_data)
