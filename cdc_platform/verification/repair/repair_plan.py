"""What a repair would do: which keys to re-emit, which rows are extra, and the plan on record.

What was found is recorded under `repair/<run>/<shard>` before anything is sent: a repair that was
killed and is started again under its id goes on from it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from cdc_platform.clients.sources.source import Key
from cdc_platform.errors import BadInput, RepairRefused, TopologyError
from cdc_platform.model.naming import some_of
from cdc_platform.model.topology import Topology
from cdc_platform.verification.ports import VerificationPolicy, VerificationPorts
from cdc_platform.verification.proof.completeness import plan_verification, verify_shards
from cdc_platform.verification.proof.verdicts import EXTRA_KINDS, MOVED, KeyDifference, ShardVerdict, Verdict
from cdc_platform.verification.repair.foreign_rows import find_foreign

REPAIR = "repair/"

CAP = 10_000

# Text of keys and places in one record of the state topic: a record may have 1 MB.
RECORD_BYTES = 400_000

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRepair:
    """What is to be done for one shard: keys to re-emit, and (partition, offset) of rows that are extra."""

    shard: str
    emit: tuple[Key, ...] = ()
    extra: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairPlan:
    """What a repair would do. `left` says by shard why something is left alone.

    `tombstones`: extra rows are removed from the topic; `removed` is how many were, once they are. `counts` has, by
    shard, the keys to re-emit and the extra rows that were found, where `shards` names only the first of them.
    """

    run_id: str
    dataset: str
    table: str
    created: datetime
    shards: tuple[ShardRepair, ...]
    tombstones: bool = False
    left: Mapping[str, str] = field(default_factory=dict)
    removed: int | None = None
    counts: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def keys(self) -> int:
        """Keys to re-emit."""
        return sum(self.of(shard)[0] for shard in self.shards)

    @property
    def extra(self) -> int:
        """Rows that the topic has and the source has not."""
        return sum(self.of(shard)[1] for shard in self.shards)

    def of(self, shard: ShardRepair) -> tuple[int, int]:
        """How many keys of the shard are to be re-emitted, and how many rows of it are extra."""
        return self.counts.get(shard.shard, (len(shard.emit), len(shard.extra)))

    def check_cap(self, cap: int) -> None:
        """Raises RepairRefused when this is more than `cap` keys and rows."""
        if self.keys + self.extra <= cap:
            return
        raise RepairRefused(
            f"{self.keys + self.extra} keys differ, {cap} are allowed: {self.keys} to re-emit, {self.extra} extra.",
            where=f"{self.dataset}.{self.table}",
            cure=f"Allow them with --cap {self.keys + self.extra}."
            + (" A backfill re-emits whole shards; it removes no extra row." if self.keys > cap else ""),
        )

    def sentence(self) -> str:
        """It in one sentence."""
        shards = sum(1 for shard in self.shards if shard.emit or shard.extra)
        fate = "get tombstones" if self.tombstones else "are left (ask for tombstones)"
        more = f"; {self.extra} extra rows {fate}" if self.extra else ""
        left = f"; left alone: {some_of(sorted(self.left), 5)}" if self.left else ""
        return f"Re-emit {self.keys} keys of {self.dataset}.{self.table} in {shards} shards{more}{left}."


def find_repair(
    ports: VerificationPorts,
    topology: Topology,
    dataset: str,
    table: str,
    shards: Sequence[str],
    *,
    run_id: str,
    foreign: Sequence[str] = (),
    tombstones: bool = False,
    cap: int = CAP,
    report: Report = lambda text: None,
) -> RepairPlan:
    """What is wrong in these shards now; changes nothing. No more than `cap` keys and rows are named, all are counted.

    `foreign`: shards that the topology lacks, whose rows are all extra.

    Raises:
        TopologyError: no such dataset, table or shard. What `find_foreign` raises.
    """
    policy = replace(VerificationPolicy.of(topology.dataset(dataset)), samples=cap + 1)
    repairs: list[ShardRepair] = []
    left: dict[str, str] = {}
    counts: dict[str, tuple[int, int]] = {}
    for shard, found in (find_foreign(ports, topology, dataset, table, foreign, most=cap) if foreign else {}).items():
        repairs.append(ShardRepair(shard=shard, extra=found.places))
        counts[shard] = (0, found.rows)
    for part in plan_verification(topology, dataset, table, shards):
        report(f"Verifying {len(part.shards)} shards.")
        for verdict in verify_shards(ports, topology, part, run_id=f"{run_id}-find", policy=policy):
            if verdict.verdict is Verdict.MISMATCHED or (verdict.verdict is Verdict.UNVERIFIABLE and verdict.samples):
                repair, problem = _of_verdict(verdict, cap, tombstones=tombstones)
                repairs.append(repair)
                emit = max(len(repair.emit), verdict.missing + verdict.mismatched)
                counts[verdict.shard] = (emit, max(len(repair.extra), verdict.extra))
            else:
                problem = "" if verdict.verdict is Verdict.PROVEN else f"{verdict.verdict}: {verdict.reason}"
            if problem:
                left[verdict.shard] = problem
    return RepairPlan(
        run_id=run_id,
        dataset=dataset,
        table=table,
        created=datetime.now(UTC),
        shards=tuple(repairs),
        tombstones=tombstones,
        left=left,
        counts=counts,
    )


def known_and_gone(topology: Topology, dataset: str, texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Shards as people name them: ids of those that the topology has, and the other names as they are."""
    known, gone = list[str](), list[str]()
    for text in texts:
        try:
            known += [shard.id for shard in topology.choose(dataset, [text])]
        except TopologyError:
            topology.dataset(dataset)
            gone.append(text)
    return known, gone


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
    plan.check_cap(cap)
    return plan


def proof_id(run_id: str) -> str:
    """The run id that the verdicts after a repair have."""
    return f"{run_id}-proof"


def plan_records(plan: RepairPlan) -> dict[str, Mapping[str, Any]]:
    """The plan as the state topic holds it: a record for each shard, and more where one would be too large."""
    shards = {shard: ShardRepair(shard=shard) for shard in plan.left} | {shard.shard: shard for shard in plan.shards}
    return {
        f"{REPAIR}{plan.run_id}/{name}{f'/{number:05d}' if number else ''}": {"plan": _document(plan, part)}
        for name, shard in shards.items()
        for number, part in enumerate(_parts(shard))
    }


def _parts(shard: ShardRepair) -> Iterator[ShardRepair]:
    """The same in parts, each some RECORD_BYTES of JSON at most; one at least."""
    emit, extra, size = list[Key](), list[tuple[int, int]](), 0
    for at, item in enumerate((*shard.emit, *shard.extra)):
        size += len(json.dumps(item)) + 2
        if size > RECORD_BYTES and (emit or extra):
            yield ShardRepair(shard=shard.shard, emit=tuple(emit), extra=tuple(extra))
            emit, extra, size = [], [], len(json.dumps(item)) + 2
        if at < len(shard.emit):
            emit.append(shard.emit[at])
        else:
            extra.append(shard.extra[at - len(shard.emit)])
    yield ShardRepair(shard=shard.shard, emit=tuple(emit), extra=tuple(extra))


def recorded_plan(records: Mapping[str, Mapping[str, Any]], run_id: str) -> RepairPlan | None:
    """The plan of a run that was begun and has not ended; None when there is none."""
    prefix = f"{REPAIR}{run_id}/"
    found = [document["plan"] for key, document in sorted(records.items()) if key.startswith(prefix)]
    if not found:
        return None
    repairs: dict[str, ShardRepair] = {}
    for part in (msgspec.convert(document["shard"], ShardRepair) for document in found):
        before = repairs.get(part.shard, ShardRepair(shard=part.shard))
        emit, extra = (*before.emit, *part.emit), (*before.extra, *part.extra)
        repairs[part.shard] = ShardRepair(shard=part.shard, emit=emit, extra=extra)
    left = {document["shard"]["shard"]: str(document["left"]) for document in found if "left" in document}
    first = found[0]
    return RepairPlan(
        run_id=run_id,
        dataset=first["dataset"],
        table=first["table"],
        created=datetime.fromisoformat(first["created"]),
        shards=tuple(shard for shard in repairs.values() if shard.emit or shard.extra or shard.shard not in left),
        tombstones=first["tombstones"],
        left=left,
        removed=first.get("removed"),
    )


def _document(plan: RepairPlan, shard: ShardRepair) -> dict[str, Any]:
    return {
        "dataset": plan.dataset,
        "table": plan.table,
        "created": plan.created.isoformat(),
        "tombstones": plan.tombstones,
        "shard": asdict(shard),
        **({"left": plan.left[shard.shard]} if shard.shard in plan.left else {}),
        **({} if plan.removed is None else {"removed": plan.removed}),
    }


def _of_verdict(verdict: ShardVerdict, cap: int, *, tombstones: bool) -> tuple[ShardRepair, str]:
    """What a verdict asks for, and why not all of it can be done. Beyond `cap` its samples name no more.

    A row that is in another partition now is re-emitted behind the tombstone: readers of both may see that last.
    """
    named = verdict.missing + verdict.extra + verdict.mismatched
    emit = tuple(key for sample in verdict.samples if sample.kind not in EXTRA_KINDS and (key := _key(sample)))
    extra = tuple(
        (sample.partition, sample.offset)
        for sample in verdict.samples
        if sample.kind in EXTRA_KINDS and sample.partition is not None and sample.offset is not None
    )
    unnamed = named - len(emit) - len(extra)
    problem = f"{unnamed} of {named} keys cannot be named" if unnamed and len(verdict.samples) <= cap else ""
    moved = (key for sample in verdict.samples if sample.kind == MOVED and tombstones and (key := _key(sample)))
    return ShardRepair(shard=verdict.shard, emit=tuple(dict.fromkeys((*emit, *moved))), extra=extra), problem


def _key(sample: KeyDifference) -> Key | None:
    """The key's values in the order of its columns; None for one that only its hash names."""
    if sample.key.startswith("#"):
        return None
    return tuple(str(value) for value in json.loads(sample.key).values())


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
                f"{text!r} is not a key.", field="--key", cure='Write SHARD:VALUE, or SHARD:["A", "B"] for two.'
            )
        found.setdefault(shard, []).append(tuple(str(part) for part in parts))
    return {shard: tuple(keys) for shard, keys in found.items()}
