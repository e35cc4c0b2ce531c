"""Failing shards by their common cause: the subject of one alert each. Pure.

500 shards of one broken host are one incident. It lasts until none of its
shards fails and none has been restarted lately, so that a moment of RUNNING
neither ends nor repeats it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from cdc_platform.model.naming import ShardName, some_of
from cdc_platform.planning.health.failures import CURES, LOGIN, Failure
from cdc_platform.planning.health.restarts import Failing, RestartRecord
from cdc_platform.planning.records import Kept, Record

# Names kept of an incident's shards; `status` shows all.
SAMPLE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident(Record):
    """One cause. `place` is the source host; the dataset for logins, the worker for want of memory.

    `down` shards fail now, `recovering` ones were restarted and run; `sample` names
    some of the down. `cause` is one shard's trace in a line, `advice` what to do.
    """

    kept = Kept("trouble")

    failure: Failure
    place: str
    since: datetime
    down: int
    recovering: int
    sample: tuple[str, ...]
    cause: str
    advice: str
    crash_looping: int = 0

    @property
    def key(self) -> str:
        """The same as long as the cause is the same."""
        return f"{self.failure}@{self.place}"

    def sentence(self) -> str:
        """It in one sentence, without the advice."""
        some = some_of(self.sample, SAMPLE, total=self.down)
        loop = f"; {self.crash_looping} in a crash loop" if self.crash_looping else ""
        if not self.down:
            return f"{self.recovering} shards recover from {self.failure} at {self.place}"
        noun = "shard is" if self.down == 1 else "shards are"
        return f"{self.down} {noun} down ({some}): {self.failure} at {self.place}: {self.cause}{loop}"


def incidents_of(
    failing: Mapping[str, tuple[Failing, str]],
    records: Mapping[str, RestartRecord],
    hosts: Mapping[str, str],
    before: Mapping[str, Incident],
    looping: frozenset[str],
    now: datetime,
) -> dict[str, Incident]:
    """The incidents now, by key.

    Args:
        failing: what is down, with its trace in a line.
        records: the restart records as they are after this pass, by shard.
        hosts: each shard's leader now.
        before: the incidents of the last pass, by key: they keep their beginning.
        looping: shards in a crash loop.
        now: the pass's time.
    """
    down: dict[tuple[Failure, str], list[str]] = defaultdict(list)
    recovering: dict[tuple[Failure, str], int] = defaultdict(int)
    for name in sorted(failing):
        item = failing[name][0]
        down[item.failure, _place(item.failure, name, item.host, item.worker)].append(name)
    for name, record in records.items():
        # A worker that ran out of memory does not count after the restart: the shard runs elsewhere.
        if name not in failing and name in hosts and record.failure is not Failure.OUT_OF_MEMORY:
            recovering[record.failure, _place(record.failure, name, hosts[name], "")] += 1
    incidents: dict[str, Incident] = {}
    for failure, place in sorted({*down, *recovering}):
        known = before.get(f"{failure}@{place}")
        names = down.get((failure, place), [])
        if not names and known is None:
            continue  # it was repaired before it was reported
        incident = Incident(
            failure=failure,
            place=place,
            since=min(known.since, now) if known else now,
            down=len(names),
            recovering=recovering.get((failure, place), 0),
            sample=tuple(names[:SAMPLE]),
            cause=failing[names[0]][1] if names else (known.cause if known else ""),
            advice=CURES[failure].advice,
            crash_looping=len(looping.intersection(names)),
        )
        incidents[incident.key] = incident
    return incidents


def _place(failure: Failure, name: str, host: str, worker: str) -> str:
    if failure is Failure.OUT_OF_MEMORY:
        return worker
    return ShardName.parse(name).dataset if failure in LOGIN else host
