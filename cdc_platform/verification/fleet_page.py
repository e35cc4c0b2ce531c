"""The fleet as one HTML page that needs nothing else: no script, no network. Pure."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cdc_platform.model.plain_text import for_html
from cdc_platform.planning.health.heat_map import CellState, heat_map, heat_sentence
from cdc_platform.reconciler.report import DatasetHealth
from cdc_platform.verification.proof.verdicts import ShardVerdict, Verdict

# Rows of a list; the others are counted.
_MOST = 200

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#222;background:#fff}
h1{font-size:1.6rem;margin:0}h2{margin:2rem 0 .5rem;border-bottom:1px solid #ddd}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.25rem .6rem;border-bottom:1px solid #eee}
td{overflow-wrap:anywhere;vertical-align:top}td.n,th.n{text-align:right}
.good{color:#1b5e20}.bad{color:#b71c1c;font-weight:600}.note{color:#666}
"""
_POLICY = (
    "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
    f"style-src 'sha256-{b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetPage:
    """A dataset's part: its health, a cell for each shard, and the newest verdicts by table."""

    health: DatasetHealth
    cells: Mapping[str, CellState]
    verdicts: Mapping[str, Sequence[ShardVerdict]]
    bootstrap: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """All that the page shows. `incidents` are (sentence, advice), `clusters` name to how it is."""

    platform: str
    at: datetime
    passes: str
    plan: str
    datasets: Mapping[str, DatasetPage]
    watched: Mapping[str, DatasetHealth] = field(default_factory=dict)
    incidents: Sequence[tuple[str, str]] = ()
    refusals: Sequence[tuple[str, str]] = ()
    findings: Sequence[tuple[str, str]] = ()
    clusters: Mapping[str, str] = field(default_factory=dict)

    @property
    def well(self) -> bool:
        """True when every shard and watched connector is up, and no newest verdict names a difference."""
        health = [*(one.health for one in self.datasets.values()), *self.watched.values()]
        verdicts = (v for one in self.datasets.values() for of in one.verdicts.values() for v in of)
        return all(h.up == h.shards for h in health) and all(v.verdict is not Verdict.MISMATCHED for v in verdicts)


def page(fleet: Fleet) -> str:
    """The page. All text of others is escaped; a browser runs and loads nothing of it."""
    title = f"{fleet.platform} at {fleet.at:%Y-%m-%d %H:%M:%S}Z"
    body = [
        f"<h1>{_text(title)}</h1><p class='{'good' if fleet.well else 'bad'}'>{_text(_summary(fleet))}</p>",
        f"<p>{_text(fleet.passes)}</p><p>Next: {_text(fleet.plan)}</p>",
        _section("Incidents", ("what", "what to do"), fleet.incidents),
        _section("Refused", ("what", "why"), fleet.refusals),
        *(_dataset(name, one) for name, one in sorted(fleet.datasets.items())),
        *(_watched(name, one) for name, one in sorted(fleet.watched.items())),
        _section("Connect clusters", ("cluster", "state"), sorted(fleet.clusters.items())),
        _section("To know", ("about", "what"), fleet.findings),
    ]
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        "<meta name='referrer' content='no-referrer'><meta name='viewport' content='width=device-width'>"
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body>\n" + "\n".join(filter(None, body)) +
        "\n</body></html>\n"
    )  # fmt: skip


def _text(value: object) -> str:
    return for_html(str(value))


def _summary(fleet: Fleet) -> str:
    shards = sum(one.health.shards for one in fleet.datasets.values())
    up = sum(one.health.up for one in fleet.datasets.values())
    watched, alive = sum(h.shards for h in fleet.watched.values()), sum(h.up for h in fleet.watched.values())
    proofs = _counts([v for one in fleet.datasets.values() for of in one.verdicts.values() for v in of]) or "none yet"
    others = f" {alive} of {watched} watched connectors up." if watched else ""
    return f"{up} of {shards} shards up.{others} Newest verdicts: {proofs}."


def _counts(verdicts: Sequence[ShardVerdict]) -> str:
    counts = Counter(verdict.verdict for verdict in verdicts)
    return ", ".join(f"{counts[kind]} {kind}" for kind in Verdict if counts[kind])


def _section(title: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    found = list(rows)
    return f"<h2>{_text(title)}</h2>{_table(heads, found)}" if found else ""


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows[:_MOST])
    more = f"<p class='note'>and {len(rows) - _MOST} more</p>" if len(rows) > _MOST else ""
    return f"<table><tr>{''.join(f'<th>{_text(head)}</th>' for head in heads)}</tr>{lines}</table>{more}"


def _dataset(name: str, one: DatasetPage) -> str:
    image, alt = b64encode(heat_map(one.cells).encode()).decode(), _text(heat_sentence(one.cells))
    tables = [
        (
            table,
            ", ".join(f"{n} {kind}" for kind in Verdict if (n := sum(v.verdict is kind for v in of)))
            or "no verdict yet",
            f"{sum(v.source_rows for v in of):,}",
            f"{min(v.checked_at for v in of):%Y-%m-%d %H:%M}Z" if of else "",
        )
        for table, of in sorted(one.verdicts.items())
    ]
    bad = [
        (f"{table} {verdict.shard}", verdict.verdict, verdict.reason)
        for table, of in sorted(one.verdicts.items())
        for verdict in of
        if verdict.verdict is not Verdict.PROVEN
    ]
    down = [(shard.shard, shard.state, shard.reason) for shard in one.health.down]
    parts = [
        f"<h2>{_text(name)}: {one.health.up} of {one.health.shards} shards up</h2>",
        f"<p><img alt='{alt}' src='data:image/svg+xml;base64,{image}'></p>" if one.cells else "",
        f"<p class='note'>Bootstrap: {_text(one.bootstrap)}</p>" if one.bootstrap else "",
        _table(("table", "newest verdicts", "rows at the source", "oldest of them"), tables) if tables else "",
        _table(("not up", "state", "why"), down) if down else "",
        _table(("not proven", "verdict", "why"), bad) if bad else "",
    ]
    return "\n".join(filter(None, parts))


def _watched(cluster: str, health: DatasetHealth) -> str:
    down = [(one.shard, one.state, one.reason) for one in health.down]
    title = f"<h2>{_text(cluster)}: {health.up} of {health.shards} watched connectors up</h2>"
    return title + (_table(("not up", "state", "why"), down) if down else "")
