"""Changes to many connectors at once, under the lock: what all kinds of wave need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from cdc_platform.clients.connect.stopping import wait_until_stopped
from cdc_platform.clients.protocols import Connect, StateStore
from cdc_platform.errors import BadInput, CdcError, LockLost
from cdc_platform.model.topology import Dataset, Shard
from cdc_platform.snapshots.run_records import Run, ShardState, hold_key

T = TypeVar("T")

_PARALLEL = 16
_STOP_PATIENCE = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveItem:
    """One shard of a wave.

    `connect` checks the lock before each change. `config` is what a pass would give the shard's connector.
    `position` is where its stream shall begin, and `base` from where on its schema history is known to reach.
    `attempt`, `tables` (Debezium's names) and `chunk_rows` (None: as `config` has it) are for incremental snapshots.
    """

    dataset: Dataset
    shard: Shard
    connect: Connect
    config: Mapping[str, str]
    state: ShardState | None
    position: str | None = None
    base: str | None = None
    attempt: int = 1
    tables: tuple[str, ...] = ()
    chunk_rows: int | None = None
    # See `SourceLogs.settled_transaction`.
    settled: int | None = None
    # It was asked for before, and is only to be begun again if it still runs.
    nudged: bool = False


def each(items: Sequence[WaveItem], step: Callable[[WaveItem], T]) -> dict[str, T | CdcError]:
    """The step for all items side by side: shard id to the answer or the error. A lost lock ends it all."""

    def one(item: WaveItem) -> T | CdcError:
        try:
            return step(item)
        except LockLost:
            raise
        except CdcError as error:
            return error

    if not items:
        return {}
    with ThreadPoolExecutor(max_workers=min(_PARALLEL, len(items)), thread_name_prefix="wave") as pool:
        return {item.shard.id: answer for item, answer in zip(items, pool.map(one, items), strict=True)}


def hold(state: StateStore, run: Run, items: Sequence[WaveItem], reason: str) -> None:
    """Passes leave these shards alone from now on."""
    now = datetime.now(UTC)
    document = {"run": run.id, "reason": reason, "since": now.isoformat()}
    state.write({hold_key(item.shard.name): document for item in items})


def stop(connect: Connect, name: str) -> None:
    """Stop the connector and wait until it has no task. Raises NotFound, and Unavailable after a minute."""
    connect.stop(name)
    wait_idle(connect, name)


def wait_idle(connect: Connect, name: str) -> None:
    """Wait until the connector is STOPPED and has no task; one just made may not be shown yet."""
    wait_until_stopped(connect, name, timeout=_STOP_PATIENCE, just_created=True)


def committed(connect: Connect, name: str) -> dict[str, Any] | None:
    """The connector's committed source offset; None when it has none. Raises NotFound."""
    found = list(connect.offsets(name))
    return dict(found[0]["offset"]) if found else None


def is_permanent(error: CdcError) -> bool:
    """True when the same request would fail again."""
    return isinstance(error, BadInput)
