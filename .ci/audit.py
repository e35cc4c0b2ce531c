"""Runs pip-audit over locked requirements: `python .ci/audit.py PIP_AUDIT FILE...`, by `make audit`.

Ends with 0 when nothing is known against them, 1 when something is, and 2, with one sentence, when the service
that knows could not be asked.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SECONDS = 300
NO_DATA = (
    "Error: the advisories could not be had ({reason}). Cure: Run `make audit` where pip-audit reaches its service; "
    "nothing is known of these versions until then."
)


def main(program: str, files: list[str]) -> int:
    """The exit code."""
    found: list[str] = []
    for file in files:
        argv = [
            program,
            "--requirement",
            file,
            "--require-hashes",
            "--disable-pip",
            "--format=json",
            "--progress-spinner=off",
        ]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            print(NO_DATA.format(reason=type(error).__name__), file=sys.stderr)
            return 2
        try:
            packages = json.loads(done.stdout)["dependencies"]
        except (ValueError, KeyError, TypeError):
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            print(
                NO_DATA.format(reason=lines[-1].strip()[:200] if lines else f"exit {done.returncode}"), file=sys.stderr
            )
            return 2
        for one in packages:
            found += [
                f"{Path(file).name}: {one['name']} {one['version']}: {hole['id']}" for hole in one.get("vulns", ())
            ]
    print("\n".join(found) or "nothing is known against these versions")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
