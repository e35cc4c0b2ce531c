"""What a repair would do: which keys to re-emit, which rows are extra, and the plan on record.

What was found is recorded under `repair/<run>/<shard>` before anything is sent: a repair that was
killed and is started again under its id goes on from it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from cdc_platform.clients.sources.source import Key
from cdc_platform.errors import BadInput, RepairRefused
from cdc_platform.model.naming import some_of
from cdc_platform.model.topology import Topology
from cdc_platform.verification.ports import VerificationPolicy, VerificationPorts
from cdc_platform.verification.proof.completeness import plan_verification, verify_shards
from cdc_platform.verification.proof.verdicts import KeyDifference, ShardVerdict, Verdict

REPAIR = "repair/"

CAP = 10_000

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
    tombstones: bool = False,
    cap: int = CAP,
    report: Report = lambda text: None,
) -> RepairPlan:
    """What is wrong in these shards now; changes nothing.

    Raises:
        RepairRefused: more than `cap` keys differ: a backfill is the better repair.
        TopologyError: no such dataset, table or shard.
    """
    policy = replace(VerificationPolicy.of(topology.dataset(dataset)), samples=cap + 1)
    repairs: list[ShardRepair] = []
    left: dict[str, str] = {}
    for part in plan_verification(topology, dataset, table, shards):
        report(f"Verifying {len(part.shards)} shards.")
        for verdict in verify_shards(ports, topology, part, run_id=f"{run_id}-find", policy=policy):
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


def proof_id(run_id: str) -> str:
    """The run id that the verdicts after a repair have."""
    return f"{run_id}-proof"


def plan_records(plan: RepairPlan) -> dict[str, Mapping[str, Any]]:
    """The plan as the state topic holds it."""
    shards = {shard: ShardRepair(shard=shard) for shard in plan.left} | {shard.shard: shard for shard in plan.shards}
    return {f"{REPAIR}{plan.run_id}/{name}": {"plan": _document(plan, shard)} for name, shard in shards.items()}


def recorded_plan(records: Mapping[str, Mapping[str, Any]], run_id: str) -> RepairPlan | None:
    """The plan of a run that was begun and has not ended; None when there is none."""
    prefix = f"{REPAIR}{run_id}/"
    found = [document["plan"] for key, document in sorted(records.items()) if key.startswith(prefix)]
    if not found:
        return None
    repairs = [msgspec.convert(document["shard"], ShardRepair) for document in found]
    left = {document["shard"]["shard"]: str(document["left"]) for document in found if "left" in document}
    first = found[0]
    return RepairPlan(
        run_id=run_id,
        dataset=first["dataset"],
        table=first["table"],
        created=datetime.fromisoformat(first["created"]),
        shards=tuple(shard for shard in repairs if shard.emit or shard.extra or shard.shard not in left),
        tombstones=first["tombstones"],
        left=left,
    )


def _document(plan: RepairPlan, shard: ShardRepair) -> dict[str, Any]:
    return {
        "dataset": plan.dataset,
        "table": plan.table,
        "created": plan.created.isoformat(),
        "tombstones": plan.tombstones,
        "shard": asdict(shard),
        **({"left": plan.left[shard.shard]} if shard.shard in plan.left else {}),
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
