"""Rows of the lake that are not the topic's, written again from the topic."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdc_platform.errors import LakeHeld
from cdc_platform.lake.append import append_events
from cdc_platform.lake.columns import lake_batch, lake_schema
from cdc_platform.lake.current import replace_buckets
from cdc_platform.lake.data_files import OTHER_TYPE, DamagedFiles
from cdc_platform.lake.events import NewEvents
from cdc_platform.lake.policy import LakePolicy
from cdc_platform.lake.proof import EXTRA, LakeProof, LakeVerdict, open_proof, prove_lake, readable_bucket
from cdc_platform.lake.tables import BUCKET, KEY
from cdc_platform.model.topology import Topology
from cdc_platform.reading.batches import OPERATION, SHARD, UNHELD
from cdc_platform.verification.ports import VerificationPorts
from cdc_platform.verification.proof.change_events import Words
from cdc_platform.verification.proof.verdicts import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeRepair:
    """Rows written again and removed, or those that would be, and what is proven of the lake after that."""

    rewritten: int
    removed: int
    buckets: tuple[int, ...] = ()
    verdicts: tuple[LakeVerdict, ...] = ()

    @property
    def unproven(self) -> int:
        """Shards that differ all the same."""
        return sum(each.verdict is Verdict.MISMATCHED for each in self.verdicts)


def repair_lake(
    ports: VerificationPorts, topology: Topology, dataset: str, table: str, policy: LakePolicy, *, apply: bool
) -> LakeRepair:
    """Make the lake's current rows the topic's, as far as its last run goes; with `apply` a run is made first.

    Buckets of `base` that have such rows are written again; events in `changes` stay as they are. Memory is that of a
    bucket. The topic must be right: `verify` compares it with the source, and `repair` repairs it.
    Raises what `prove_lake` and `append_events` raise.
    """
    if apply:
        append_events(ports, topology, dataset, table, policy)
    with open_proof(ports, topology, dataset, table, policy) as proof:
        shards = [shard.id for shard in topology.shards.get(dataset, ())]
        lake = proof.read.by_shard(proof.view, shards)
        found = {shard: proof.differences(shard, lake[shard]).keys for shard in shards}
        removed = sum(kind == EXTRA for keys in found.values() for _, kind, _ in keys)
        wrong = {shard: {word for word, _, _ in keys} for shard, keys in found.items() if keys}
        rewritten = sum(map(len, wrong.values())) - removed
        if not wrong or not apply:
            return LakeRepair(rewritten=rewritten, removed=removed)
        kept = {
            shard: np.array([word for word, kind, _ in keys if kind != EXTRA], dtype=np.uint64)
            for shard, keys in found.items()
        }
        buckets = _rewrite(ports, proof, policy, wrong, kept)
    verdicts = prove_lake(ports, topology, dataset, table, policy)
    return LakeRepair(rewritten=rewritten, removed=removed, buckets=buckets, verdicts=verdicts)


def _rewrite(
    ports: VerificationPorts,
    proof: LakeProof,
    policy: LakePolicy,
    wrong: Mapping[str, Collection[int]],
    kept: Mapping[str, Words],
) -> tuple[int, ...]:
    """Write the buckets again that have wrong rows, one commit each; returns them."""
    new = _events(ports, proof, policy)
    schema = lake_schema(new.builder().schema)
    batches = [lake_batch(batch, schema) for batch in new.newest({s: words for s, words in kept.items() if len(words)})]
    right = pa.Table.from_batches(batches, schema)
    right = right.filter(pc.not_equal(right[OPERATION], "d"))
    keys = {
        (shard, key)
        for shard, key, tokens in proof.read.rows(proof.view)
        if shard in wrong and proof.read.word(tokens) in wrong[shard]
    }
    done = []
    for bucket in sorted({*proof.view.buckets(), *right[BUCKET].to_pylist()}):
        own = right.filter(pc.equal(right[BUCKET], bucket))
        rows = readable_bucket(proof.view, bucket, DamagedFiles())
        chosen = [pair in keys for pair in zip(rows[SHARD].to_pylist(), rows[KEY].to_pylist(), strict=True)]
        if not len(own) and not any(chosen):
            continue
        rows = rows.filter(pc.invert(pa.array(chosen, pa.bool_())))
        _check(rows)
        replace_buckets(proof.view, [bucket], pa.concat_tables([rows, own], promote_options="permissive"))
        done.append(bucket)
    return tuple(done)


def _events(ports: VerificationPorts, proof: LakeProof, policy: LakePolicy) -> NewEvents:
    return NewEvents(
        fold=proof.fold,
        records=proof.records,
        bounds=proof.bounds,
        begins={},
        run=proof.view.state.run,
        buckets=policy.buckets,
        slab_rows=proof.policy.slab_rows,
        cache=Path(ports.platform.settings.cache_dir),
    )


def _check(rows: pa.Table) -> None:
    """Rows of damaged files that were not judged, for they have changed since the lake's run, cannot be kept."""
    for pairs in rows[UNHELD].to_pylist():
        if any(text.startswith(OTHER_TYPE) for _, text in pairs or ()):
            raise LakeHeld(
                "rows of a data file that has another type have changed since the lake's last run.",
                cure="Repair it again: it takes in what is new first.",
            )
