"""Repair: re-emit just the keys that are missing or wrong, then prove the shards again.

Find (`repair_plan`): the shards are verified again, so nothing is repaired that healed meanwhile. Emit:
a backfill whose conditions name the keys of each shard, in waves (`snapshots/`: never by a signal, which
may leave stale rows). Extra rows get a tombstone, and only when that was asked for. Prove: the same
verification once more. Each wave is a snapshot run of its own name, which a repair that is started again joins.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from cdc_platform.canonical.key_conditions import key_condition
from cdc_platform.clients.kafka.tombstones import Tombstone, send_tombstones
from cdc_platform.clients.sources.source import Key
from cdc_platform.connectors.identity import table_topic
from cdc_platform.connectors.routing import SHARD_HEADER
from cdc_platform.errors import Unavailable
from cdc_platform.model.naming import ShardName, some_of
from cdc_platform.model.topology import Topology
from cdc_platform.snapshots.ports import SnapshotPorts
from cdc_platform.snapshots.progress_events import Listener
from cdc_platform.snapshots.request import Load, Request, RunKind
from cdc_platform.snapshots.run_lifecycle import finish, open_run, slices
from cdc_platform.snapshots.slice_runner import work_slice
from cdc_platform.verification.ports import VerificationPorts
from cdc_platform.verification.proof.completeness import plan_verification, verify_shards
from cdc_platform.verification.proof.verdicts import ShardVerdict, Verdict
from cdc_platform.verification.repair.foreign_rows import find_foreign, table_shape
from cdc_platform.verification.repair.repair_plan import RepairPlan, Report, ShardRepair, plan_records, proof_id

# On a tombstone: which repair wrote it.
REPAIR_HEADER = "cdc.repair"

# Keys of one shard in a wave: a connector's condition is parsed for each chunk, and is in each offset it commits.
WAVE_KEYS = 1_000
# Text of all conditions of a wave: they are one record of the state topic.
WAVE_BYTES = 400_000
# Shards that read at once; so few rows are no load for a host.
WAVE_SHARDS = 16

# Extra rows whose keys are read, and get tombstones, at once.
REMOVE_ROWS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairReport:
    """What a repair did. `proof` are the verdicts afterwards, `foreign` the rows left of shards without one."""

    plan: RepairPlan
    emitted: int
    tombstoned: int
    proof: tuple[ShardVerdict, ...]
    seconds: float
    foreign: Mapping[str, int] = field(default_factory=dict)

    @property
    def proven(self) -> bool:
        """True when every shard is proven now; one that was left alone and not proven is not."""
        return not self.unproven and all(verdict.verdict is Verdict.PROVEN for verdict in self.proof)

    @property
    def unproven(self) -> Mapping[str, str]:
        """Shard id to why it was left alone, for the shards that were not proven afterwards either."""
        taken = {verdict.shard for verdict in self.proof}
        left = {shard: reason for shard, reason in self.plan.left.items() if shard not in taken}
        return left | {shard: f"{rows} rows are left in the topic" for shard, rows in self.foreign.items() if rows}

    def document(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {**msgspec.to_builtins(self), "proof": [msgspec.to_builtins(one.document()) for one in self.proof]}

    def sentence(self) -> str:
        """It in one sentence."""
        good = sum(1 for verdict in self.proof if verdict.verdict is Verdict.PROVEN)
        gone = sum(1 for shard, rows in self.foreign.items() if not rows and shard not in self.unproven)
        removed = f", {self.tombstoned} extra rows removed" if self.tombstoned else ""
        left = f"; left alone: {some_of(sorted(self.unproven), 5)}" if self.unproven else ""
        return (
            f"Re-emitted {self.emitted} keys of {self.plan.dataset}.{self.plan.table}{removed}; "
            f"{good} of {len(self.proof) + len(self.unproven)} shards proven"
            f"{f', {gone} shards that are gone have no row left' if gone else ''}{left}; {self.seconds:.1f} s."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairPorts:
    """The ports systems: those of a proof, and those of snapshots."""

    proof: VerificationPorts
    snapshots: SnapshotPorts

    def tombstones(self, topic: str, tombstones: Sequence[Tombstone]) -> None:
        """Write them."""
        send_tombstones(self.proof.platform.settings.kafka, topic, tombstones)


def run_repair(
    ports: RepairPorts,
    topology: Topology,
    plan: RepairPlan,
    *,
    report: Report = lambda text: None,
) -> RepairReport:
    """Do what the plan says, and prove the shards. The same plan again goes on where it was killed.

    Raises:
        KafkaUnavailable, SourceUnavailable, SourceRejected, LockHeld, Unavailable (a snapshot failed): run it
            again under the same id.
        Fenced: another process has taken this run over.
    """
    began = time.monotonic()
    store = ports.snapshots.writer(f"repair-{plan.run_id}")
    records = plan_records(plan)
    store.write(records)
    if plan.tombstones and plan.removed is None:
        # Before rows are sent again: a row that moved to another partition must not come before its end here.
        plan = replace(plan, removed=_remove(ports, topology, plan, report))
        store.write(plan_records(plan))
    emitted = _emit(ports, topology, plan, report)
    report("Proving the shards again.")
    proof: list[ShardVerdict] = []
    known = {shard.id for shard in topology.shards.get(plan.dataset, ())}
    foreign = [shard.shard for shard in plan.shards if shard.shard not in known]
    left = find_foreign(ports.proof, topology, plan.dataset, plan.table, foreign, most=0) if foreign else {}
    shards = [shard.shard for shard in plan.shards if shard.shard in known]
    for part in plan_verification(topology, plan.dataset, plan.table, shards) if shards else ():
        proof += verify_shards(ports.proof, topology, part, run_id=proof_id(plan.run_id))
    store.write(dict.fromkeys(records))
    return RepairReport(
        plan=plan,
        emitted=emitted,
        tombstoned=plan.removed or 0,
        proof=tuple(proof),
        foreign={shard: left[shard].rows if shard in left else 0 for shard in foreign},
        seconds=time.monotonic() - began,
    )


def _emit(ports: RepairPorts, topology: Topology, plan: RepairPlan, report: Report) -> int:
    """Re-emit the keys, wave by wave. The shards of a wave are begun under one lock and read side by side."""
    todo = [shard for shard in plan.shards if shard.emit]
    done = 0
    for number, wave in enumerate(waves(_conditions(ports.proof, topology, plan, todo))):
        request = Request(
            kind=RunKind.BACKFILL,
            dataset=plan.dataset,
            tables=(plan.table,),
            shards=tuple(wave),
            conditions={shard: condition.sql for shard, condition in wave.items()},
            load=Load(max_parallel_shards=WAVE_SHARDS, max_parallel_per_host=WAVE_SHARDS),
        )
        _backfill(ports.snapshots, request, f"repair-{plan.run_id}-{number}", report)
        done += sum(condition.keys for condition in wave.values())
        report(f"{done} of {plan.keys} keys re-emitted.")
    return done


@dataclass(frozen=True, slots=True)
class KeyCondition:
    """Some keys of one shard as SQL, and how many they are."""

    shard: str
    sql: str
    keys: int


def waves(conditions: Iterable[KeyCondition]) -> Iterator[dict[str, KeyCondition]]:
    """Packs them by shard: no shard twice in a wave, and no more text than a record may have. Pure."""
    packed: list[dict[str, KeyCondition]] = []
    sizes: list[int] = []
    for condition in conditions:
        size = len(condition.sql.encode())
        for number, wave in enumerate(packed):
            if condition.shard not in wave and sizes[number] + size <= WAVE_BYTES:
                wave[condition.shard] = condition
                sizes[number] += size
                break
        else:
            packed.append({condition.shard: condition})
            sizes.append(size)
    yield from packed


def _conditions(
    ports: VerificationPorts, topology: Topology, plan: RepairPlan, todo: Sequence[ShardRepair]
) -> Iterator[KeyCondition]:
    """The keys of each shard, so many at a time, as its table's key is typed."""
    with ThreadPoolExecutor(WAVE_SHARDS, thread_name_prefix="repair") as pool:
        shapes = list(pool.map(lambda shard: table_shape(ports, topology, plan.dataset, plan.table, shard.shard), todo))
    for shard, shape in zip(todo, shapes, strict=True):
        for at in range(0, len(shard.emit), WAVE_KEYS):
            keys: Sequence[Key] = shard.emit[at : at + WAVE_KEYS]
            yield KeyCondition(shard.shard, key_condition(shape, keys), len(keys))


class _Progress(Listener):
    """Reports what happens in a wave."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def message(self, text: str) -> None:
        """Something happened, in one sentence."""
        self._report(text)


def _backfill(ports: SnapshotPorts, request: Request, run_id: str, report: Report) -> None:
    """One wave, as a backfill: begun once, and joined when it is started again; what failed then is tried once more."""
    run = open_run(ports, request, run_id)
    if run.finished is not None and run.failed:
        _backfill(ports, replace(request, shards=(), failed_of=run.id), f"{run_id}-again", report)
        return
    if run.finished is None:
        parts = range(len(slices(run)))
        with ThreadPoolExecutor(len(parts), thread_name_prefix="repair") as pool:
            list(pool.map(lambda number: work_slice(ports, run, number, _Progress(report)), parts))
        run = finish(ports, run)
    if run.failed or run.finished is None:
        raise Unavailable(
            f"the snapshot of wave {run.id} failed in {run.failed} of {len(run.shards)} shards.",
            where=request.dataset,
            cure="`cdc-platform status` says why; then repair again under the same id.",
        )


def _remove(ports: RepairPorts, topology: Topology, plan: RepairPlan, report: Report) -> int:
    """Tombstones for the extra rows, under the very keys that the topic has, with the headers of the shard."""
    topic = table_topic(topology.dataset(plan.dataset), topology.dataset(plan.dataset).table(plan.table))
    places = sorted((*place, shard.shard) for shard in plan.shards for place in shard.extra)
    done = 0
    with closing(ports.proof.records(topic)) as records:
        for at in range(0, len(places), REMOVE_ROWS):
            extra: dict[int, dict[int, str]] = {}
            for partition, offset, shard in places[at : at + REMOVE_ROWS]:
                extra.setdefault(partition, {})[offset] = str(ShardName(plan.dataset, shard))
            tombstones = [
                Tombstone(
                    partition=partition, key=key, headers={SHARD_HEADER: owners[offset], REPAIR_HEADER: plan.run_id}
                )
                for partition, owners in extra.items()
                for offset, (key, _) in records.fetch(partition, list(owners)).items()
                if key is not None
            ]
            ports.tombstones(topic, tombstones)
            done += len(tombstones)
            report(f"{done} of {len(places)} extra rows removed.")
    return done
