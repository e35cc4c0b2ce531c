"""One question to the source of each shard every few minutes, and what the answers change in the records.

Grouped by server, so many at once as threads, for so many seconds a pass: whose turn does not come keeps what was
found last, and the order is another in each round.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice

from cdc_platform.clients.kafka.schema_history import Histories
from cdc_platform.clients.sources.asking import ask_leaders
from cdc_platform.clients.sources.source_facts import SourceFactsReader
from cdc_platform.connectors.identity import schema_history_topic
from cdc_platform.connectors.tables import captured_tables
from cdc_platform.model.observed import ObservedState
from cdc_platform.model.positions import Committed
from cdc_platform.model.source_facts import SourceFacts
from cdc_platform.model.topology import EMPTY, Dataset, Engine, Shard
from cdc_platform.planning.health.liveness import CapturedRecord
from cdc_platform.planning.health.log_guard import LITTLE, LogSeen, LogState, binlog_state, slot_state
from cdc_platform.planning.health.restarts import RestartRecord
from cdc_platform.planning.health.shared_sources import readers_of_one
from cdc_platform.planning.health.source_hazards import SourceRecord, judged, new_gaps
from cdc_platform.planning.holds import WATERMARK, HoldRecord
from cdc_platform.planning.memory import Memory, SourceLogs, SourcesAsked
from cdc_platform.reconciler.doctor import MOST
from cdc_platform.reconciler.last_pass import quantiles
from cdc_platform.reconciler.report import lags_of
from cdc_platform.reconciler.state_records import DocumentChanges, Documents, read_memory
from cdc_platform.reconciler.unlogged_definitions import Suspect, compared
from cdc_platform.settings import Settings

log = logging.getLogger(__name__)

ROUND = timedelta(minutes=4)
SECONDS = 20.0
# Shards that a pass between two rounds asks, because they are about to get a connector.
MOST_FRESH = 500
# Logs that are remembered from one round to the next, at most.
MOST_LOGS = 500
# Connectors that are so many seconds behind, or of which that is not known, are asked where they are: so many at most,
# those that are furthest behind.
BEHIND_SECONDS = 120.0
MOST_PLACES = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceAnswers:
    """What the sources of some shards said, by shard; `unanswered` maps the others that were asked to why."""

    facts: Mapping[str, SourceFacts] = field(default_factory=dict)
    unanswered: Mapping[str, str] = field(default_factory=dict)

    def __or__(self, more: SourceAnswers) -> SourceAnswers:
        return SourceAnswers(facts={**self.facts, **more.facts}, unanswered={**self.unanswered, **more.unanswered})


def ask(
    reader: SourceFactsReader,
    settings: Settings,
    shards: Iterable[tuple[Dataset, Shard]],
    *,
    seconds: float = SECONDS,
    most: int | None = None,
) -> SourceAnswers:
    """Ask the leaders of these shards, all that answer within the seconds; `most` as in `ask_leaders`."""
    facts, unanswered = ask_leaders(reader.read, settings, shards, seconds=seconds, most=most)
    return SourceAnswers(facts=facts, unanswered={name: str(error) for name, error in unanswered.items()})


# Where connectors are: by shard, with their engines; without those that are not known.
Places = Callable[[Iterable[tuple[str, Engine]]], Mapping[str, Committed]]
# Is this shard's source asked in this pass? By the last round and the pass's time.
Asked = Callable[[SourcesAsked | None, datetime, Dataset, Shard], bool]


def when_due(last: SourcesAsked | None, now: datetime, dataset: Dataset, shard: Shard) -> bool:
    """All shards, when the last round is old enough."""
    return last is None or not timedelta() <= now - last.at < ROUND


def of_dataset(name: str | None) -> Asked:
    """The shards of one dataset, or all, whenever the last round was."""
    return lambda last, now, dataset, shard: name in (None, dataset.name)


def source_round(
    reader: SourceFactsReader,
    histories: Histories | None,
    settings: Settings,
    observed: ObservedState,
    documents: Documents,
    asked: Asked,
    places: Places = lambda wanted: {},
    newcomers: SourceFactsReader | None = None,
) -> DocumentChanges:
    """Ask the sources of these shards; what the answers change in the records.

    Shards that are paused, or held by a bootstrap or backfill, are left alone. Where `asked` chooses none, some that
    have no connector yet are asked. These are asked by `newcomers`, where there is one.
    """
    memory, now, topology = read_memory(documents), observed.taken_at, observed.topology
    last = memory.of(SourcesAsked).get("last")
    held, captured, configs = memory.of(HoldRecord), memory.of(CapturedRecord), _configs(observed)
    free = {
        shard.name: (dataset, shard)
        for dataset, shard in topology.all_shards()
        if shard.name not in held and not any(pause and pause.holds(now) for pause in (dataset.pause, shard.pause))
    }
    due = {name: pair for name, pair in free.items() if asked(last, now, *pair)}
    # Between two rounds, those that have never had a connector: they are asked before they get one.
    new = {name: pair for name, pair in free.items() if name not in configs and name not in captured}
    shards = due or dict(islice(new.items(), MOST_FRESH))
    if not shards:
        return {}
    examined = shards.keys() & new.keys() if newcomers is not None else frozenset()
    answers = ask(reader, settings, [pair for name, pair in shards.items() if name not in examined])
    if newcomers is not None:
        answers |= ask(newcomers, settings, [shards[name] for name in examined], most=MOST)
    for name, why in list(answers.unanswered.items())[:5]:
        log.warning("the source of %s is not known: %s", name, why)
    known = {shard.name for _, shard in topology.all_shards()}
    gone = memory.of(SourceRecord).keys() - known if topology.whole else ()
    changes: DocumentChanges = {SourceRecord.key_of(name): None for name in gone}
    behind = _behind(observed, memory)
    logs: dict[str, dict[str, LogState]] = defaultdict(dict)
    seen = dict(last.seen) if last else {}
    late = _late(behind, [name for name in answers.facts if name in captured and shards[name][0].engine.reads_binlog])
    committed = places((name, shards[name][0].engine) for name in late)
    said = {**answers.facts, **_definitions(histories, settings, shards, answers.facts, memory)}
    seen_places = {name: record.place for name, record in memory.of(SourceRecord).items()}
    shared = readers_of_one(topology, seen_places | {name: facts.place for name, facts in said.items()})
    for name, facts in said.items():
        dataset, shard = shards[name]
        state = None
        if facts.log is not None:
            place = name if dataset.engine is Engine.POSTGRES else str(shard.leader)
            before = last.seen.get(place) if last else None
            if dataset.engine is Engine.POSTGRES:
                state = slot_state(facts.log, dataset.source_log, before, now)
            else:
                place_now = committed.get(name)
                state = binlog_state(facts.log, dataset.source_log, before, behind.get(name), now, place_now)
            logs[dataset.name][name] = state
            seen[place] = LogSeen(now, facts.log.bytes, facts.log.written)
        # Of a connector that could not be seen nothing is decided.
        seen_now = name in configs or name not in captured
        streaming = captured_tables(dataset, shard, configs.get(name)) if seen_now else None
        others = shared.get(name, ())
        changes |= _changed(dataset, shard, facts, state, streaming, others, memory, documents, now)
    if not due:
        return changes  # the round of the others is not put off by those that are new
    most = sorted(seen.items(), key=lambda item: item[1].bytes)[-MOST_LOGS:]
    round_ = SourcesAsked(
        at=now,
        asked=len(shards),
        unanswered=len(answers.unanswered),
        logs={name: _summary(states.values()) for name, states in logs.items()},
        seen={place: one for place, one in most if one.bytes >= LITTLE and now - one.at < 3 * ROUND},
    )
    return changes | {SourcesAsked.key_of("last"): round_.document()}


def _configs(observed: ObservedState) -> dict[str, Mapping[str, str]]:
    """Shard to the configuration of its connector, in whatever cluster."""
    return {
        name: connector.config
        for cluster in observed.clusters.values()
        for name, connector in (cluster.connectors or {}).items()
    }


def _definitions(
    histories: Histories | None,
    settings: Settings,
    shards: Mapping[str, tuple[Dataset, Shard]],
    facts: Mapping[str, SourceFacts],
    memory: Memory,
) -> dict[str, SourceFacts]:
    """The facts of captured shards of binlog servers with the tables that agree with what their connector knows.

    What could not be read agrees as far as it did before.
    """
    captured, sources = memory.of(CapturedRecord), memory.of(SourceRecord)
    suspects: dict[str, Suspect] = {}
    for name, said in facts.items():
        dataset, shard = shards[name]
        if dataset.engine.reads_binlog and name in captured:
            agreed = sources[name].agreed if name in sources else EMPTY
            topic = schema_history_topic(settings, shard)
            suspects[name] = Suspect(topic=topic, database=shard.database, facts=said, agreed=agreed)
    unread = {name: replace(suspect.facts, agreed=suspect.agreed) for name, suspect in suspects.items()}
    asked = {name: suspect for name, suspect in suspects.items() if suspect.tables}
    return {**unread, **(compared(asked, histories) if histories is not None and asked else {})}


def _behind(observed: ObservedState, memory: Memory) -> dict[str, float]:
    """Shard to the seconds since the last change that its connector has handed on, where that is known."""
    found = lags_of(observed)
    for name, record in memory.of(RestartRecord).items():
        found[name] = max(found.get(name, 0.0), (observed.taken_at - record.first_failed).total_seconds())
    return found


def _late(behind: Mapping[str, float], names: Iterable[str]) -> list[str]:
    """Those of the shards whose connectors may need old binlogs, the furthest behind first, and then the unknown."""
    late = sorted(
        (-behind.get(name, 0.0), name) for name in names if behind.get(name, BEHIND_SECONDS) >= BEHIND_SECONDS
    )
    return [name for _, name in late[:MOST_PLACES]]


def _summary(states: Collection[LogState]) -> SourceLogs:
    left = [state.seconds_left for state in states if state.seconds_left is not None]
    return SourceLogs(bytes=quantiles([state.bytes for state in states]), seconds_left=min(left, default=None))


def _changed(
    dataset: Dataset,
    shard: Shard,
    facts: SourceFacts,
    log: LogState | None,
    streaming: Collection[str] | None,
    shared_with: Sequence[str],
    memory: Memory,
    documents: Documents,
    now: datetime,
) -> DocumentChanges:
    before = memory.of(SourceRecord).get(shard.name)
    captured = shard.name in memory.of(CapturedRecord)
    after = judged(
        dataset,
        facts,
        before,
        captured=captured,
        now=now,
        log=log,
        streaming=streaming,
        shared_with=shared_with,
    )
    changes: DocumentChanges = {}
    if after != (before or SourceRecord()):
        empty = after == SourceRecord()
        changes[SourceRecord.key_of(shard.name)] = None if empty else after.document()
    for gap in new_gaps(before, after):
        key = f"{WATERMARK}{dataset.name}/{gap.table}/{shard.id}"
        if (mark := documents.get(key)) is not None:
            # No longer whole: a backfill of the table makes it so again.
            changes[key] = {**mark, "complete": None, "hole": {"since": None, "until": f"{now:%Y-%m-%d %H:%M:%S}Z"}}
    return changes
