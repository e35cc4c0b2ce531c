"""The bill of materials of what is installed beside cdc-platform, as CycloneDX JSON, to stdout: `make sbom`."""

from __future__ import annotations

import json
import sys
from importlib.metadata import Distribution, distribution
from typing import Any

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

EXTRAS = ("alerts", "local", "quotas")


def needed(name: str, extras: tuple[str, ...], found: dict[str, Distribution]) -> dict[str, Distribution]:
    """The distribution and all that it needs here, by canonical name. Raises PackageNotFoundError."""
    made = distribution(name)
    found[canonicalize_name(name)] = made
    for text in made.requires or ():
        requirement = Requirement(text)
        environments = [{**default_environment(), "extra": extra} for extra in ("", *extras)]
        applies = requirement.marker is None or any(requirement.marker.evaluate(each) for each in environments)
        if applies and canonicalize_name(requirement.name) not in found:
            needed(requirement.name, tuple(requirement.extras), found)
    return found


def component(made: Distribution) -> dict[str, Any]:
    """One entry: name, version, package URL and licence as the package states them."""
    name, version = canonicalize_name(made.metadata["Name"]), made.version
    stated = dict(made.metadata.items())
    licence = stated.get("License-Expression") or stated.get("License")
    known = {"licenses": [{"license": {"name": licence.splitlines()[0][:100]}}]} if licence else {}
    return {"type": "library", "name": name, "version": version, "purl": f"pkg:pypi/{name}@{version}", **known}


def main() -> None:
    """Print the document."""
    found = needed("cdc-platform", EXTRAS, {})
    own = component(found.pop("cdc-platform"))
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {**own, "type": "application"}},
        "components": [component(found[name]) for name in sorted(found)],
    }
    json.dump(document, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
