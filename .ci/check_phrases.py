"""Wordings that the house has a better word for: counted per file, and the counts may only fall.

`python .ci/check_phrases.py` compares the sources and documents with `.ci/phrases.json` and ends with 1 if a file has
more of a wording than it is granted there. With `--record` what was won is written down; no wording's total may
grow, but it may move with its file.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / ".ci" / "phrases.json"
LOOKED_AT = ("cdc_platform/**/*.py", "docs/**/*.md", "*.md")
# Says what older releases called things.
LEFT_OUT = ("CHANGELOG.md",)

# Name to the expression and what to write instead. Case does not matter.
PHRASES: Mapping[str, tuple[str, str]] = {
    "anew": (r"\banew\b", "again, from scratch"),
    "told": (r"\btold\b", "reported, named, given"),
    "a person": (r"\ba person\b", "an operator, a caller"),
    "whoever": (r"\bwhoever\b", "the caller, the consumer, an operator who"),
    "nobody": (r"\b(no|some)body\b", "no one concrete: name the caller, operator or process"),
    "mend": (r"\bmend(s|ed|ing)?\b", "repair, fix"),
    "is no": (r"\bis no (table|list|number|text|string|boolean|object|array|name)\b", "must be a ..."),
    "of now": (r"\b(one|ones|that|those) of now\b", "the current ..."),
    "which so": (r"\bwhich so\b|\bso costs\b", "so ..., as a sentence of its own"),
    "picture": (r"\bpictures?\b", "observed state"),
    "ideal state": (r"\bideal[ _]state\b", "desired state"),
    "bounce": (r"\bbounc(e|es|ed|ing)\b", "stop and resume"),
    "slab": (r"\bslabs?\b", "batch"),
    "sighting": (r"\bsightings?\b", "delivery"),
    "crew": (r"\bcrews?\b", "connection pool"),
}
_COMPILED = {name: re.compile(pattern, re.IGNORECASE) for name, (pattern, _) in PHRASES.items()}

Counts = dict[str, dict[str, int]]


def occurrences(text: str) -> Iterator[tuple[int, str]]:
    """Line number and name of each wording in a text."""
    for number, line in enumerate(text.splitlines(), 1):
        for name, expression in _COMPILED.items():
            for _ in expression.finditer(line):
                yield number, name


def counted(root: Path = ROOT) -> Counts:
    """Path to wording to number, of the files that have any."""
    found: Counts = {}
    for path in sorted({path for pattern in LOOKED_AT for path in root.glob(pattern)}):
        counts = Counter(name for _, name in occurrences(path.read_text()))
        if counts and path.name not in LEFT_OUT:
            found[str(path.relative_to(root))] = dict(sorted(counts.items()))
    return found


def grown(now: Counts, granted: Counts) -> list[tuple[str, str, int, int]]:
    """Path, wording, number of now and number granted, where the first is greater."""
    return [
        (path, name, number, granted.get(path, {}).get(name, 0))
        for path, counts in now.items()
        for name, number in counts.items()
        if number > granted.get(path, {}).get(name, 0)
    ]


def totals(counts: Counts) -> Counter[str]:
    """Wording to number in all files."""
    total: Counter[str] = Counter()
    for of_file in counts.values():
        total.update(of_file)
    return total


def main(arguments: list[str]) -> int:
    """Compare, or with `--record` write down."""
    granted: Counts = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    now = counted()
    if arguments == ["--record"]:
        more = totals(now) - totals(granted) if RECORD.exists() else Counter()
        for name, number in sorted(more.items()):
            print(f"{number} more of {name!r} than recorded: write {PHRASES[name][1]}.")
        if not more:
            RECORD.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n")
        return 1 if more else 0
    for path, name, number, limit in grown(now, granted):
        lines = [str(line) for line, found in occurrences((ROOT / path).read_text()) if found == name]
        print(f"{path}: {name!r} {number} times, {limit} granted (lines {', '.join(lines)}): {PHRASES[name][1]}.")
    won = (totals(granted) - totals(now)).total()
    if won:
        print(f"{won} fewer than recorded: python .ci/check_phrases.py --record")
    return 1 if grown(now, granted) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
