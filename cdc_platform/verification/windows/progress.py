"""Brings the windows of a dataset forward: asks sources for boundaries that passed, and connectors how far they are.

What is known is in the state topic: `window/<dataset>` its first boundary, `window/<dataset>/<shard>` the shard's
`Marks`. Nothing is asked of a shard that is complete up to the last boundary that passed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import msgspec

from cdc_platform.clients.protocols import StateStore
from cdc_platform.errors import CdcError
from cdc_platform.model.positions import Committed, parse_position
from cdc_platform.model.topology import Dataset, Shard, Topology
from cdc_platform.verification.ports import VerificationPolicy, VerificationPorts
from cdc_platform.verification.proof.committed_offsets import ConnectorOffsets
from cdc_platform.verification.proof.table_proof import in_parallel
from cdc_platform.verification.windows.boundaries import (
    Completeness,
    Marks,
    WindowPolicy,
    complete_up_to,
    completeness,
    due,
    ended,
    marked,
    next_boundary,
)

WINDOW = "window/"

BEHIND = "its server lacks transactions that were there at the last boundary"


class _First(msgspec.Struct, frozen=True):
    first: int
    seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetWindows:
    """What is known of a dataset's windows. `left`: shards that left the topology before they were complete so far."""

    dataset: str
    first: int
    seconds: int
    marks: Mapping[str, Marks]
    completeness: Completeness
    left: tuple[str, ...] = ()

    def ended(self) -> list[int]:
        """The windows that are whole on every shard, by their begin."""
        return ended(self.first, self.completeness.boundary, self.seconds)


def known_windows(documents: Mapping[str, Mapping[str, Any]], dataset: str) -> tuple[int, int, dict[str, Marks]] | None:
    """The dataset's first boundary, its windows' seconds, and each shard's marks, by the state topic; None: none."""
    raw = documents.get(f"{WINDOW}{dataset}")
    if raw is None:
        return None
    found = msgspec.convert(raw, _First)
    prefix = f"{WINDOW}{dataset}/"
    marks = {
        key.removeprefix(prefix): msgspec.convert(document, Marks, strict=False)
        for key, document in documents.items()
        if key.startswith(prefix)
    }
    return found.first, found.seconds, {shard: each for shard, each in marks.items() if each.seconds == found.seconds}


def advance(
    ports: VerificationPorts,
    store: StateStore,
    topology: Topology,
    dataset: str,
    policy: WindowPolicy,
    now: float,
    wait_seconds: float = 3.0,
) -> DatasetWindows:
    """Bring the dataset's windows forward, at most about so long. `now`: seconds since 1970.

    A source or connector that does not answer holds up its own shard only, which is a laggard with the reason.
    Raises what the state topic raises.
    """
    return _Advance(ports, store, topology, topology.dataset(dataset), policy, now, wait_seconds).advance()


@dataclass(slots=True)
class _Advance:
    ports: VerificationPorts
    store: StateStore
    topology: Topology
    dataset: Dataset
    policy: WindowPolicy
    now: float
    wait_seconds: float

    def advance(self) -> DatasetWindows:
        seconds, name = self.policy.seconds, self.dataset.name
        known = known_windows(self.ports.platform.state.read(), name)
        coming = next_boundary(self.now, seconds)
        if known is None or known[1] != seconds:
            known = (coming, seconds, {})
            self.store.write({f"{WINDOW}{name}": {"first": coming, "seconds": seconds}})
        first, _, stored = known
        shards = {shard.id: shard for shard in self.topology.shards.get(name, ())}
        marks = {shard: stored.get(shard, Marks(first=coming, seconds=seconds)) for shard in shards}
        problems = self._mark(shards, marks)
        problems |= self._reach(shards, marks)
        self._keep(stored, marks)
        unreadable = [found.name for found in self.topology.problems if found.name.partition(".")[0] == name]
        whole = completeness(
            {shard: max(each.complete, each.first - seconds) for shard, each in marks.items()}, problems, unreadable
        )
        left = [
            shard
            for shard, each in stored.items()
            if shard not in shards and whole.boundary is not None and each.complete < min(whole.boundary, each.last)
        ]
        return DatasetWindows(
            dataset=name,
            first=first,
            seconds=seconds,
            marks={**stored, **marks},
            completeness=whole,
            left=tuple(sorted(left)),
        )

    def _mark(self, shards: Mapping[str, Shard], marks: dict[str, Marks]) -> dict[str, str]:
        """Ask the sources of shards whose boundary has passed; why some gave no position."""

        def ask(shard: str) -> str | None:
            try:
                with closing(self.ports.source(self.dataset, shards[shard], self.dataset.tables[0])) as source:
                    position = source.position()
            except (CdcError, OSError) as error:
                return f"its source gives no position: {error}"
            found = marked(self.dataset.engine, marks[shard], passed[shard], position)
            if found is None:
                return BEHIND
            marks[shard] = found
            return None

        passed = {shard: boundaries for shard, each in marks.items() if (boundaries := due(each, self.now))}
        answers = in_parallel(ask, list(passed), VerificationPolicy.of(self.dataset).sources_at_once)
        return {shard: problem for shard, problem in zip(passed, answers, strict=True) if problem}

    def _reach(self, shards: Mapping[str, Shard], marks: dict[str, Marks]) -> dict[str, str]:
        """Ask the connectors of shards that are not known to be complete up to their last boundary."""
        engine = self.dataset.engine
        waiting = [shard for shard, each in marks.items() if each.positions and each.complete < each.last]
        targets = [(shards[s], [parse_position(engine, marks[s].positions[marks[s].last])]) for s in waiting]
        offsets = ConnectorOffsets(self.ports.platform, self.dataset, self.topology.clusters)
        found = offsets.wait(targets, self.wait_seconds, lambda done, total: None, self._beyond) if targets else {}
        problems = {}
        for shard in waiting:
            progress = found[shard]
            complete = complete_up_to(engine, marks[shard], progress.committed)
            marks[shard] = msgspec.structs.replace(marks[shard], complete=complete)
            if complete < marks[shard].last and (progress.problem or not progress.found):
                problems[shard] = progress.problem or "it has no connector"
        return problems

    def _beyond(self, shard: Shard, committed: Committed) -> Committed:
        try:
            with closing(self.ports.source(self.dataset, shard, self.dataset.tables[0])) as source:
                return source.beyond(committed)
        except (CdcError, OSError):
            return committed  # what Connect says stands; the shard is asked again by the next call

    def _keep(self, stored: Mapping[str, Marks], marks: Mapping[str, Marks]) -> None:
        prefix = f"{WINDOW}{self.dataset.name}/"
        changed: dict[str, Mapping[str, Any] | None] = {
            f"{prefix}{shard}": msgspec.to_builtins(each, str_keys=True)
            for shard, each in marks.items()
            if stored.get(shard) != each
        }
        changed |= {f"{prefix}{shard}": None for shard in self._forgotten(stored, marks)}
        self.store.write(changed)

    def _forgotten(self, stored: Mapping[str, Marks], marks: Mapping[str, Marks]) -> Sequence[str]:
        """Shards that left so long ago that the others remember none of their boundaries."""
        oldest = min((min(each.positions) for each in marks.values() if each.positions), default=0)
        return [shard for shard, each in stored.items() if shard not in marks and each.last < oldest]
