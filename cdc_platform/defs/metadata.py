"""Metadata of a table and of the platform, for the asset pages. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import dagster as dg

from cdc_platform.defs.sampled_columns import column_schema
from cdc_platform.defs.translator import CdcTableProps
from cdc_platform.model.naming import some_of
from cdc_platform.model.observed import TopicExtent
from cdc_platform.model.plain_text import for_markdown, for_terminal
from cdc_platform.model.topology import EMPTY, Shard
from cdc_platform.planning.health.heat_map import CellState, as_image, cell_state, heat_map, heat_sentence
from cdc_platform.planning.rendering import to_markdown
from cdc_platform.reconciler.last_pass import quantiles
from cdc_platform.reconciler.report import DatasetHealth, PassReport, ShardDown

Metadata = dict[str, dg.MetadataValue]

# Rows of a metadata table; what is beyond is said in a total.
MOST_ROWS = 100
MOST_SHARDS = 20
# Causes in the health report, the most frequent ones.
MOST_TROUBLES = 10


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
    behind = [lags[shard.name] for shard in shards if shard.name in lags]
    found: Metadata = {
        "state": dg.MetadataValue.text(table_sentence(health, behind, extent)),
        "topic": dg.MetadataValue.text(props.topic),
    }
    if health is not None:
        found["shards_up"] = dg.MetadataValue.int(health.up)
        found["shards"] = dg.MetadataValue.int(health.shards)
    if extent is not None:
        found["events"] = dg.MetadataValue.int(extent.end - extent.begin)
        found["events_ever"] = dg.MetadataValue.int(extent.end)
        if extent.newest is not None:
            found["newest_event"] = dg.MetadataValue.timestamp(extent.newest)
    if behind:
        spread = quantiles(behind)
        found["lag_seconds_p50"] = dg.MetadataValue.float(spread["0.5"])
        found["lag_seconds_p99"] = dg.MetadataValue.float(spread["0.99"])
        found["lag_seconds_worst"] = dg.MetadataValue.float(max(behind))
    columns = column_schema(sample) if sample else None
    if columns is not None:
        found["dagster/column_schema"] = dg.MetadataValue.table_schema(columns)
    return found


def table_sentence(health: DatasetHealth | None, behind: Sequence[float], extent: TopicExtent | None) -> str:
    """The state of the whole table in words, for the top of its page."""
    parts = ["How its shards are is not known" if health is None else f"{health.up} of {health.shards} shards up"]
    if health is not None and health.down:
        parts[0] += f" ({some_of([f'{one.shard} {one.state}' for one in health.down], 3)})"
    if behind:
        parts.append(f"at most {max(behind):.0f} s behind the source")
    if extent is not None:
        parts.append(f"{extent.end:,} events so far")
    return ", ".join(parts) + "."


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
    found: Metadata = {}
    if health is not None:
        if health.down:
            found["shards_down"] = down_table(health.down)
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
    known = {shard.name: lags[shard.name] for shard in shards if shard.name in lags}
    if known:
        spread = quantiles(list(known.values()))
        for name, of in (("p50", "0.5"), ("p99", "0.99"), ("worst", "1.0")):
            found[f"lag_seconds_{name}"] = dg.MetadataValue.float(spread[of])
        found["slowest"] = slowest_table(shards, homes, lags)
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
        "health": dg.MetadataValue.md(health_report(report)),
        "plan": dg.MetadataValue.md(to_markdown(report.plan, most=MOST_ROWS)),
        "datasets": _table(
            ("dataset", "up", "shards", "lag_p50_s", "lag_p99_s", "lag_max_s", "down"),
            [
                {
                    "dataset": one.dataset,
                    "up": one.up,
                    "shards": one.shards,
                    **_lag_columns(one.dataset, report.lags),
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


def health_report(report: PassReport) -> str:
    """What an operator asks first, as Markdown: how many are up, the troubles, what was refused and failed."""
    health = report.health.values()
    up, shards = sum(one.up for one in health), sum(one.shards for one in health)
    lines = [f"**{up} of {shards} shards up** in {len(report.health)} datasets."]
    down = [one for each in health for one in each.down]
    for cause, count in Counter(one.reason for one in down).most_common(MOST_TROUBLES):
        named = some_of([one.shard for one in down if one.reason == cause], 3)
        lines.append(f"- {count} shards ({for_markdown(named)}): {for_markdown(cause)}")
    lines += [f"- refused for {for_markdown(r.scope)}: {for_markdown(r.reason)}" for r in report.plan.refusals[:5]]
    lines += [f"- failed: {for_markdown(one.sentence())}" for one in report.failed[:5]]
    return "\n".join(lines if len(lines) > 1 else [*lines, "", "No trouble is known."])


def _lag_columns(dataset: str, lags: Mapping[str, float]) -> dict[str, str]:
    spread = quantiles([lag for shard, lag in lags.items() if shard.startswith(f"{dataset}.")])
    columns = {"lag_p50_s": "0.5", "lag_p99_s": "0.99", "lag_max_s": "1.0"}
    return {name: f"{spread[of]:.1f}" if of in spread else "unknown" for name, of in columns.items()}


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
