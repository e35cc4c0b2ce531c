"""Repair: re-emit just the keys that are missing or wrong, then prove the shards again.

Find: the shards are verified anew, so nothing is repaired that healed meanwhile. Emit: a
backfill whose condition names the keys, some at a time (`snapshots/`: never by a signal, which
may leave stale rows). Extra rows get a tombstone, and only when that was asked for. Prove: the
same verification once more.

What was found is recorded under `repair/<run>/<shard>` before anything is sent, and each wave
is a run of its own name: a repair that was killed and is started again under its id goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from threading import Event, Lock
from typing import Any

import msgspec

from cdc_platform.canonical.conditions import key_condition
from cdc_platform.clients.sources.protocol import Key
from cdc_platform.clients.tombstones import Tombstone, send_tombstones
from cdc_platform.connectors.identity import table_topic
from cdc_platform.connectors.routing import SHARD_HEADER
from cdc_platform.errors import BadInput, CdcError, LockHeld, RepairRefused, SourceRejected, Unavailable
from cdc_platform.snapshots import opening
from cdc_platform.snapshots.outside import Outside as SnapshotOutside
from cdc_platform.snapshots.request import Kind, Request
from cdc_platform.snapshots.runner import Runner
from cdc_platform.snapshots.told import Silent
from cdc_platform.topology import Topology
from cdc_platform.verification.completeness import plan_verification, verify_shards
from cdc_platform.verification.outside import Outside, Policy
from cdc_platform.verification.verdicts import KeyDifference, ShardVerdict, Verdict

REPAIR = "repair/"

# On a tombstone: which repair wrote it.
REPAIR_HEADER = "cdc.repair"

# Keys a wave. Each stops the shard's stream for a second or two; its condition is parsed for each chunk.
WAVE_KEYS = 1_000
# Shards that snapshot at once.
WAVE_SHARDS = 16
CAP = 10_000

# A wave waits so long for passes and other waves.
_LOCK_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRepair:
    """What is to be done for one shard: keys to re-emit, and (partition, offset) of rows that are extra."""

    shard: str
    emit: tuple[Key, ...] = ()
    extra: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairPlan:
    """What a repair would do. `left` says by shard why something is left alone.

    `tombstones`: extra rows are removed from the topic.
    """

    run_id: str
    dataset: str
    table: str
    created: datetime
    shards: tuple[ShardRepair, ...]
    tombstones: bool = False
    left: Mapping[str, str] = field(default_factory=dict)

    @property
    def keys(self) -> int:
        """Keys that are re-emitted."""
        return sum(len(shard.emit) for shard in self.shards)

    @property
    def extra(self) -> int:
        """Rows that the topic has and the source has not."""
        return sum(len(shard.extra) for shard in self.shards)

    def sentence(self) -> str:
        """It in one sentence."""
        shards = sum(1 for shard in self.shards if shard.emit or shard.extra)
        fate = "get tombstones" if self.tombstones else "are left (ask for tombstones)"
        more = f"; {self.extra} extra rows {fate}" if self.extra else ""
        left = f"; left alone: {', '.join(sorted(self.left)[:5])}" if self.left else ""
        return f"Re-emit {self.keys} keys of {self.dataset}.{self.table} in {shards} shards{more}{left}."


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairReport:
    """What a repair did. `proof` are the verdicts afterwards."""

    plan: RepairPlan
    emitted: int
    tombstoned: int
    proof: tuple[ShardVerdict, ...]
    seconds: float

    @property
    def proven(self) -> bool:
        """True when every repaired shard is proven now."""
        return all(verdict.verdict is Verdict.PROVEN for verdict in self.proof)

    def sentence(self) -> str:
        """It in one sentence."""
        good = sum(1 for verdict in self.proof if verdict.verdict is Verdict.PROVEN)
        removed = f", {self.tombstoned} extra rows removed" if self.tombstoned else ""
        return (
            f"Re-emitted {self.emitted} keys of {self.plan.dataset}.{self.plan.table}{removed}; "
            f"{good} of {len(self.proof)} shards proven; {self.seconds:.1f} s."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairOutside:
    """The outside systems: those of a proof, and those of snapshots by signal."""

    proof: Outside
    snapshots: SnapshotOutside

    def tombstones(self, topic: str, tombstones: Sequence[Tombstone]) -> None:
        """Write them."""
        send_tombstones(self.proof.platform.settings.kafka, topic, tombstones)


Tell = Callable[[str], None]


def find_repair(
    outside: RepairOutside,
    topology: Topology,
    dataset: str,
    table: str,
    shards: Sequence[str],
    *,
    run_id: str,
    tombstones: bool = False,
    cap: int = CAP,
    tell: Tell = lambda text: None,
) -> RepairPlan:
    """What is wrong in these shards now; changes nothing.

    Raises:
        RepairRefused: more than `cap` keys differ: a backfill is the better cure.
        TopologyError: no such dataset, table or shard.
    """
    policy = replace(Policy.of(topology.dataset(dataset)), samples=cap + 1)
    repairs: list[ShardRepair] = []
    left: dict[str, str] = {}
    for part in plan_verification(topology, dataset, table, shards):
        tell(f"Verifying {len(part.shards)} shards.")
        for verdict in verify_shards(outside.proof, topology, part, run_id=f"{run_id}-find", policy=policy):
            if verdict.verdict is Verdict.MISMATCHED:
                repair, problem = _of_verdict(verdict)
                repairs.append(repair)
            else:
                problem = "" if verdict.verdict is Verdict.PROVEN else f"{verdict.verdict}: {verdict.reason}"
            if problem:
                left[verdict.shard] = problem
    plan = RepairPlan(
        run_id=run_id,
        dataset=dataset,
        table=table,
        created=datetime.now(UTC),
        shards=tuple(repairs),
        tombstones=tombstones,
        left=left,
    )
    _check_cap(plan, cap)
    return plan


def keys_repair(
    topology: Topology,
    dataset: str,
    table: str,
    keys: Mapping[str, Sequence[Key]],
    *,
    run_id: str,
    cap: int = CAP,
) -> RepairPlan:
    """A repair of named keys, by shard; they are re-emitted whatever the topic holds.

    Raises:
        RepairRefused: more than `cap`. TopologyError: no such dataset, table or shard.
    """
    topology.dataset(dataset).table(table)
    repairs = tuple(
        ShardRepair(shard=topology.shard(dataset, shard).id, emit=tuple(dict.fromkeys(found)))
        for shard, found in sorted(keys.items())
    )
    plan = RepairPlan(run_id=run_id, dataset=dataset, table=table, created=datetime.now(UTC), shards=repairs)
    _check_cap(plan, cap)
    return plan


def run_repair(
    outside: RepairOutside,
    topology: Topology,
    plan: RepairPlan,
    *,
    tell: Tell = lambda text: None,
) -> RepairReport:
    """Do what the plan says, and prove the shards. The same plan again goes on where it was killed.

    Raises:
        KafkaUnavailable, SourceUnavailable, SourceRejected, LockHeld, Unavailable (a snapshot failed): run it
            again under the same id.
        Fenced: another process has taken this run over.
    """
    began = time.monotonic()
    name = f"repair-{plan.run_id}"
    store = outside.snapshots.writer(name)
    store.write({f"{REPAIR}{plan.run_id}/{shard.shard}": {"plan": _document(plan, shard)} for shard in plan.shards})
    emitted = _emit(outside, topology, plan, tell)
    tombstoned = _remove(outside, topology, plan) if plan.tombstones else 0
    tell("Proving the shards again.")
    proof: list[ShardVerdict] = []
    shards = [shard.shard for shard in plan.shards]
    for part in plan_verification(topology, plan.dataset, plan.table, shards) if shards else ():
        proof += verify_shards(outside.proof, topology, part, run_id=f"{plan.run_id}-proof")
    store.write({f"{REPAIR}{plan.run_id}/{shard.shard}": None for shard in plan.shards})
    return RepairReport(
        plan=plan,
        emitted=emitted,
        tombstoned=tombstoned,
        proof=tuple(proof),
        seconds=time.monotonic() - began,
    )


def recorded_plan(records: Mapping[str, Mapping[str, Any]], run_id: str) -> RepairPlan | None:
    """The plan of a run that was begun and has not ended; None when there is none."""
    prefix = f"{REPAIR}{run_id}/"
    found = [document["plan"] for key, document in sorted(records.items()) if key.startswith(prefix)]
    if not found:
        return None
    shards = tuple(msgspec.convert(document["shard"], ShardRepair) for document in found)
    first = found[0]
    return RepairPlan(
        run_id=run_id,
        dataset=first["dataset"],
        table=first["table"],
        created=datetime.fromisoformat(first["created"]),
        shards=shards,
        tombstones=first["tombstones"],
    )


def _document(plan: RepairPlan, shard: ShardRepair) -> dict[str, Any]:
    return {
        "dataset": plan.dataset,
        "table": plan.table,
        "created": plan.created.isoformat(),
        "tombstones": plan.tombstones,
        "shard": asdict(shard),
    }


def _of_verdict(verdict: ShardVerdict) -> tuple[ShardRepair, str]:
    named = verdict.missing + verdict.extra + verdict.mismatched
    emit = tuple(key for sample in verdict.samples if sample.kind != "extra" and (key := _key(sample)))
    extra = tuple(
        (sample.partition, sample.offset)
        for sample in verdict.samples
        if sample.kind == "extra" and sample.partition is not None and sample.offset is not None
    )
    unnamed = named - len(emit) - len(extra)
    problem = f"{unnamed} of {named} keys cannot be named" if unnamed else ""
    return ShardRepair(shard=verdict.shard, emit=emit, extra=extra), problem


def _key(sample: KeyDifference) -> Key | None:
    """The key's values in the order of its columns; None for one that only its hash names."""
    if sample.key.startswith("#"):
        return None
    return tuple(str(value) for value in json.loads(sample.key).values())


def _check_cap(plan: RepairPlan, cap: int) -> None:
    if plan.keys + plan.extra > cap:
        raise RepairRefused(
            f"{plan.keys + plan.extra} keys differ, {cap} are allowed.",
            where=f"{plan.dataset}.{plan.table}",
            cure="A backfill re-emits whole shards; or allow more with --cap.",
        )


def _emit(outside: RepairOutside, topology: Topology, plan: RepairPlan, tell: Tell) -> int:
    """Re-emit the keys: a few shards side by side, one wave of a shard after the other."""
    todo = [shard for shard in plan.shards if shard.emit]
    if not todo:
        return 0
    done, lock = 0, Lock()
    stop = Event()

    def one(shard: ShardRepair) -> None:
        nonlocal done
        for run_id, request, keys in _waves(outside, topology, plan, shard):
            if stop.is_set():
                return
            try:
                _backfill(outside.snapshots, request, run_id)
            except CdcError:
                stop.set()
                raise
            with lock:
                done += keys
                tell(f"{done} of {plan.keys} keys re-emitted.")

    with ThreadPoolExecutor(min(WAVE_SHARDS, len(todo)), thread_name_prefix="repair") as pool:
        list(pool.map(one, todo))
    return done


def _backfill(outside: SnapshotOutside, request: Request, run_id: str) -> None:
    """One wave, as a backfill of its own: begun once, joined by whoever starts it again."""
    end = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            run = opening.open_run(outside, request, run_id)
            break
        except LockHeld:
            # A pass runs, or another shard's wave begins.
            if time.monotonic() > end:
                raise
    if run.finished is None:
        for number, part in enumerate(opening.slices(run)):
            Runner(outside, run, part, name=f"{run.id}-{number}", listener=Silent()).work()
        run = opening.finish(outside, run)
    if run.failed or run.finished is None:
        raise Unavailable(
            f"the snapshot of wave {run.id} failed.",
            where=f"{request.dataset}.{request.shards[0]}",
            cure="`cdc-platform status` says why; then repair again.",
        )


def _waves(
    outside: RepairOutside, topology: Topology, plan: RepairPlan, shard: ShardRepair
) -> Iterator[tuple[str, Request, int]]:
    """Run id, request and number of keys of each wave."""
    dataset = topology.dataset(plan.dataset)
    place = topology.shard(plan.dataset, shard.shard)
    source = outside.proof.source(dataset, place, dataset.table(plan.table))
    try:
        shape = source.inspect().shape
    finally:
        source.close()
    if shape is None:
        raise SourceRejected(
            "its table cannot be read as the proof reads it.", where=place.name, cure="`cdc-platform verify` says why."
        )
    for number, at in enumerate(range(0, len(shard.emit), WAVE_KEYS)):
        keys = shard.emit[at : at + WAVE_KEYS]
        request = Request(
            kind=Kind.BACKFILL,
            dataset=plan.dataset,
            tables=(plan.table,),
            shards=(shard.shard,),
            condition=key_condition(shape, keys),
        )
        yield f"repair-{plan.run_id}-{shard.shard}-{number}", request, len(keys)


def _remove(outside: RepairOutside, topology: Topology, plan: RepairPlan) -> int:
    """Tombstones for the extra rows, under the very keys that the topic has, with the headers of the shard."""
    dataset = topology.dataset(plan.dataset)
    topic = table_topic(dataset, dataset.table(plan.table))
    places: dict[int, dict[int, str]] = {}
    for shard in plan.shards:
        for partition, offset in shard.extra:
            places.setdefault(partition, {})[offset] = topology.shard(plan.dataset, shard.shard).name
    if not places:
        return 0
    records = outside.proof.records(topic)
    try:
        tombstones = [
            Tombstone(partition=partition, key=key, headers={SHARD_HEADER: owners[offset], REPAIR_HEADER: plan.run_id})
            for partition, owners in places.items()
            for offset, (key, _) in records.fetch(partition, list(owners)).items()
            if key is not None
        ]
    finally:
        records.close()
    outside.tombstones(topic, tombstones)
    return len(tombstones)


def parse_keys(given: Sequence[str]) -> dict[str, tuple[Key, ...]]:
    """`SHARD:VALUE`, or `SHARD:["A", "B"]` for a key of several columns, to keys by shard. Raises BadInput."""
    found: dict[str, list[Key]] = {}
    for text in given:
        shard, _, value = text.partition(":")
        try:
            parts = json.loads(value) if value.startswith("[") else [value]
        except json.JSONDecodeError:
            parts = []
        if not shard or not value or not parts:
            raise BadInput(
                f"{text!r} is no key.", field="--keys", cure='Write SHARD:VALUE, or SHARD:["A", "B"] for two columns.'
            )
        found.setdefault(shard, []).append(tuple(str(part) for part in parts))
    return {shard: tuple(keys) for shard, keys in found.items()}
