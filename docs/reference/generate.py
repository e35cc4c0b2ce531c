"""Writes the reference pages of the site from what is recorded of the code; `make docs` runs it first.

The records in `tests/surface/golden` are made from the code itself, and a test holds that they are current.
"""

from __future__ import annotations

import json
from pathlib import Path

FOLDER = Path(__file__).parent
GOLDEN = FOLDER.parents[1] / "tests" / "surface" / "golden"


def command_line() -> str:
    """`cli.md`: the help of every command."""
    text = (GOLDEN / "help.txt").read_text()
    return f"""# All commands
What each prints with `--help`. How they are written, and exit codes: [command line](../command-line.md).

```text
{text.rstrip()}
```
"""


def metrics() -> str:
    """`metrics.md`: what the exporter serves."""
    found = json.loads((GOLDEN / "metrics.json").read_text())
    lines = [
        f"| `{name}` | {metric['type']} | {', '.join(f'`{label}`' for label in metric['labels'])} | {metric['help']} |"
        for name, metric in sorted(found.items())
    ]
    return "\n".join(
        [
            "# Metrics",
            "Served by `cdc-platform exporter`. Rules: `deploy/prometheus/cdc-rules.yml`; a Grafana dashboard:",
            "`deploy/grafana/cdc-platform.json`.",
            "",
            "| metric | type | labels | what |",
            "|---|---|---|---|",
            *lines,
            "",
        ]
    )


PAGES = {"cli.md": command_line, "metrics.md": metrics}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page())
