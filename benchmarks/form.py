"""The one form of all benchmarks: our side and another on the same work, by turns, in the same run.

A benchmark is a module with `SIZES` (name to the number of a full and of a quick run) and `run(form)`. It hands its
measurements to the form, which prints them, judges them by their ratio, and keeps them as JSON. Absolute figures are
shown and never judged: they belong to the machine. What is judged is the ratio to the other side, the median of the
rounds, with its spread.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# Of the JSON documents.
VERSION = 1

Size = int | float | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """Of a ratio: `at_most` or `at_least`.

    A goal that is known to be out of reach says so: `cause` why, `limit` the ratio beyond which it is worse than known.
    """

    at_most: float | None = None
    at_least: float | None = None
    limit: float | None = None
    cause: str = ""

    def met(self, ratio: float) -> bool:
        """Whether a ratio meets it."""
        return self._holds(ratio, self.at_most, self.at_least)

    def known_short(self, ratio: float) -> bool:
        """Whether a ratio misses it by no more than is known."""
        if self.limit is None or self.met(ratio):
            return False
        return self._holds(ratio, *((None, self.limit) if self.at_most is None else (self.limit, None)))

    @staticmethod
    def _holds(ratio: float, at_most: float | None, at_least: float | None) -> bool:
        return (at_most is None or ratio <= at_most) and (at_least is None or ratio >= at_least)

    def document(self) -> dict[str, Any]:
        """As JSON, the arguments that make it again."""
        goal = {"at_most": self.at_most} if self.at_most is not None else {"at_least": self.at_least or 0.0}
        return goal if self.limit is None else goal | {"limit": self.limit, "cause": self.cause}

    def __str__(self) -> str:
        return f"at most {self.at_most:g}" if self.at_most is not None else f"at least {self.at_least:g}"


@dataclass(frozen=True, slots=True)
class Spread:
    """Some numbers of one kind."""

    least: float
    median: float
    most: float
    count: int

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Spread:
        """Raises ValueError where there is none."""
        if not numbers:
            raise ValueError("nothing was measured")
        return cls(min(numbers), float(statistics.median(numbers)), max(numbers), len(numbers))

    def __str__(self) -> str:
        if self.count == 1:
            return number(self.median)
        return f"{number(self.least)} / {number(self.median)} / {number(self.most)}"

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {"min": rounded(self.least), "median": rounded(self.median), "max": rounded(self.most), "n": self.count}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One kind of work on both sides, a number for each round. `ratios` are ours by theirs, round by round."""

    name: str
    unit: str
    ours: Spread
    other: Spread
    other_side: str
    ratios: Spread
    goal: Goal | None

    @property
    def met(self) -> bool:
        """Whether its goal, if it has one, is met."""
        return self.goal is None or self.goal.met(self.ratios.median)

    @property
    def short(self) -> bool:
        """Whether its goal is missed by no more than is known."""
        return self.goal is not None and self.goal.known_short(self.ratios.median)

    def sentence(self) -> str:
        """As a line."""
        mark = "" if self.met else " short, as known" if self.short else " MISSED"
        goal = "" if self.goal is None else f" (goal: {self.goal}){mark}"
        sides = f"{self.ours} {self.unit}, {self.other_side} {self.other} {self.unit}"
        return f"{self.name}: {sides}, ratio {self.ratios}{goal}"

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": self.ours.document(),
            "other": self.other.document(),
            "other_side": self.other_side,
            "ratio": self.ratios.document(),
            "goal": self.goal and self.goal.document(),
            "met": self.met,
            "short": self.short,
        }


@dataclass(kw_only=True)
class Form:
    """What one benchmark is asked for, and what it found."""

    name: str
    sizes: Mapping[str, Size]
    stack: str | None = None
    show: Callable[[str], object] = print
    comparisons: list[Comparison] = field(default_factory=list)
    figures: list[dict[str, Any]] = field(default_factory=list)
    conditions: list[dict[str, Any]] = field(default_factory=list)

    def count(self, name: str) -> int:
        """A size that is a number."""
        return int(self.sizes[name])

    def text(self, name: str) -> str:
        """A size that is a text, such as names with commas between them."""
        return str(self.sizes[name])

    def in_turn(
        self,
        name: str,
        unit: str,
        ours: Callable[[], float],
        other: Callable[[], float],
        *,
        other_side: str,
        rounds: int,
        goal: Goal | None = None,
    ) -> Comparison:
        """Run both `rounds` times by turns, the one that begins changing with each round. Both give a number."""
        mine, theirs = list[float](), list[float]()
        for turn in range(rounds):
            sides = [(mine, ours), (theirs, other)]
            for numbers, call in sides if turn % 2 == 0 else reversed(sides):
                numbers.append(call())
        return self.compare(name, unit, mine, theirs, other_side=other_side, goal=goal)

    def compare(
        self,
        name: str,
        unit: str,
        ours: Sequence[float],
        other: Sequence[float],
        *,
        other_side: str,
        goal: Goal | None = None,
    ) -> Comparison:
        """Keep what was measured by turns, a number a round. Raises ValueError where the rounds are not as many."""
        ratios = [mine / theirs for mine, theirs in zip(ours, other, strict=True)]
        found = Comparison(
            name=name,
            unit=unit,
            ours=Spread.of(ours),
            other=Spread.of(other),
            other_side=other_side,
            ratios=Spread.of(ratios),
            goal=goal,
        )
        self.comparisons.append(found)
        self.show(found.sentence())
        return found

    def figure(self, name: str, unit: str, numbers: Sequence[float]) -> None:
        """Keep what has no other side: shown, not judged."""
        spread = Spread.of(numbers)
        self.figures.append({"name": name, "unit": unit, **spread.document()})
        self.show(f"{name}: {spread} {unit}")

    def condition(self, name: str, met: bool, found: str) -> None:
        """Keep what must hold whatever the machine, such as that nothing was lost."""
        self.conditions.append({"name": name, "met": met, "found": found})
        self.show(f"{name}: {found}{'' if met else ' MISSED'}")

    def short(self) -> list[str]:
        """The goals that were missed by no more than is known."""
        return [_judged(found) for found in self.comparisons if found.short]

    def missed(self) -> list[str]:
        """The other goals, and the conditions, that were not met."""
        goals = [_judged(found) for found in self.comparisons if not found.met and not found.short]
        return goals + [f"{found['name']}: {found['found']}" for found in self.conditions if not found["met"]]

    def document(self) -> dict[str, Any]:
        """As JSON; `benchmarks.machine` adds where it ran."""
        return {
            "version": VERSION,
            "benchmark": self.name,
            "sizes": dict(self.sizes),
            "comparisons": [found.document() for found in self.comparisons],
            "figures": self.figures,
            "conditions": self.conditions,
            "short": self.short(),
            "missed": self.missed(),
        }


def _judged(found: Comparison) -> str:
    return f"{found.name} {number(found.ratios.median)} ({found.goal})"


def number(value: float) -> str:
    """Three digits that count, thousands with commas."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def rounded(value: float) -> float:
    """To five digits that count."""
    return float(f"{value:.5g}")
