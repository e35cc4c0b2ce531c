"""What an agent must remember when it is restarted: one small JSON file that outlives it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cdc_platform.agent.atomic_file import replace_file
from cdc_platform.connectors.leader_files import LeaderFile
from cdc_platform.errors import TopologyError
from cdc_platform.model.topology import Address

log = logging.getLogger(__name__)

_MODE = 0o640


@dataclass(frozen=True, slots=True, kw_only=True)
class OldLeader:
    """A leader that tasks were moved away from, and when."""

    leader: Address
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """By shard name: with which leader each task last started, and the old leaders that are watched."""

    applied: Mapping[str, LeaderFile] = field(default_factory=dict)
    old: Mapping[str, OldLeader] = field(default_factory=dict)


class Journal:
    """The journal of one worker, in the leader directory. One that is lost costs a needless restart at most
    for leaders that move while the agent is down (the leader files have the rest), and the watch on old leaders.
    """

    def __init__(self, directory: Path, worker: str) -> None:
        self.path = directory / f".agent-{re.sub(r'[^A-Za-z0-9_-]', '_', worker)}.json"
        self._written = Remembered()

    def read(self) -> Remembered:
        """Nothing when there is no journal, or none that can be read."""
        try:
            document = json.loads(self.path.read_bytes())
            return Remembered(
                applied={
                    name: LeaderFile(leader=Address.parse(leader), generation=int(generation))
                    for name, (leader, generation) in document["applied"].items()
                },
                old={
                    name: OldLeader(leader=Address.parse(leader), since=_aware(since))
                    for name, (leader, since) in document["old"].items()
                },
            )
        except FileNotFoundError:
            return Remembered()
        except (OSError, ValueError, TypeError, KeyError, AttributeError, TopologyError) as error:
            log.warning("%s is not used: %s", self.path, error)
            return Remembered()

    def write(self, found: Remembered) -> None:
        """Write it, in one step, if it says something new."""
        if found == self._written:
            return
        document = {
            "applied": {name: [str(entry.leader), entry.generation] for name, entry in found.applied.items()},
            "old": {name: [str(entry.leader), entry.since.isoformat()] for name, entry in found.old.items()},
        }
        try:
            text = json.dumps(document, separators=(",", ":"))
            replace_file(self.path, text, temporary=self.path.with_suffix(".tmp"), mode=_MODE)
            self._written = Remembered(applied=dict(found.applied), old=dict(found.old))
        except OSError as error:
            log.warning("%s was not written: %s", self.path, error)


def _aware(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return found
