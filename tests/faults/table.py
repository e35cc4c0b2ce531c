"""The table of a run of the suite."""

from __future__ import annotations

from collections.abc import Sequence

from tests.faults.scenario import LATE, Outcome

_HEAD = (
    "scenario",
    "lasted s",
    "recovery s",
    "worst s",
    f"later than {LATE:.0f} s",
    "events",
    "lost",
    "duplicates and blame",
    "verdict",
)


def lines(outcomes: Sequence[Outcome | str]) -> list[str]:
    """A Markdown table; a scenario that failed is a name with nothing behind it."""
    rows = [_HEAD, *(_row(one) for one in outcomes)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(_HEAD))]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    notes = [f"{one.name}: {one.note}" for one in outcomes if isinstance(one, Outcome) and one.note]
    return [*text, "", *notes]


def _row(one: Outcome | str) -> tuple[str, ...]:
    if isinstance(one, str):
        return (one, *[""] * (len(_HEAD) - 2), "FAILED")
    total = sum(one.duplicates.values())
    blamed = ", ".join(f"{count} {cause}" for cause, count in sorted(one.duplicates.items()))
    return (
        one.name,
        f"{one.lasted:.1f}",
        f"{one.recovery:.1f}",
        f"{one.worst:.1f}",
        f"{one.late:.1%}",
        str(one.events),
        str(one.lost) + (f" ({one.steps} steps told)" if one.steps else ""),
        f"{total}: {blamed}" if total else "0",
        one.verdict,
    )
