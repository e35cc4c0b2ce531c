"""The files of the recorded surface, and how values become stable text."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "golden"

ADVICE = (
    "What users see has changed. If that is meant: `python -m tests.surface` records it anew, "
    "and a change of the surface needs a line in CHANGELOG.md."
)


def as_json(value: Any) -> str:
    """JSON with sorted keys, one value a line."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def difference(name: str, now: str) -> str:
    """What differs from the recorded file, with what to do about it; empty when nothing does."""
    file = FOLDER / name
    before = file.read_text() if file.exists() else ""
    if before == now:
        return ""
    lines = difflib.unified_diff(before.splitlines(), now.splitlines(), f"recorded/{name}", f"now/{name}", lineterm="")
    return "\n".join([ADVICE, *lines])


def shape(value: Any) -> Any:
    """Keys and types of a JSON value. Items of a list are merged into one; `key?` is one that not all of them have."""
    if isinstance(value, Mapping):
        return {str(key): shape(found) for key, found in value.items()}
    if isinstance(value, list | tuple):
        return [merged([shape(item) for item in value])] if value else []
    return {bool: "bool", int: "int", float: "float", str: "str", type(None): "null"}[type(value)]


def merged(shapes: Sequence[Any]) -> Any:
    """One shape that all of these have."""
    maps = [one for one in shapes if isinstance(one, Mapping)]
    lists = [one for one in shapes if isinstance(one, list)]
    plain = sorted({word for one in shapes if isinstance(one, str) for word in one.split(" | ")})
    found: list[Any] = []
    if maps:
        names = sorted({name.removesuffix("?") for one in maps for name in one})
        whole: dict[str, Any] = {}
        for name in names:
            values = [one.get(name, one.get(f"{name}?")) for one in maps if name in one or f"{name}?" in one]
            always = len(values) == len(maps) and all(name in one for one in maps)
            whole[name if always else f"{name}?"] = merged(values)
        found.append(whole)
    if lists:
        items = [item for one in lists for item in one]
        found.append([merged(items)] if items else [])
    if not found:
        return " | ".join(plain)
    if plain:
        found.append(" | ".join(plain))
    return found[0] if len(found) == 1 else {"one of": found}
