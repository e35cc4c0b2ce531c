"""`python .ci/compare_engines.py JUNIT.xml`: what MySQL passed of what MariaDB passed, counted in one run's report.

Counted are tests on a real stack, by the property `engine` that tests/engine_runs.py gives each. Ends with 1 where
MySQL passed less than LEAST of MariaDB's number, and where MariaDB passed nothing: a comparison of nothing is none.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

LEAST = 0.9


def passed(report: Path) -> Counter[str]:
    """Engine to number of tests that passed. Raises OSError, ElementTree.ParseError."""
    found: Counter[str] = Counter()
    for test in ElementTree.parse(report).iter("testcase"):
        if any(test.find(outcome) is not None for outcome in ("failure", "error", "skipped")):
            continue
        engines = {one.get("value", "") for one in test.iter("property") if one.get("name") == "engine"}
        found.update(engines)
    return found


def sentence(found: Counter[str]) -> tuple[str, bool]:
    """What to print, and whether it is enough."""
    mysql, mariadb = found["mysql"], found["mariadb"]
    if not mariadb:
        return f"MySQL passed {mysql} of MariaDB's 0: nothing to compare with", False
    enough = mysql >= LEAST * mariadb
    short = "" if enough else f"; at least {LEAST:.0%} must pass"
    return f"MySQL passed {mysql} of MariaDB's {mariadb} ({mysql / mariadb:.1%}){short}", enough


def main(report: Path) -> int:
    """Print the sentence; 0 when it is enough."""
    try:
        found = passed(report)
    except (OSError, ElementTree.ParseError) as error:
        print(f"MySQL passed an unknown number of tests: {report} cannot be read ({error})")
        return 1
    said, enough = sentence(found)
    print(said)
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
