"""Topics for the tests of your Dagster project: rows in memory, shards that fail, lag; no server is needed.

Your assets, and Dagster's conditions, checks and gates on them, meet what passes and verifications would have written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pyarrow as pa

from cdc_platform.defs.audit_asset import audit_key
from cdc_platform.defs.check_suites import suites_for
from cdc_platform.defs.checks import build_cdc_asset_checks
from cdc_platform.defs.pass_checks import Said, build_captured_checks, captured, fresh
from cdc_platform.defs.pass_events import DATA_VERSION
from cdc_platform.defs.resource import CdcPlatformResource
from cdc_platform.defs.topic_input import FakeCdcTopicIOManager
from cdc_platform.defs.translator import CdcTableProps, CdcTranslator, shards_key, shards_partition, shards_spec
from cdc_platform.errors import BadInput
from cdc_platform.reading.batches import SHARD
from cdc_platform.reconciler.last_pass import quantiles

PLATFORM = "cdc"
Row = Mapping[str, Any]


@dataclass(kw_only=True)
class FakeTopic:
    """One table's topic.

    Args:
        dataset: its name.
        table: its name.
        rows: shard id to the rows that a reader of the topic gets.
        schema: Arrow's types of the columns; by default they are those of the values.
    """

    dataset: str
    table: str
    rows: dict[str, list[Row]]
    schema: pa.Schema | None = None
    failures: dict[str, str] = field(default_factory=dict)
    lags: dict[str, float] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    events: int = 0

    @property
    def key(self) -> dg.AssetKey:
        """Of the topic's asset."""
        return dg.AssetKey([PLATFORM, self.dataset, self.table])

    def put(self, shard: str, *rows: Row) -> None:
        """More rows have come. Raises BadInput for a shard that the topic does not have."""
        self._known(shard)
        self.rows[shard] = [*self.rows[shard], *rows]
        self.events += len(rows)

    def fail(self, shard: str, why: str) -> None:
        """The shard's connector is down: `captured` fails."""
        self._known(shard)
        self.failures[shard] = why

    def lag(self, shard: str, seconds: float) -> None:
        """The shard is so far behind its source; above ten minutes `fresh` fails."""
        self._known(shard)
        self.lags[shard] = seconds

    def lose(self, shard: str, rows: int) -> None:
        """The last verification found that so many rows of the shard are missing: `complete` fails."""
        self._known(shard)
        self.lost[shard] = rows

    def recover(self) -> None:
        """All is well again."""
        self.failures, self.lags, self.lost = {}, {}, {}

    def table_of_rows(self) -> pa.Table:
        """All rows, with the column `cdc_shard`."""
        rows = [{**row, SHARD: shard} for shard, found in self.rows.items() for row in found]
        if self.schema is None:
            return pa.Table.from_pylist(rows)
        return pa.Table.from_pylist(rows, schema=self.schema.append(pa.field(SHARD, pa.string())))

    def _known(self, shard: str) -> None:
        if shard not in self.rows:
            raise BadInput(f"the topic has no shard {shard!r}.", cure=f"It has {', '.join(sorted(self.rows))}.")


class FakeCdc:
    """A Dagster with these topics; see `fake_cdc`."""

    def __init__(self, topics: Sequence[FakeTopic], instance: dg.DagsterInstance) -> None:
        self.topics = topics
        self.instance = instance
        self._tables = [_props(topic) for topic in topics]
        self._cursor: Any = None
        self._seen: dict[dg.AssetKey, int] = {}
        for topic in topics:
            topic.events = max(topic.events, sum(map(len, topic.rows.values())))

    def definitions(self, *assets: Any) -> dg.Definitions:
        """Yours beside those of the topics, the shards, the audit frames and their checks."""
        translator = CdcTranslator()
        specs = [translator.get_asset_spec(props).with_io_manager_key("cdc_topic") for props in self._tables]
        datasets = {props.dataset: props for props in self._tables}
        return dg.Definitions(
            assets=[*specs, *(shards_spec(props) for props in datasets.values()), *assets],
            asset_checks=[
                *build_cdc_asset_checks(tables=self._tables),
                *build_captured_checks(tables=self._tables),
            ],
            resources={"cdc_topic": FakeCdcTopicIOManager(self._rows()), "cdc_platform": CdcPlatformResource()},
        )

    def report(self) -> None:
        """Write what a pass and a verification would now: new data, and the checks `captured`, `fresh`, `complete`."""
        now = datetime.now(UTC)
        for dataset in {topic.dataset for topic in self.topics}:
            own = [topic for topic in self.topics if topic.dataset == dataset]
            record = self._record(dataset, own, now)
            self._judged(shards_key(PLATFORM, dataset), "captured", captured(record, dataset, now))
            suite = suites_for(None, [dataset])[dataset]
            for topic in own:
                self._data(topic)
                self._judged(audit_key(topic.key), "fresh", fresh(record, dataset, suite, now))
                self._judged(audit_key(topic.key), "complete", _complete(topic))

    def materialize(self, *assets: Any, partition_key: str | None = None, **more: Any) -> dg.ExecuteInProcessResult:
        """Run your assets on the topics' rows; `more` as `Definitions` takes it: resources."""
        found = dg.Definitions.merge(self.definitions(*assets), dg.Definitions(**more))
        names = [key for asset in assets for key in asset.keys]
        job = found.get_repository_def().get_implicit_job_def_for_assets(names)
        if job is None:
            raise BadInput("these assets cannot be materialized together.", cure="Materialize them one by one.")
        return job.get_subset(asset_selection=set(names)).execute_in_process(
            instance=self.instance, partition_key=partition_key, raise_on_error=False
        )

    def requested(self, *assets: Any, at: datetime | None = None) -> frozenset[dg.AssetKey]:
        """Which of your assets their automation conditions request, given all that was written since the last call."""
        found = dg.evaluate_automation_conditions(
            self.definitions(*assets), self.instance, cursor=self._cursor, evaluation_time=at or datetime.now(UTC)
        )
        self._cursor = found.cursor
        return frozenset(key for asset in assets for key in asset.keys if found.get_num_requested(key))

    def _rows(self) -> Mapping[str, pa.Table]:
        return {topic.key.to_user_string(): topic.table_of_rows() for topic in self.topics}

    def _record(self, dataset: str, own: Sequence[FakeTopic], now: datetime) -> Mapping[str, Any]:
        shards = {shard for topic in own for shard in topic.rows}
        down = {shard for topic in own for shard in topic.failures}
        lags = [max(topic.lags.get(shard, 0.0) for topic in own) for shard in sorted(shards)]
        states = {"RUNNING": len(shards) - len(down), "FAILED": len(down)}
        found = {"shards": len(shards), "up": len(shards) - len(down), "states": states, "lag_s": quantiles(lags)}
        axis = shards_partition(PLATFORM, dataset)
        self.instance.add_dynamic_partitions(axis, sorted(shards))
        have = self.instance.get_materialized_partitions(shards_key(PLATFORM, dataset))
        for shard in sorted(shards - down - have):
            event = dg.AssetMaterialization(shards_key(PLATFORM, dataset), partition=shard)
            self.instance.report_runless_asset_event(event)
        return {"at": now.isoformat(), "datasets": {dataset: found}}

    def _data(self, topic: FakeTopic) -> None:
        if self._seen.get(topic.key) != topic.events:
            self._seen[topic.key] = topic.events
            tags = {DATA_VERSION: f"{topic.events} events"}
            self.instance.report_runless_asset_event(dg.AssetMaterialization(topic.key, tags=tags))

    def _judged(self, key: dg.AssetKey, check: str, said: Said | None) -> None:
        if said is not None:
            self.instance.report_runless_asset_event(
                dg.AssetCheckEvaluation(
                    asset_key=key,
                    check_name=check,
                    passed=said.passed,
                    description=said.text,
                    metadata=dict(said.numbers),
                )
            )


@contextmanager
def fake_cdc(*topics: FakeTopic) -> Iterator[FakeCdc]:
    """A Dagster instance in memory in which these topics are captured, fresh and complete until they say otherwise."""
    with dg.DagsterInstance.ephemeral() as instance:
        found = FakeCdc(topics, instance)
        found.report()
        yield found


def _complete(topic: FakeTopic) -> Said:
    missing, shards = sum(topic.lost.values()), len(topic.rows)
    text = f"{len(topic.lost)} of {shards} shards fail, {missing} missing." if missing else f"{shards} shards."
    return Said(not missing, text, {"missing": missing})


def _props(topic: FakeTopic) -> CdcTableProps:
    first: Iterable[Row] = next((rows for rows in topic.rows.values() if rows), ())
    return CdcTableProps(
        platform=PLATFORM,
        dataset=topic.dataset,
        table=topic.table,
        source_table=topic.table,
        engine="mariadb",
        topic=f"{PLATFORM}.{topic.dataset}.{topic.table}",
        partitions=1,
        replication=1,
        bootstrap="snapshot",
        key_columns=tuple(next(iter(first), {}))[:1],
    )
