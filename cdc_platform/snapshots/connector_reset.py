"""Start connectors from scratch: stopped, offsets forgotten or set, schema history and slot cleared, resumed.

Under the lock of the control plane, a wave at a time, so that no pass meets a connector
half way. Each step may be repeated: killed after any of them, the next wave begins again
with the same shards. The offset that was committed before is on record before it is forgotten,
and a hold keeps passes away from a shard that was left half way.

    lock -> source answers, position is there -> hold -> stop, no task left -> offset on record
         -> offsets, history, slot -> configuration with the run's snapshot.mode -> resume -> on record, hold gone

There is one connector a shard all the time, and it has no task while its offsets change.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from cdc_platform.clients.protocols import ControlLock, StateStore
from cdc_platform.connectors.identity import identity
from cdc_platform.errors import BadInput, CdcError, NotFound, SourceUnavailable
from cdc_platform.model.positions import Committed, MariaDbPosition, MySqlPosition
from cdc_platform.model.topology import BootstrapMode, Engine
from cdc_platform.snapshots.connector_waves import WaveItem, committed, each, hold, wait_idle
from cdc_platform.snapshots.ports import SnapshotPorts
from cdc_platform.snapshots.run_records import Phase, Run, ShardState, hold_key

T = TypeVar("T")

SNAPSHOT_MODE = "snapshot.mode"
# The schema as it is now, put before the saved position. Only for the first start: at each later
# one it would read the schema again.
RECOVERY = "recovery"
_SLOT_PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class _Start:
    """Where the stream begins, None: now; and whether the schema history that is there serves it."""

    offset: Mapping[str, Any] | None
    keep_history: bool = False


def snapshot_mode(mode: BootstrapMode, *, recover: bool) -> str:
    """Debezium's `snapshot.mode` for the first start; `recover`: at a position, without a schema history."""
    if mode is BootstrapMode.SNAPSHOT:
        return "initial"
    if mode is BootstrapMode.POSITION and recover:
        return RECOVERY
    return "no_data"


def history_serves(
    engine: Engine, base: str | None, start: Mapping[str, Any], committed: Mapping[str, Any] | None
) -> bool:
    """True when a schema history that begins at `base` and was written up to `committed` serves `start`."""
    now = Committed.parse(engine, committed).position
    wanted = start.get("gtids")
    if base is None or now is None or wanted is None:
        return False
    if engine is Engine.MARIADB:
        middle = MariaDbPosition.parse(wanted)
        return middle.covers(MariaDbPosition.parse(base)) and MariaDbPosition.parse(now).covers(middle)
    middle_set = MySqlPosition.parse(wanted)
    return middle_set.covers(MySqlPosition.parse(base)) and MySqlPosition.parse(now).covers(middle_set)


def reset_connectors(
    ports: SnapshotPorts, lock: ControlLock, state: StateStore, run: Run, wave: Sequence[WaveItem]
) -> dict[str, ShardState | CdcError]:
    """Start a wave of shards from scratch, in mode `run.mode`.

    Returns:
        By shard id: its state, STARTING, or what went wrong. After an error the shard may be
        stopped; its state says RESETTING then and its hold stays.

    Raises:
        LockLost: nothing more is changed.
        KafkaUnavailable, Fenced: the state topic cannot be written.
    """
    return _Reset(ports, lock, state, run).wave(wave)


def restore_configs(wave: Sequence[WaveItem]) -> dict[str, CdcError]:
    """Give connectors their usual configuration back, after a first start with `recovery`."""

    def one(item: WaveItem) -> None:
        if item.connect.connector(item.shard.name).config.get(SNAPSHOT_MODE) == RECOVERY:
            item.connect.update(item.shard.name, item.config)

    return {shard: error for shard, error in each(wave, one).items() if isinstance(error, CdcError)}


class _Reset:
    def __init__(self, ports: SnapshotPorts, lock: ControlLock, state: StateStore, run: Run) -> None:
        assert run.mode is not None
        self.ports = ports
        self.lock = lock
        self.state = state
        self.run = run
        self.mode = run.mode
        self.settings = ports.platform.settings

    def wave(self, wave: Sequence[WaveItem]) -> dict[str, ShardState | CdcError]:
        results: dict[str, ShardState | CdcError] = {}
        items = {item.shard.id: item for item in wave}

        def proceed(step: Callable[[WaveItem], T]) -> dict[str, T]:
            self.lock.check()
            done: dict[str, T] = {}
            for shard, answer in each(list(items.values()), step).items():
                if isinstance(answer, CdcError):
                    results[shard] = answer
                    del items[shard]
                else:
                    done[shard] = answer
            return done

        starts = proceed(self._start)
        hold(self.state, self.run, list(items.values()), f"reset by {self.run.kind} {self.run.id}")
        before = proceed(self._stop)
        now = datetime.now(UTC)
        states = {shard: self._resetting(items[shard], before[shard], now) for shard in items}
        self._write(states)
        proceed(lambda item: self._change(item, starts[item.shard.id]))
        now = datetime.now(UTC)
        started = {shard: states[shard].to(Phase.STARTING, now) for shard in items}
        self._write(started, release=True)
        return {**results, **started}

    def _start(self, item: WaveItem) -> _Start:
        """What the stream shall begin with. All that can be wrong is found here, before anything is touched."""
        own = identity(self.settings, item.dataset, item.shard)
        self.ports.sources.check_publication(item.dataset, item.shard, own)
        if self.mode is not BootstrapMode.POSITION:
            self.ports.sources.check(item.dataset, item.shard)
            return _Start(None)
        assert item.position is not None
        offset = self.ports.sources.start_offset(item.dataset, item.shard, own, item.position)
        if own.schema_history_topic is None:
            return _Start(offset)
        keep = history_serves(item.dataset.engine, item.base, offset, self._committed(item))
        if not keep and not self.run.request.schema_unchanged:
            raise BadInput(
                "its schema history does not reach back there: the tables as they are now would be taken for "
                "those of then.",
                where=f"shard {item.shard.name}",
                field="schema_unchanged",
                cure="If no captured table was altered since, say so with schema_unchanged; else use incremental.",
            )
        return _Start(offset, keep)

    def _committed(self, item: WaveItem) -> Mapping[str, Any] | None:
        try:
            return committed(item.connect, item.shard.name)
        except NotFound:
            return None

    def _stop(self, item: WaveItem) -> Mapping[str, Any] | None:
        name = item.shard.name
        try:
            item.connect.stop(name)
        except NotFound:
            item.connect.create(name, self._first_config(item, _Start(None)), stopped=True)
        wait_idle(item.connect, name)
        return self._committed(item)

    def _resetting(self, item: WaveItem, before: Mapping[str, Any] | None, now: datetime) -> ShardState:
        if item.state is None:
            return ShardState(phase=Phase.RESETTING, since=now, began=now, reset=True, before=before)
        # What an earlier attempt noted is from before the reset, and so is kept.
        noted = item.state.before if item.state.before is not None else before
        return replace(item.state, phase=Phase.RESETTING, since=now, reset=True, before=noted, error=None)

    def _change(self, item: WaveItem, start: _Start) -> None:
        name = item.shard.name
        own = identity(self.settings, item.dataset, item.shard)
        item.connect.reset_offsets(name)
        if own.schema_history_topic is not None and not start.keep_history:
            self.ports.histories.clear_topics([own.schema_history_topic])
        if start.offset is None:
            self._drop_slot(item)
        else:
            item.connect.alter_offsets(name, [{"partition": {"server": name}, "offset": dict(start.offset)}])
        self.ports.sources.publish(item.dataset, item.shard, own)
        item.connect.update(name, self._first_config(item, start))
        wait_idle(item.connect, name)
        item.connect.resume(name)

    def _drop_slot(self, item: WaveItem) -> None:
        """A slot that stays would send all that was written since: this start is to be from now on."""
        own = identity(self.settings, item.dataset, item.shard)
        end = time.monotonic() + _SLOT_PATIENCE
        while True:
            self.lock.check()
            try:
                self.ports.sources.drop_slot(item.dataset, item.shard, own)
                return
            except SourceUnavailable:
                # The stopped task's walsender may still be there for a moment.
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)

    def _first_config(self, item: WaveItem, start: _Start) -> dict[str, str]:
        mode = snapshot_mode(self.mode, recover=item.dataset.engine.reads_binlog and not start.keep_history)
        return {**item.config, SNAPSHOT_MODE: mode}

    def _write(self, states: Mapping[str, ShardState], *, release: bool = False) -> None:
        records: dict[str, Mapping[str, Any] | None] = {
            self.run.shard_key(shard): state.document() for shard, state in states.items()
        }
        if release:
            names = [f"{self.run.dataset}.{shard}" for shard in states]
            records |= {hold_key(name): None for name in names}
            # While it takes an initial snapshot it sends no heartbeats: it is new, not silent.
            records |= {f"live/{name}": None for name in names}
        self.lock.check()
        self.state.write(records)
