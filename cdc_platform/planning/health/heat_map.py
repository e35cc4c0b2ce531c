"""All shards of a dataset as one small image: a cell each, coloured by the worst that is known of it. Pure."""

from __future__ import annotations

import struct
import zlib
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from html import escape
from math import ceil, sqrt

# Behind its source by more than this a shard is shown as behind.
MAX_LAG_S = 300.0

_WIDTH = 600
_LEAST_COLUMNS, _MOST_CELL = 10, 24
_LABELS, _TEXT = 64, 'font-family="sans-serif" font-size="11" fill="#757575"'
_LEGEND_ENTRY, _LEGEND_LINE = 165, 18


class CellState(StrEnum):
    """What is known of one shard, the worst first; the value stands in the legend."""

    INCOMPLETE = "incomplete"
    FAILING = "fails this check"
    DOWN = "down"
    MISSING = "no connector"
    UNKNOWN = "unknown"
    BEHIND = "behind"
    UNPROVEN = "captured, not proven"
    PROVEN = "captured, proven"


# Different in brightness too, for those who see no difference between red and green.
_COLOURS = {
    CellState.INCOMPLETE: 0x7B1FA2,
    CellState.FAILING: 0xE64A19,
    CellState.DOWN: 0xC62828,
    CellState.MISSING: 0x424242,
    CellState.UNKNOWN: 0x9E9E9E,
    CellState.BEHIND: 0xF9A825,
    CellState.UNPROVEN: 0x90CAF9,
    CellState.PROVEN: 0x66BB6A,
}
_INDEX = {state: number for number, state in enumerate(_COLOURS)}
# What the last row lacks.
_NOTHING = len(_INDEX)


def cell_state(
    *, down: str | None, lag_s: float | None = None, verdict: str | None = None, max_lag_s: float = MAX_LAG_S
) -> CellState:
    """The state of one shard's cell.

    Args:
        down: the state of its `ShardDown`; None while it is up.
        lag_s: seconds behind its source, where that is known.
        verdict: the worst of the newest verdicts on its tables, None without one.
        max_lag_s: more than that is behind.
    """
    if verdict == "mismatched" or down == "INCOMPLETE":
        return CellState.INCOMPLETE
    if down is not None:
        return {"MISSING": CellState.MISSING, "UNKNOWN": CellState.UNKNOWN}.get(down, CellState.DOWN)
    if lag_s is not None and lag_s > max_lag_s:
        return CellState.BEHIND
    return CellState.PROVEN if verdict == "proven" else CellState.UNPROVEN


def heat_map(cells: Mapping[str, CellState]) -> str:
    """An SVG: shards from left to right in order of their ids, rows labelled by their first shard, and a legend.

    10,000 shards take at most 12 KB whatever their states, since the cells are an image inside.

    Args:
        cells: shard id to state.
    """
    shards = sorted(cells)
    columns = max(_LEAST_COLUMNS, ceil(sqrt(len(shards))))
    rows = max(1, ceil(len(shards) / columns))
    cell = max(2, min(_MOST_CELL, _WIDTH // columns))
    width, height = columns * cell, rows * cell
    indexes = [_INDEX[cells[shard]] for shard in shards]
    image = b64encode(_png(indexes, columns, rows)).decode()
    grid = (
        f'<pattern id="g" width="{cell}" height="{cell}" patternUnits="userSpaceOnUse">'
        f'<path d="M{cell} 0V{cell}H0" fill="none" stroke="#fff" stroke-opacity=".5"/></pattern>'
    )
    step = max(1, ceil(14 / cell), ceil(rows / 12))
    labels = "".join(
        f'<text x="{_LABELS - 6}" y="{row * cell + max(10, min(cell, 12))}" text-anchor="end">'
        f"{escape(_short(shards[row * columns]))}</text>"
        for row in range(0, rows, step)
        if shards
    )
    legend, legend_height = _legend(Counter(cells.values()), _LABELS + max(width, 2 * _LEGEND_ENTRY), height + 10)
    full = _LABELS + max(width, 2 * _LEGEND_ENTRY)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{full}" height="{height + 10 + legend_height}">'
        f"<defs>{grid}</defs><g {_TEXT}>{labels}{legend}</g>"
        f'<image x="{_LABELS}" width="{width}" height="{height}" preserveAspectRatio="none"'
        f' style="image-rendering:pixelated" href="data:image/png;base64,{image}"/>'
        f'<rect x="{_LABELS}" width="{width}" height="{height}" fill="url(#g)"/></svg>'
    )


def heat_sentence(cells: Mapping[str, CellState]) -> str:
    """The heat map in words: `12 shards: 1 down, 11 captured, proven`."""
    counts = Counter(cells.values())
    return f"{len(cells)} shards: " + (", ".join(f"{counts[one]} {one}" for one in CellState if counts[one]) or "none")


def as_image(svg: str, text: str) -> str:
    """A Markdown image with the SVG inside, which Dagster and browsers show; `text` for those who do not see it."""
    return f"![{text}](data:image/svg+xml;base64,{b64encode(svg.encode()).decode()})"


def _legend(counts: Mapping[CellState, int], width: int, top: int) -> tuple[str, int]:
    shown = [state for state in CellState if counts.get(state)]
    across = max(1, (width - _LABELS) // _LEGEND_ENTRY)
    parts = []
    for at, state in enumerate(shown):
        x, y = _LABELS + at % across * _LEGEND_ENTRY, top + at // across * _LEGEND_LINE
        parts.append(
            f'<rect x="{x}" y="{y}" width="10" height="10" fill="#{_COLOURS[state]:06x}"/>'
            f'<text x="{x + 15}" y="{y + 9}">{counts[state]} {state}</text>'
        )
    return "".join(parts), max(1, ceil(len(shown) / across)) * _LEGEND_LINE


def _short(name: str) -> str:
    return name if len(name) <= 9 else f"{name[:8]}…"


def _png(indexes: Sequence[int], columns: int, rows: int) -> bytes:
    """One pixel a cell, four bits each."""
    padded = [*indexes, *[_NOTHING] * (columns * rows - len(indexes))]
    lines = bytearray()
    for row in range(rows):
        line = padded[row * columns : (row + 1) * columns]
        if len(line) % 2:
            line = [*line, _NOTHING]
        lines.append(0)
        lines += bytes(left << 4 | right for left, right in zip(line[::2], line[1::2], strict=True))
    palette = b"".join(colour.to_bytes(3, "big") for colour in [*_COLOURS.values(), 0xFFFFFF])
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (
            _chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 4, 3, 0, 0, 0)),
            _chunk(b"PLTE", palette),
            # The cells that the last row lacks are transparent.
            _chunk(b"tRNS", b"\xff" * _NOTHING + b"\x00"),
            _chunk(b"IDAT", zlib.compress(bytes(lines), 9)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
