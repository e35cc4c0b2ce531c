"""docs/benchmarks.md, made from the results in benchmarks/results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.form import Goal, Spread

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"

_HEAD = """# Benchmarks
Made by `python -m benchmarks --record` from `benchmarks/results`; do not edit.

`python -m benchmarks [NAME ...] [--quick]` runs them on real servers, all on one machine. Each measures our side and
another side on the same work, by turns, in the same run. A goal is a ratio of ours to theirs, judged by the
median of the rounds; the least and the most stand beside it. Absolute figures belong to the machine and are not judged.
*quick* runs are small, and their ratios waver more. A goal that is known to be out of reach stands there as
*not reached*, with the cause; `python -m benchmarks` fails only where a ratio is worse than the limit beside it.
"""


def page(results: Sequence[Mapping[str, Any]]) -> str:
    """The whole page."""
    return "\n".join([_HEAD, *(_section(result) for result in results)])


def _section(result: Mapping[str, Any]) -> str:
    where, load = result["machine"], result["load"]
    sizes = ", ".join(f"{key} {_size(value)}" for key, value in result["sizes"].items())
    versions = ", ".join(f"{key} {value}" for key, value in result["versions"].items())
    lines = [
        f"## {result['benchmark']}",
        result["about"],
        "",
        f"{result['date']}, {'quick, ' if result['quick'] else ''}{result['minutes']} min; {sizes}.",
        f"{where['processor']}, {where['cores']} cores, {where['memory_gb']} GB, Linux {where['kernel']};",
        f"load {load['before']} before, {load['after']} after; {versions}.",
    ]
    if result["comparisons"]:
        titles = "unit", "ours: min / median / max", "other side", "its min / median / max", "ratio", "goal"
        lines += ["", f"| | {' | '.join(titles)} |", "|---|---|---|---|---|---|---|"]
        lines += [_comparison(found) for found in result["comparisons"]]
        causes = [(found["name"], found["goal"]["cause"]) for found in result["comparisons"] if found.get("short")]
        lines += [f"\n*{name}* is not reached: {cause}" for name, cause in dict.fromkeys(causes)]
    if result["figures"]:
        lines += ["", "| without another side | unit | min / median / max |", "|---|---|---|"]
        lines += [f"| {found['name']} | {found['unit']} | {_spread(found)} |" for found in result["figures"]]
    if result["conditions"]:
        lines += ["", "| condition | found | |", "|---|---|---|"]
        lines += [
            f"| {found['name']} | {found['found']} | {'met' if found['met'] else '**missed**'} |"
            for found in result["conditions"]
        ]
    return "\n".join(lines) + "\n"


def _comparison(found: Mapping[str, Any]) -> str:
    goal = "" if not found["goal"] else str(Goal(**found["goal"]))
    mark = (
        ""
        if found["met"]
        else f" *not reached*, limit {found['goal']['limit']:g}"
        if found.get("short")
        else " **missed**"
    )
    cells = (
        found["name"], found["unit"], _spread(found["ours"]), found["other_side"], _spread(found["other"]),
        f"**{_spread(found['ratio'])}**", f"{goal}{mark}",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _spread(found: Mapping[str, Any]) -> str:
    return str(Spread(found["min"], found["median"], found["max"], found["n"]))


def _size(value: int | float | str) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
