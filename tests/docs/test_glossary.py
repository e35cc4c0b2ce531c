"""Each term of the glossary stands once, each code name that it gives exists, each package has its line."""

import importlib
import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "cdc_platform"
PAGE = (ROOT / "docs" / "glossary.md").read_text()


def rows(text: str) -> list[list[str]]:
    """The cells of the lines of all tables, without heads."""
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    heads = {index - 1 for index, cells in enumerate(found) if set(cells[0]) == {"-"}}
    return [cells for index, cells in enumerate(found) if index not in heads and set(cells[0]) != {"-"}]


WORDS, PACKAGES = PAGE.split("\n## Packages\n")


def missing(name: str) -> bool:
    """Whether a code name, relative to the package, leads nowhere: a path, or module and attributes with dots."""
    if "/" in name or name.endswith(".py"):
        return not (PACKAGE / name).exists()
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        if (PACKAGE / "/".join(parts[:end])).with_suffix(".py").is_file():
            value: object = importlib.import_module(".".join(["cdc_platform", *parts[:end]]))
            for attribute in parts[end:]:
                if not hasattr(value, attribute):
                    return True
                value = getattr(value, attribute)
            return False
    return True


def test_each_term_stands_once() -> None:
    terms = Counter(cells[0] for cells in rows(WORDS))
    assert len(terms) > 80
    assert [term for term, count in terms.items() if count > 1] == []


def test_each_word_has_a_meaning_and_one_code_name_at_most() -> None:
    wrong = [
        cells for cells in rows(WORDS) if len(cells) != 3 or not cells[1] or not re.fullmatch("(`[^`]+`)?", cells[2])
    ]
    assert wrong == []


def test_each_code_name_exists() -> None:
    names = [cells[2].strip("`") for cells in rows(WORDS) if cells[2]]
    assert len(names) > 60
    assert [name for name in names if missing(name)] == []


def test_a_name_that_is_not_there_is_found() -> None:
    gone = ["planning/planer.py", "planning.plan.Plans", "planning.plans.Plan", "planning.plan.Plan.fingerprints"]
    assert [name for name in gone if not missing(name)] == []
    assert not missing("planning.plan.Plan.fingerprint")


def test_each_package_has_its_line() -> None:
    listed = [cells[0].strip("`").rstrip("/") for cells in rows(PACKAGES)]
    there = {str(file.parent.relative_to(PACKAGE)) for file in PACKAGE.glob("*/**/__init__.py")}
    assert Counter(listed) == Counter(there)
