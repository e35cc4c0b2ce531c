"""All shards as one picture: what a cell shows, how large it gets, and that it is a picture."""

from __future__ import annotations

import random
import re
import struct
import zlib
from base64 import b64decode
from collections.abc import Mapping
from xml.etree import ElementTree

import pytest

from cdc_platform.planning.health.heat_map import CellState, as_image, cell_state, heat_map, heat_sentence

SVG = "{http://www.w3.org/2000/svg}"


def shards(count: int, *states: CellState) -> dict[str, CellState]:
    choose = random.Random(7)
    return {f"{number:05d}": choose.choice(states or list(CellState)) for number in range(count)}


def pixels(svg: str) -> list[tuple[int, ...]]:
    """The cells of the picture as colours with their opacity, row by row."""
    (href,) = re.findall(r'href="data:image/png;base64,([^"]+)"', svg)
    png = b64decode(href)
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    chunks: dict[bytes, bytes] = {}
    at = 8
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        kind, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", png, at + 8 + length) == (zlib.crc32(kind + data),)
        chunks[kind] = data
        at += 12 + length
    columns, rows, depth, kind_of_colour = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    assert (depth, kind_of_colour) == (4, 3)
    raw, wide = zlib.decompress(chunks[b"IDAT"]), (columns + 1) // 2 + 1
    found = []
    for row in range(rows):
        line = raw[row * wide + 1 : (row + 1) * wide]
        for index in [half for byte in line for half in (byte >> 4, byte & 15)][:columns]:
            found.append((*chunks[b"PLTE"][3 * index : 3 * index + 3], chunks[b"tRNS"][index]))
    return found


def test_ten_thousand_shards_stay_below_12_kb_whatever_their_states() -> None:
    for cells in (shards(10_000), shards(10_000, CellState.PROVEN), shards(10_000, CellState.DOWN, CellState.PROVEN)):
        assert len(heat_map(cells).encode()) < 12 * 1024


@pytest.mark.parametrize("count", [1, 3, 12, 99, 101, 10_000])
def test_each_shard_has_its_cell_in_order_of_the_ids(count: int) -> None:
    cells = shards(count)
    found = pixels(heat_map(dict(reversed(cells.items()))))
    by_colour: dict[tuple[int, ...], set[CellState]] = {}
    for state, pixel in zip(cells.values(), found, strict=False):
        by_colour.setdefault(pixel, set()).add(state)
    assert all(len(states) == 1 for states in by_colour.values())
    assert len(by_colour) == len(set(cells.values()))
    assert all(pixel[3] == 0 for pixel in found[count:]), "beyond the last shard there is nothing"
    assert all(pixel[3] == 255 for pixel in found[:count])


def test_the_legend_has_what_is_there_with_its_number_and_nothing_else() -> None:
    cells = {"a": CellState.DOWN, "b": CellState.PROVEN, "c": CellState.PROVEN}
    texts = [one.text for one in ElementTree.fromstring(heat_map(cells)).iter(f"{SVG}text")]
    assert texts == ["a", "1 down", "2 captured, proven"]


def test_no_shards_are_a_picture_too() -> None:
    assert ElementTree.fromstring(heat_map({})).tag == f"{SVG}svg"
    assert heat_sentence({}) == "0 shards: none"


def test_names_of_shards_cannot_leave_their_label() -> None:
    root = ElementTree.fromstring(heat_map({'<a"&': CellState.DOWN}))
    assert '<a"&' in [one.text for one in root.iter(f"{SVG}text")]


def test_in_words() -> None:
    assert heat_sentence(shards(12, CellState.PROVEN) | {"x": CellState.DOWN}) == (
        "13 shards: 1 down, 12 captured, proven"
    )


def test_as_an_image_of_markdown_it_can_be_read_back() -> None:
    svg = heat_map(shards(30))
    pattern = r"!\[30 shards\]\(data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)\)"
    (inside,) = re.findall(pattern, as_image(svg, "30 shards"))
    assert b64decode(inside).decode() == svg


@pytest.mark.parametrize(
    ("known", "state"),
    [
        ({"down": None}, CellState.UNPROVEN),
        ({"down": None, "verdict": "proven"}, CellState.PROVEN),
        ({"down": None, "verdict": "pending"}, CellState.UNPROVEN),
        ({"down": None, "verdict": "unverifiable"}, CellState.UNPROVEN),
        ({"down": None, "verdict": "proven", "lag_s": 301.0}, CellState.BEHIND),
        ({"down": None, "verdict": "proven", "lag_s": 300.0}, CellState.PROVEN),
        ({"down": None, "lag_s": 20.0, "max_lag_s": 10.0}, CellState.BEHIND),
        ({"down": "FAILED", "verdict": "proven"}, CellState.DOWN),
        ({"down": "SILENT"}, CellState.DOWN),
        ({"down": "MISSING"}, CellState.MISSING),
        ({"down": "UNKNOWN", "verdict": "proven"}, CellState.UNKNOWN),
        ({"down": "INCOMPLETE", "verdict": "proven"}, CellState.INCOMPLETE),
        ({"down": "FAILED", "verdict": "mismatched"}, CellState.INCOMPLETE),
        ({"down": None, "verdict": "mismatched"}, CellState.INCOMPLETE),
    ],
)
def test_a_cell_shows_the_worst_that_is_known(known: Mapping[str, object], state: CellState) -> None:
    assert cell_state(**known) is state  # type: ignore[arg-type]
