"""`python -m benchmarks [NAME ...] [--quick]`: our side and the other side of each benchmark, by turns.

Without a name all run, one after another. The last line says whether all goals were met; exit code 1 says that one
was missed by more than is known, or that an extra is not installed, which is said before anything runs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from cdc_platform.errors import ExtraMissing, require_extra
from cdc_platform.model.topology import Engine

# Name to the extras it needs, in the order in which all of them run. The module is benchmarks/<name>.py.
BENCHMARKS: Mapping[str, tuple[str, ...]] = {
    "duplicates": ("local", "bench"),
    "topology-reader": ("local",),
    "reconcile": ("local",),
    "verify": ("local", "bench"),
    "bootstrap": ("local",),
    "takeover": ("local",),
    "failover": ("local",),
}
RESULTS = Path(__file__).parent / "results"


def main(arguments: Sequence[str]) -> int:
    """See the module. Exit code 2: the arguments are wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; by default all")
    parser.add_argument("--quick", action="store_true", help="small sizes: minutes in all, ratios that waver more")
    parser.add_argument(
        "--size", action="append", default=[], metavar="NAME=VALUE", help="another size, such as rows=1000"
    )
    parser.add_argument(
        "--engine", "--engines", metavar="NAME[,NAME...]", help="what failover and verify run on: short for that size"
    )
    parser.add_argument("--stack", metavar="DIR", help="use the running stack of this directory")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results there, one list")
    parser.add_argument(
        "--record", action="store_true", help="keep the results for docs/benchmarks.md, and write that page"
    )
    asked = parser.parse_args(arguments)
    names = [name.replace("_", "-") for name in asked.names] or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    try:
        for extra in dict.fromkeys(extra for name in names for extra in BENCHMARKS[name]):
            require_extra(extra)
    except ExtraMissing as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    modules = {name: importlib.import_module(f"benchmarks.{name.replace('-', '_')}") for name in names}
    try:
        sizes = {
            name: sizes_of(module, asked.size, quick=asked.quick, engine=asked.engine)
            for name, module in modules.items()
        }
    except ValueError as error:
        parser.error(str(error))
    results = [_measured(name, module, sizes[name], asked) for name, module in modules.items()]
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=1) + "\n")
    if asked.record:
        record(results)
    short, missed = (
        [f"{result['benchmark']}: {text}" for result in results for text in result[kind]]
        for kind in ("short", "missed")
    )
    if short:
        print(f"goals not reached, as docs/benchmarks.md says why: {'; '.join(short)}")
    print(f"goals missed: {'; '.join(missed)}" if missed else "no other goal missed" if short else "goals met")
    return 1 if missed else 0


def sizes_of(module: ModuleType, given: Sequence[str], *, quick: bool, engine: str | None = None) -> dict[str, Any]:
    """The sizes of a run. Raises ValueError for a size that the benchmark does not have, and for an unknown engine."""
    found = {name: values[int(quick)] for name, values in module.SIZES.items()}
    by_engine = next((name for name in ("engine", "engines") if name in found), None)
    if engine is not None:
        if by_engine is None:
            raise ValueError(f"{module.__name__} does not run by engine; name failover or verify before --engine")
        given = [*given, f"{by_engine}={engine}"]
    for text in given:
        name, _, value = text.partition("=")
        if name not in found:
            raise ValueError(f"{module.__name__} has no size {name}; it has {', '.join(found)}")
        found[name] = type(found[name])(value)
    if by_engine is not None:
        _check_engines(found[by_engine], several=by_engine == "engines")
    return found


def _check_engines(names: str, *, several: bool) -> None:
    for name in names.split(",") if several else [names]:
        if name not in list(Engine):
            raise ValueError(f"there is no engine {name}; there are {', '.join(Engine)}")


def _measured(name: str, module: ModuleType, sizes: Mapping[str, Any], asked: argparse.Namespace) -> dict[str, Any]:
    # These import what the extras bring.
    from benchmarks.form import Form
    from benchmarks.machine import load, machine, versions

    before, began = load(), time.monotonic()
    print(f"== {name} ({', '.join(f'{key} {value}' for key, value in sizes.items())}; load {before})", flush=True)
    form = Form(name=name, sizes=sizes, stack=asked.stack, show=lambda text: print(text, flush=True))
    module.run(form)
    return form.document() | {
        "about": (module.__doc__ or "").partition("\n\n")[0].replace("\n", " "),
        "date": datetime.now(UTC).date().isoformat(),
        "quick": asked.quick,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "machine": machine(),
        "versions": versions(),
        "load": {"before": before, "after": load()},
    }


def record(results: Sequence[Mapping[str, Any]]) -> None:
    """Keep results, and write the page of all that are kept."""
    from benchmarks.page import PAGE, page

    RESULTS.mkdir(exist_ok=True)
    for result in results:
        (RESULTS / f"{result['benchmark']}.json").write_text(json.dumps(result, indent=1) + "\n")
    PAGE.write_text(page(kept()))


def kept() -> list[dict[str, Any]]:
    """All results that are kept, in the order of the benchmarks."""
    files = [RESULTS / f"{name}.json" for name in BENCHMARKS]
    return [json.loads(file.read_text()) for file in files if file.exists()]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
