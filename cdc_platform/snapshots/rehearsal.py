"""What a bootstrap or backfill would do, before it changes anything: shards, rows, hours, or why it is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from cdc_platform.clients.sources.catalog import Catalog
from cdc_platform.errors import CdcError
from cdc_platform.model.naming import some_of
from cdc_platform.model.topology import Dataset, Shard, Topology
from cdc_platform.snapshots.progress_events import duration
from cdc_platform.snapshots.request import Request
from cdc_platform.snapshots.run_lifecycle import plan_run
from cdc_platform.snapshots.run_records import Records, Run

# So many shards' statistics are read; the rows of the others are taken for as many.
SAMPLE = 32
_PARALLEL = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What a run would be. `rows` are those of all its shards, by the statistics of `sampled` ones; None: unknown.

    `silent` are the sampled shards whose servers did not answer, with the reason.
    """

    run: Run
    rows: int | None
    sampled: int
    silent: Mapping[str, str]
    hosts: int

    @property
    def seconds(self) -> float | None:
        """How long reading takes at the run's rows a second; None without that limit, or without a count."""
        rate = self.run.request.load.max_rows_per_s
        return None if rate is None or self.rows is None else self.rows / rate

    def sentence(self) -> str:
        """All of it in words."""
        run, load = self.run, self.run.request.load
        mode = f" by {run.mode}" if run.mode else ""
        parts = [
            f"Would {'bootstrap' if run.mode else 'backfill'}{mode} {len(run.shards)} shards of {run.dataset} "
            f"on {self.hosts} hosts, tables {', '.join(run.tables)}, {load.max_parallel_shards} shards at once."
        ]
        if not run.reads_rows:
            parts.append("No row is read: streams begin where they are.")
        elif self.rows is None:
            parts.append("How many rows that is no server says.")
        else:
            narrowed = " before the condition" if any(run.request.selects(shard) for shard in run.shards) else ""
            parts.append(f"About {self.rows:,} rows{narrowed} by the statistics of {self.sampled} shards.")
            parts.append(
                f"At {load.max_rows_per_s:,} rows a second that takes {duration(self.seconds)}."
                if self.seconds is not None
                else "max_rows_per_s sets no limit: how long it takes is up to the servers and Kafka."
            )
        for shard, reason in sorted(self.silent.items())[:3]:
            parts.append(f"{shard} does not answer: {reason}")
        return " ".join(parts)

    def document(self) -> dict[str, Any]:
        """Its numbers."""
        found = {
            "shards": len(self.run.shards),
            "hosts": self.hosts,
            "rows": self.rows,
            "hours": None if self.seconds is None else round(self.seconds / 3600, 2),
            "first_shards": some_of(list(self.run.shards), 10),
        }
        return {name: value for name, value in found.items() if value is not None}


def rehearse(
    topology: Topology, records: Records, request: Request, catalog: Catalog, *, free_text: bool = False
) -> Rehearsal:
    """Plan the run that the request asks for, and ask servers how many rows it would read; changes nothing.

    Raises:
        BadInput, TopologyError: it would be refused.
    """
    run = plan_run(topology, records, request, "rehearsal", free_text=free_text)
    dataset = topology.dataset(run.dataset)
    dataset = replace(dataset, tables=tuple(table for table in dataset.tables if table.name in run.tables))
    chosen = [shard for shard in topology.shards[run.dataset] if shard.id in set(run.shards)]
    found = _counts(dataset, chosen[:: -(-len(chosen) // SAMPLE)], catalog) if run.reads_rows else {}
    counted = [rows for rows in found.values() if isinstance(rows, int)]
    return Rehearsal(
        run=run,
        rows=round(sum(counted) * len(chosen) / len(counted)) if counted else None,
        sampled=len(counted),
        silent={shard: said for shard, said in found.items() if isinstance(said, str)},
        hosts=len({shard.leader.host for shard in chosen if shard.leader is not None}),
    )


def _counts(dataset: Dataset, shards: Sequence[Shard], catalog: Catalog) -> dict[str, int | str]:
    """Shard to its rows, or to why they are not known."""

    def count(shard: Shard) -> int | str:
        try:
            return sum(table.rows for table in catalog.read(dataset, shard).values())
        except CdcError as error:
            return str(error)

    with ThreadPoolExecutor(max_workers=_PARALLEL, thread_name_prefix="rehearsal") as pool:
        return {shard.name: said for shard, said in zip(shards, pool.map(count, shards), strict=True)}
