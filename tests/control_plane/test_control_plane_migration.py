"""Moving a connector between two real Connect clusters, killed with SIGKILL after each of its steps."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.control_plane.harness import Harness
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack, pytest.mark.slow]

STEPS = ["stop", "create", "alter_offsets", "reset_offsets", "delete", "resume"]


class Watcher:
    """Looks at both clusters all the time: in how many does the task run?"""

    def __init__(self, harness: Harness, name: str) -> None:
        self.harness = harness
        self.name = name
        self.most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.is_set():
            running = [c for c in ("local", "second") if "RUNNING" in self.harness.task_states(self.name, c)]
            self.most = max(self.most, len(running))
            time.sleep(0.1)


def test_control_plane_moves_a_connector_killed_at_every_step(harness: Harness, tmp_path: Path) -> None:
    name = harness.shard_name(0)
    with harness.second_cluster(tmp_path) as second:
        harness.platform.topology.put_dataset(replace(harness.dataset, clusters=("local", "second")))
        harness.platform.topology.put_cluster(replace(second, draining=True))
        harness.add(1)
        harness.settle()
        assert "RUNNING" in harness.task_states(name, "local")
        written = 0

        def arrived(count: int) -> bool:
            return len(set(harness.keys_in_topic())) == count

        with Watcher(harness, name) as watcher:
            for step, verb in enumerate(STEPS, start=1):
                written += 1
                harness.insert(0, written)
                assert_eventually(partial(arrived, written), f"event {written} arrived")
                # To the other side and back, each time killed one call later.
                source, target = ("local", "second") if step % 2 else ("second", "local")
                for cluster in harness.clusters.values():
                    harness.platform.topology.put_cluster(replace(cluster, draining=cluster.name == source))
                process = harness.spawn("pass", str(step))
                told, _ = process.communicate(timeout=180)
                assert process.returncode == -9, told
                assert f"call {verb} {name}" in told.splitlines()[-1], told
                written += 1
                harness.insert(0, written)
                harness.settle()
                assert harness.task_states(name, target) == ["RUNNING"]
                assert harness.get(f"/connectors/{name}", source) is None
                assert_eventually(partial(arrived, written), f"event {written} arrived")
        assert watcher.most == 1
    keys = harness.keys_in_topic()
    assert {key for _, key in keys} == set(range(1, written + 1))
    # At least once: what was sent and not yet committed at a stop may come twice, nothing more.
    assert len(keys) <= written + len(STEPS) * 2
