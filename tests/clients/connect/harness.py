"""A Connect cluster under contract, the fake one or a real one."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cdc_platform.clients.protocols import Connect
from cdc_platform.errors import NotFound
from tests.waiting import assert_eventually

FILE_SOURCE = "org.apache.kafka.connect.file.FileStreamSourceConnector"


@dataclass
class Harness:
    """A Connect cluster under contract, and names in it that no other test uses."""

    kind: str
    connect: Connect
    directory: Path

    def __post_init__(self) -> None:
        self._names: list[str] = []
        self._own = secrets.token_hex(4)

    def name(self, shard: str = "00000") -> str:
        name = f"contract_{self._own}.{shard}"
        self._names.append(name)
        return name

    def config(self, **more: str) -> dict[str, str]:
        """A source that needs no database: it reads lines from a file that may not even exist."""
        return {
            "connector.class": FILE_SOURCE,
            "tasks.max": "1",
            "topic": f"contract-{self._own}",
            "file": str(self.directory / f"{self._own}.txt"),
            "cdc.platform.owner": "contract",
            **{key.replace("_", "."): value for key, value in more.items()},
        }

    def fragile(self, **more: str) -> dict[str, str]:
        """Its task dies of the first line that is no number."""
        cast = "org.apache.kafka.connect.transforms.Cast$Value"
        return self.config(transforms="cast", transforms_cast_type=cast, transforms_cast_spec="int32", **more)

    def source_says(self, text: str) -> None:
        Path(self.config()["file"]).write_text(text, encoding="utf-8")

    def partition(self) -> dict[str, str]:
        return {"filename": self.config()["file"]}

    def assert_running(self, name: str) -> None:
        assert_eventually(lambda: self.connect.connector(name).running, what=f"{name} RUNNING")

    def assert_stopped(self, name: str) -> None:
        def is_stopped() -> bool:
            seen = self.connect.connector(name)
            return seen.state == "STOPPED" and not seen.tasks

        assert_eventually(is_stopped, what=f"{name} STOPPED without tasks")

    def assert_offsets(self, name: str, entries: Sequence[Mapping[str, object]]) -> None:
        """The connector's offsets become these, in any order.

        Connect lists a connector's partitions from what it has read of its offsets topic so far, and does not read to
        the end first: a partition that was just added may be missing from the first answers.
        """

        def are_shown() -> bool:
            return sorted(self.connect.offsets(name), key=str) == sorted(entries, key=str)

        assert_eventually(are_shown, what=f"the offsets of {name} are {entries}")

    def clean(self) -> None:
        """Leave nothing behind, offsets included."""
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(self._remove, self._names))

    def _remove(self, name: str) -> None:
        try:
            self.connect.stop(name)
            self.assert_stopped(name)
            self.connect.reset_offsets(name)
        except NotFound:
            return
        self.connect.delete(name)
