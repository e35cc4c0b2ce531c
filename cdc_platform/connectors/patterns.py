"""Regular expressions that datasets give: refused when matching one name could take long.

Both Python here and Java on the workers go back and try again, so that `(.+)+!` takes twice as long for each character
of a name. The cost of a pattern is how many ways there are at most to match it.
"""

from __future__ import annotations

import re
from functools import lru_cache

CURE = "Write names, `.*` at most three times in each, and alternatives that are not repeated: (a|b)."

# Options that hold patterns of `<database or schema>.<table>.<column>`, or of types, with commas between.
PATTERN_OPTIONS = frozenset(
    {
        "column.exclude.list",
        "column.include.list",
        "column.propagate.source.type",
        "datatype.propagate.source.type",
    }
)
# Of an unbounded repetition in a name of three parts.
_ENDLESS = 200
_MOST = 4 * _ENDLESS**3

_QUANTIFIER = re.compile(r"([*+?]|\{\d{1,4}(?:,\d{0,4})?\})[?+]?")
_ATOM = re.compile(r"\\[dDwWsSb]|\\[^A-Za-z0-9]|\[\^?\]?(?:\\.|[^\]\\[])*\]|[^\\()|\[*+?{]")
_GROUP = re.compile(r"\((?:\?(?:[:=!]|<?[=!]))?")


@lru_cache(maxsize=1024)
def refused_pattern(text: str) -> str | None:
    """What is wrong with a list of patterns with commas between; None when each is fine."""
    return next((why for part in text.split(",") if (why := _refused(part.strip()))), None)


def _refused(pattern: str) -> str | None:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"{pattern!r} is not a regular expression: {error}"
    try:
        cost, at = _cost(pattern, 0, 0)
    except ValueError as error:
        return f"{pattern!r} {error}"
    if at != len(pattern):
        return f"{pattern!r} is more than a pattern of names needs"
    return f"{pattern!r} may be matched in too many ways" if cost > _MOST else None


def _cost(pattern: str, at: int, depth: int) -> tuple[int, int]:
    """Ways to match the alternatives that begin at `at`, and where they end. Raises ValueError."""
    if depth > 10:
        raise ValueError("has too many groups within each other")
    branches, ways = 0, 1
    while at < len(pattern) and pattern[at] != ")":
        if pattern[at] == "|":
            branches, ways, at = branches + ways, 1, at + 1
            continue
        inner = 1
        if group := _GROUP.match(pattern, at):
            inner, at = _cost(pattern, group.end(), depth + 1)
            at += 1
        elif atom := _ATOM.match(pattern, at):
            at = atom.end()
        else:
            raise ValueError(f"holds {pattern[at : at + 3]!r}, which is more than a pattern of names needs")
        if quantifier := _QUANTIFIER.match(pattern, at):
            if inner > 1 and quantifier.group(1) != "?":
                raise ValueError("repeats a group that holds a repetition or alternatives")
            ways, at = ways * (_repeats(quantifier.group(1)) + inner - 1), quantifier.end()
        else:
            ways *= inner
        if ways > _MOST:
            raise ValueError("may be matched in too many ways")
    return branches + ways, at


def _repeats(quantifier: str) -> int:
    if quantifier in "*+":
        return _ENDLESS
    if quantifier == "?":
        return 2
    least, _, most = quantifier[1:-1].partition(",")
    if not most:
        return _ENDLESS if "," in quantifier else 1
    return max(1, int(most) - int(least) + 1)
