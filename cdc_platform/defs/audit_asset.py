"""The audit frame as an asset: one materialization a verification, whose numbers Dagster plots over time."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import dagster as dg

from cdc_platform.defs.translator import TAG_DATASET, TAG_PLATFORM, CdcTableProps, CdcTranslator
from cdc_platform.model.naming import some_of
from cdc_platform.model.plain_text import for_markdown, for_markdown_code, for_terminal
from cdc_platform.verification.proof.verdicts import WORST_FIRST, ShardVerdict, Verdict, foreign_rows

AUDIT = "audit"

# Shards and keys shown; the frame has all of them.
SHOWN = 50

# Runs in the chart, and its size in pixels.
_RUNS = 60
_WIDTH, _HEIGHT, _MARGIN = 720, 180, 24
_COLOURS = {
    Verdict.PROVEN: "#2e7d32",
    Verdict.PENDING: "#f9a825",
    Verdict.UNVERIFIABLE: "#8e24aa",
    Verdict.MISMATCHED: "#c62828",
}


def audit_key(table: dg.AssetKey) -> dg.AssetKey:
    """Where the verdicts on a table's topic are, and the checks that judge them."""
    return dg.AssetKey([*table.path, AUDIT])


def audit_spec(props: CdcTableProps, translator: CdcTranslator) -> dg.AssetSpec:
    """The asset of a table's audit frame: the table's key and `audit`."""
    table = translator.get_asset_spec(props)
    return dg.AssetSpec(
        key=audit_key(table.key),
        deps=[table.key],
        description=(
            f"What each verification of `{props.dataset}.{props.table}` found, a row a shard: verdict, rows, missing, "
            "extra and mismatched keys, positions, lag. Written by the job `verify`, read by the checks."
        ),
        group_name=table.group_name,
        owners=list(table.owners),
        kinds={"parquet"},
        tags={TAG_PLATFORM: props.platform, TAG_DATASET: props.dataset},
    )


def audit_metadata(verdicts: Sequence[ShardVerdict], history: Sequence[ShardVerdict], place: str) -> dict[str, Any]:
    """Of one run's verdicts: totals, which Dagster plots, the worst shards and keys, and a chart of the last runs."""
    counts = Counter(verdict.verdict for verdict in verdicts)
    keys, foreign = differing(verdicts), foreign_rows(verdicts)
    return {
        "history": dg.MetadataValue.md(chart(history)),
        **({"keys": dg.MetadataValue.md(keys)} if keys else {}),
        "positions": positions(verdicts),
        "shards": len(verdicts),
        **{str(kind): counts[kind] for kind in Verdict},
        **{
            name: sum(getattr(verdict, name) for verdict in verdicts)
            for name in ("source_rows", "topic_rows", "missing", "extra")
        },
        "mismatched_rows": sum(verdict.mismatched for verdict in verdicts),
        **({"foreign_rows": foreign.rows, "foreign_shards": some_of(foreign.shards, SHOWN)} if foreign else {}),
        "lag_s": max((verdict.lag_s for verdict in verdicts if verdict.lag_s is not None), default=0.0),
        "seconds": max((verdict.seconds for verdict in verdicts), default=0.0),
        "frame": dg.MetadataValue.path(place),
    }


def positions(verdicts: Sequence[ShardVerdict]) -> dg.TableMetadataValue:
    """What each shard was found to be and at which positions, the worst first."""
    worst = sorted(
        verdicts, key=lambda v: (WORST_FIRST.index(v.verdict), -(v.missing + v.extra + v.mismatched), v.shard)
    )
    names = ("shard", "verdict", "reason", "source_rows", "proven_from", "proven_to")
    records = [
        dg.TableRecord({name: for_terminal(str(getattr(verdict, name))) for name in names}) for verdict in worst[:SHOWN]
    ]
    schema = dg.TableSchema([dg.TableColumn(name, "string") for name in names])
    return dg.MetadataValue.table(records, schema=schema)


def differing(verdicts: Sequence[ShardVerdict]) -> str:
    """The keys that differ, as a Markdown list; empty when none does."""
    lines = [
        f"- {for_markdown(verdict.shard)} {sample.kind} {for_markdown_code(str(sample.key))}"
        + (f": {for_markdown(', '.join(sample.columns))}" if sample.columns else "")
        for verdict in verdicts
        for sample in verdict.samples
    ]
    more = [f"- and {len(lines) - SHOWN} more in the frame"] if len(lines) > SHOWN else []
    return "\n".join(lines[:SHOWN] + more)


def chart(history: Sequence[ShardVerdict]) -> str:
    """The last runs as bars, a part of a bar for each verdict: a Markdown image."""
    runs: dict[str, list[ShardVerdict]] = {}
    for verdict in history:
        runs.setdefault(verdict.run_id, []).append(verdict)
    shown = list(runs.values())[-_RUNS:]
    if not shown:
        return "No run yet."
    svg = _svg([(Counter(v.verdict for v in run), max(v.checked_at for v in run)) for run in shown])
    return f"![Verdicts by run](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def _svg(bars: Sequence[tuple[Mapping[Verdict, int], datetime]]) -> str:
    most = max(sum(counts.values()) for counts, _ in bars)
    step = (_WIDTH - 2 * _MARGIN) / max(len(bars), 12)
    scale = (_HEIGHT - 2 * _MARGIN) / most
    parts: list[str] = []
    for at, (counts, _) in enumerate(bars):
        bottom = float(_HEIGHT - _MARGIN)
        for kind, colour in _COLOURS.items():
            height = counts.get(kind, 0) * scale
            if height:
                bottom -= height
                parts.append(
                    f'<rect x="{_MARGIN + at * step:.1f}" y="{bottom:.1f}" width="{step * 0.8:.1f}"'
                    f' height="{height:.1f}" fill="{colour}"/>'
                )
    text = 'font-family="sans-serif" font-size="11" fill="#757575"'
    first, last = bars[0][1], bars[-1][1]
    parts.append(f'<text x="{_MARGIN}" y="{_HEIGHT - 8}" {text}>{first:%Y-%m-%d %H:%M}Z</text>')
    if len(bars) > 1:
        end = min(_WIDTH - _MARGIN, _MARGIN + len(bars) * step + 60)
        parts.append(f'<text x="{end:.0f}" y="{_HEIGHT - 8}" text-anchor="end" {text}>{last:%Y-%m-%d %H:%M}Z</text>')
    for at, (kind, colour) in enumerate(_COLOURS.items()):
        x = _MARGIN + at * 110
        parts.append(f'<rect x="{x}" y="4" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 14}" y="13" {text}>{kind}</text>')
    parts.append(f'<text x="{_WIDTH - _MARGIN}" y="13" text-anchor="end" {text}>{most} shards</text>')
    body = "".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}">{body}</svg>'
