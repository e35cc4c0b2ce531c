"""Definitions of captured tables that changed without the log: the catalog against what the connector knows.

The schema history is read only where the catalog's definition is not the one that agreed with it last.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace

from cdc_platform.clients.kafka.schema_history import Histories, KnownTable, known_tables
from cdc_platform.errors import CdcError
from cdc_platform.model.source_facts import SourceFacts, SourceTable

log = logging.getLogger(__name__)

_THREADS = 8
SECONDS = 15.0
# A statement that is in the log is in the history by then, where the connector keeps up.
GRACE_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A shard with tables whose definition is not the agreed one; `agreed` maps a table to its last agreement."""

    topic: str
    database: str
    facts: SourceFacts
    agreed: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def tables(self) -> frozenset[str]:
        """Those whose definition is another one than what agreed last."""
        return frozenset(
            name
            for name, table in self.facts.tables.items()
            if table.columns and self.agreed.get(name, (None, 0))[0] != fingerprint(table)
        )


def fingerprint(table: SourceTable) -> int:
    """Of names and types in order."""
    return zlib.crc32(repr(table.columns).encode())


def compared(
    suspects: Mapping[str, Suspect], histories: Histories, sleep: Callable[[float], None] = time.sleep
) -> dict[str, SourceFacts]:
    """The facts of shards with their `agreed` and `unlogged` tables, without the shards that could not be read.

    Takes twice `SECONDS` and once `GRACE_SECONDS` at most.
    """
    found = _read(suspects, histories)
    again = {name: suspects[name] for name, facts in found.items() if facts.unlogged}
    if again:
        sleep(GRACE_SECONDS)
        second = _read(again, histories)
        found = {**{name: facts for name, facts in found.items() if name not in again}, **second}
    return found


def _read(suspects: Mapping[str, Suspect], histories: Histories) -> dict[str, SourceFacts]:
    pool = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="history")
    try:
        asked = {pool.submit(_known, suspect, histories): name for name, suspect in suspects.items()}
        done = wait(asked, timeout=SECONDS).done
        answers = {asked[one]: one.result() for one in done}
        return {name: judged(suspects[name], known) for name, known in answers.items() if known is not None}
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _known(suspect: Suspect, histories: Histories) -> Mapping[str, KnownTable] | None:
    try:
        return known_tables(histories, suspect.topic, suspect.database, suspect.tables)
    except CdcError as error:
        log.warning("what the connector knows by %s is not known: %s", suspect.topic, error)
        return None


def judged(suspect: Suspect, known: Mapping[str, KnownTable]) -> SourceFacts:
    """The shard's facts with the tables that agree with the history, and those that do not. Pure."""
    agreed = {name: pair for name, pair in suspect.agreed.items() if name in suspect.facts.tables}
    unlogged: dict[str, str] = {}
    for name in suspect.tables & known.keys():
        table = suspect.facts.tables[name]
        columns = tuple(column for column, _ in table.columns)
        before = suspect.agreed.get(name)
        if columns != known[name].columns:
            unlogged[name] = _difference(columns, known[name].columns)
        elif before is not None and before[1] == known[name].offset:
            unlogged[name] = "the types of its columns are others than the connector knows"
        else:
            agreed[name] = (fingerprint(table), known[name].offset)
    return replace(suspect.facts, agreed=agreed, unlogged=unlogged)


def _difference(there: Sequence[str], known: Sequence[str]) -> str:
    new, gone = [name for name in there if name not in known], [name for name in known if name not in there]
    parts = [f"has {', '.join(new)}"] if new else []
    parts += [f"lacks {', '.join(gone)}"] if gone else []
    return f"it {' and '.join(parts) or 'has its columns in another order'}, unlike what the connector knows"
