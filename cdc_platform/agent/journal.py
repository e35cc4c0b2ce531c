"""With which leader each task of the worker last started: one small JSON file that outlives the agent."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path

from cdc_platform.connectors.leader_files import LeaderFile
from cdc_platform.errors import TopologyError
from cdc_platform.topology import Address

log = logging.getLogger(__name__)


class Journal:
    """The journal of one worker, in the leader directory. One that is lost costs a needless restart at most
    for leaders that move while the agent is down: the leader files tell the rest.
    """

    def __init__(self, directory: Path, worker: str) -> None:
        self.path = directory / f".agent-{re.sub(r'[^A-Za-z0-9_-]', '_', worker)}.json"
        self._written: Mapping[str, LeaderFile] = {}

    def read(self) -> dict[str, LeaderFile]:
        """Shard name to leader; empty when there is no journal, or none that can be read."""
        try:
            document = json.loads(self.path.read_bytes())
            return {
                name: LeaderFile(leader=Address.parse(leader), generation=int(generation))
                for name, (leader, generation) in document.items()
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError, TopologyError) as error:
            log.warning("%s is not used: %s", self.path, error)
            return {}

    def write(self, applied: Mapping[str, LeaderFile]) -> None:
        """Write it, in one step, if it says something new."""
        if applied == self._written:
            return
        document = {name: [str(entry.leader), entry.generation] for name, entry in applied.items()}
        temporary = self.path.with_suffix(".tmp")
        try:
            with temporary.open("w") as file:
                json.dump(document, file, separators=(",", ":"))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
            self._written = dict(applied)
        except OSError as error:
            log.warning("%s was not written: %s", self.path, error)
