"""`python -m benchmarks NAME [arguments]`: runs one benchmark; its last line says whether its goal was met."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

from cdc_platform.errors import ExtraMissing, require_extra


def main(arguments: list[str]) -> int:
    """Run the benchmark module of that name by its `main(arguments) -> exit code`."""
    names = sorted(
        m.name.replace("_", "-")
        for m in pkgutil.iter_modules([str(Path(__file__).parent)])
        if not m.name.startswith("_")
    )
    name = arguments[0].replace("_", "-") if arguments else ""
    if name not in names:
        print(f"Usage: python -m benchmarks NAME [arguments]; NAME is one of {', '.join(names)}.", file=sys.stderr)
        return 2
    try:
        require_extra("local")
        return _run(name, arguments[1:])
    except ExtraMissing as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1


def _run(name: str, arguments: list[str]) -> int:
    module = importlib.import_module(f"benchmarks.{name.replace('-', '_')}")
    if not hasattr(module, "main"):
        print(f"{name} is no benchmark of its own.", file=sys.stderr)
        return 2
    code: int = module.main(arguments)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
