"""`python -m benchmarks NAME [ARGUMENTS]`: one of the benchmarks of this folder."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

NAMES = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))

if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
    raise SystemExit(f"usage: python -m benchmarks NAME [ARGUMENTS]; NAME is one of {', '.join(NAMES)}")
sys.argv = [f"benchmarks.{sys.argv[1]}", *sys.argv[2:]]
runpy.run_module(sys.argv[0], run_name="__main__")
