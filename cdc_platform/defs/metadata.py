"""Metadata of a table and of the platform, for the asset pages. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg

from cdc_platform.defs.sampled_columns import column_schema
from cdc_platform.defs.translator import CdcTableProps
from cdc_platform.model.naming import some_of
from cdc_platform.model.observed import TopicExtent
from cdc_platform.model.plain_text import for_terminal
from cdc_platform.model.topology import EMPTY, Shard
from cdc_platform.planning.health.heat_map import CellState, as_image, cell_state, heat_map, heat_sentence
from cdc_platform.planning.rendering import to_markdown
from cdc_platform.reconciler.report import DatasetHealth, PassReport, ShardDown

Metadata = dict[str, dg.MetadataValue]

# Rows of a metadata table; what is beyond is said in a total.
MOST_ROWS = 100
MOST_SHARDS = 20


def table_metadata(
    props: CdcTableProps,
    *,
    shards: Sequence[Shard],
    health: DatasetHealth | None,
    lags: Mapping[str, float],
    extent: TopicExtent | None,
    sample: bytes | None,
) -> Metadata:
    """The metadata of one table. `events` counts offsets: after compaction the topic holds fewer records.

    Args:
        props: the table.
        shards: those of its dataset.
        health: of its dataset; None when the pass did not see it.
        lags: shard name to seconds behind its source.
        extent: of its topic; None when it does not exist or Kafka did not answer.
        sample: a recent value of the topic.
    """
    found: Metadata = {"topic": dg.MetadataValue.text(props.topic)}
    if health is not None:
        found["shards_up"] = dg.MetadataValue.int(health.up)
        found["shards"] = dg.MetadataValue.int(health.shards)
    if extent is not None:
        found["events"] = dg.MetadataValue.int(extent.end - extent.begin)
        found["events_ever"] = dg.MetadataValue.int(extent.end)
        if extent.newest is not None:
            found["newest_event"] = dg.MetadataValue.timestamp(extent.newest)
    behind = [lags[shard.name] for shard in shards if shard.name in lags]
    if behind:
        found["lag_seconds_worst"] = dg.MetadataValue.float(max(behind))
    columns = column_schema(sample) if sample else None
    if columns is not None:
        found["dagster/column_schema"] = dg.MetadataValue.table_schema(columns)
    return found


def shards_metadata(
    shards: Sequence[Shard],
    *,
    health: DatasetHealth | None,
    homes: Mapping[str, str],
    lags: Mapping[str, float],
    verdicts: Mapping[str, str] = EMPTY,
) -> Metadata:
    """The metadata of a dataset's shards: how many are up, which are down and why, and those furthest behind.

    Args:
        shards: all of the dataset.
        health: None when the pass did not see it.
        homes: connector name to the cluster it runs in.
        lags: shard name to seconds behind its source.
        verdicts: shard id to the worst of the verdicts on its tables.
    """
    found: Metadata = {"slowest": slowest_table(shards, homes, lags)}
    if health is not None:
        down = {one.shard: one.state for one in health.down}
        found["heat_map"] = heat_map_metadata(
            {
                shard.id: cell_state(
                    down=down.get(shard.name), lag_s=lags.get(shard.name), verdict=verdicts.get(shard.id)
                )
                for shard in shards
            }
        )
        found["shards_up"] = dg.MetadataValue.int(health.up)
        found["shards"] = dg.MetadataValue.int(health.shards)
        if health.down:
            found["shards_down"] = down_table(health.down)
    return found


def heat_map_metadata(cells: Mapping[str, CellState]) -> dg.MarkdownMetadataValue:
    """All shards at a glance, and in words."""
    words = heat_sentence(cells)
    return dg.MetadataValue.md(f"{as_image(heat_map(cells), words)}\n\n{words}")


def down_table(down: Sequence[ShardDown]) -> dg.TableMetadataValue:
    """The shards that are not captured now, and why."""
    return _table(
        ("shard", "state", "reason"),
        [{"shard": one.shard, "state": one.state, "reason": one.reason} for one in down],
    )


def slowest_table(
    shards: Sequence[Shard], homes: Mapping[str, str], lags: Mapping[str, float]
) -> dg.TableMetadataValue:
    """The shards furthest behind their sources, those of unknown lag first."""
    worst = sorted(shards, key=lambda shard: (-lags.get(shard.name, float("inf")), shard.id))[:MOST_SHARDS]
    return _table(
        ("shard", "leader", "database", "cluster", "lag_s"),
        [
            {
                "shard": shard.id,
                "leader": str(shard.leader),
                "database": shard.database,
                "cluster": homes.get(shard.name, "none"),
                "lag_s": f"{lags[shard.name]:.1f}" if shard.name in lags else "unknown",
            }
            for shard in worst
        ],
    )


def pass_metadata(report: PassReport, *, clusters: Mapping[str, int]) -> Metadata:
    """The metadata of the platform's observation. `clusters` is cluster to connectors of ours."""
    health = report.health
    found: Metadata = {
        "pass": dg.MetadataValue.int(report.generation),
        "summary": dg.MetadataValue.text(report.sentence()),
        "shards_up": dg.MetadataValue.int(sum(one.up for one in health.values())),
        "shards": dg.MetadataValue.int(sum(one.shards for one in health.values())),
        "plan": dg.MetadataValue.md(to_markdown(report.plan, most=MOST_ROWS)),
        "datasets": _table(
            ("dataset", "up", "shards", "down"),
            [
                {
                    "dataset": one.dataset,
                    "up": one.up,
                    "shards": one.shards,
                    "down": some_of([down.shard for down in one.down], 5),
                }
                for one in health.values()
            ],
        ),
        "clusters": _table(
            ("cluster", "connectors"),
            [{"cluster": name, "connectors": count} for name, count in sorted(clusters.items())],
        ),
        "seconds": dg.MetadataValue.float(round(float(sum(report.phases.values())), 3)),
    }
    if report.failed:
        found["failed"] = _table(
            ("action", "what", "error"),
            [
                {"action": o.action.kind.verb, "what": o.action.sentence(), "error": o.error or ""}
                for o in report.failed
            ],
        )
    down = [one for each in health.values() for one in each.down]
    if down:
        found["shards_down"] = down_table(down)
    return found


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, str | int]]) -> dg.TableMetadataValue:
    """A table with at least its heading: Dagster cannot infer columns from no rows."""
    kinds = {name: "int" if rows and all(isinstance(row[name], int) for row in rows) else "string" for name in columns}
    shown = [
        dg.TableRecord({n: for_terminal(v) if isinstance(v, str) else v for n, v in row.items()})
        for row in rows[:MOST_ROWS]
    ]
    if len(rows) > MOST_ROWS:
        more = f"... {len(rows) - MOST_ROWS} more"
        first = columns[0]
        shown.append(dg.TableRecord({n: more if n == first else (0 if kinds[n] == "int" else "") for n in columns}))
    return dg.MetadataValue.table(
        records=shown, schema=dg.TableSchema(columns=[dg.TableColumn(n, kinds[n]) for n in columns])
    )
