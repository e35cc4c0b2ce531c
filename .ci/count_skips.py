"""`python .ci/count_skips.py JUNIT.xml ...`: the skipped tests of each report, by reason, and their number last."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree


def skipped(report: Path) -> Counter[str]:
    """Reason to number of tests that a JUnit report says were skipped."""
    tests = ElementTree.parse(report).iter("testcase")
    return Counter(skip.get("message", "") for test in tests for skip in test.iter("skipped"))


def main(arguments: list[str]) -> int:
    """Print reasons and counts; a report that is missing was never written."""
    numbers = []
    for path in map(Path, arguments):
        if not path.exists():
            continue
        reasons = skipped(path)
        for reason, number in sorted(reasons.items()):
            print(f"{path.stem}: {number} skipped: {reason}")
        numbers.append(f"{reasons.total()} on {path.stem}")
    print(f"skips: {', '.join(numbers) or 'unknown'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
