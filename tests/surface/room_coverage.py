"""`python -m tests.surface.room_coverage`: coverage of each room then (baseline/coverage.json) and now (.coverage).

Run after `make coverage`. Ends with 1 if a room has fallen.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from coverage import Coverage

BASELINE = Path(__file__).parent / "baseline" / "coverage.json"
# Shares are compared as they are shown.
DIGITS = 1


def shares(modules: Iterable[tuple[str, int, int]]) -> dict[str, float]:
    """Room to per cent covered, from (room, covered, all) of each module."""
    covered: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for room, hit, number in modules:
        covered[room] += hit
        total[room] += number
    return {room: round(100 * covered[room] / number, DIGITS) for room, number in sorted(total.items()) if number}


def baseline() -> dict[str, float]:
    """Room to per cent covered at the recorded commit, by the rooms that its modules are in now."""
    modules = json.loads(BASELINE.read_text()).values()
    return shares((room, lines + branches, all_lines + all_branches)
                  for room, lines, all_lines, branches, all_branches in modules)  # fmt: skip


def measured() -> dict[str, float]:
    """Room to per cent covered in the last run under coverage."""
    data = Coverage()
    data.load()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        data.json_report(outfile=str(report))
        files = json.loads(report.read_text())["files"]
    return shares(
        (
            _room(Path(name)),
            found["summary"]["covered_lines"] + found["summary"]["covered_branches"],
            found["summary"]["num_statements"] + found["summary"]["num_branches"],
        )
        for name, found in files.items()
    )


def _room(module: Path) -> str:
    parts = module.parts[module.parts.index("cdc_platform") + 1 :]
    return parts[0] if len(parts) > 1 else "top"


def main() -> int:
    """Print a line for each room."""
    before, after = baseline(), measured()
    print(f"{'room':<14}{'then':>8}{'now':>8}")
    for room in sorted({*before, *after}):
        then, now = before.get(room), after.get(room)
        fallen = then is not None and (now is None or now < then)
        print(f"{room:<14}{then or '':>8}{'' if now is None else now:>8}{'  fallen' if fallen else ''}")
    return int(any(after.get(room, 0.0) < then for room, then in before.items()))


if __name__ == "__main__":
    sys.exit(main())
