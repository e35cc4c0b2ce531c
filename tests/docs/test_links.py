import re
import subprocess
from pathlib import Path

import pytest

from cdc_platform.defs.check_suites import DEFAULT
from cdc_platform.planning.health.restarts import Failure
from tests.docs.markdown import ROOT, anchors, links, pages, spans

# What a page may name though it is not in the repository: made at run time, or somebody else's.
ELSEWHERE = re.compile(r"^(defs\.yaml|/|~|\.|<|https?:)")
# A file of ours, written with its folder or alone.
FILE = re.compile(r"^[\w./-]+\.(py|md|yaml|sh|sql|json|toml)$")
# Prefixes of keys of the state topic, which look like folders.
KEYS = ("alert/", "outbox/")
FOLDERS = ("cdc_platform", "tests", "docs", "benchmarks", "examples", "deploy")


def tracked() -> set[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}


def broken_links(page: Path) -> list[str]:
    broken = []
    for target in links(page):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_anchors_exist(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_or_anchor_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A page\n[a](#a-page) [b](#b) [c](none.md) [d](page.md#a-page) [e](page.md#e) [f](https://f/)\n")
    assert broken_links(page) == ["#b", "none.md", "page.md#e"]


def test_each_alert_has_its_heading_in_the_runbook() -> None:
    linked = {str(failure) for failure in Failure} | {"split-brain", "leader-not-fit", "no-pass"}
    linked |= {f"check-{expected.check.replace('_', '-')}" for expected in DEFAULT.expectations}
    assert linked - anchors(ROOT / "docs" / "operations.md") == set()


def missing_files(page: Path, files: set[str]) -> list[str]:
    """Code spans that look like files of ours and are none: paths from the root, the package or the page's folder."""
    endings = {"/".join(parts[i:]) for parts in (f.split("/") for f in files) for i in range(len(parts))}
    folders = {ending.rsplit("/", 1)[0] for ending in endings if "/" in ending}
    missing = []
    for span in spans(page):
        if ELSEWHERE.match(span) or re.search(r"[\s*<>{}]", span):
            continue
        if FILE.match(span) and span.endswith((".py", ".md")) and span not in endings:
            missing.append(span)
        if re.match(r"^[a-z_]+(/[a-z_]+)*/$", span) and span not in KEYS and span.rstrip("/") not in folders:
            missing.append(span)
        if span.startswith(tuple(f"{folder}/" for folder in FOLDERS)) and span.rstrip("/") not in files | folders:
            missing.append(span)
    return missing


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page: Path) -> None:
    assert missing_files(page, tracked()) == []


def test_a_file_that_is_not_there_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("`planning/planner.py` `planner/` `planner.py` `looks.py` `docs/none.md` `planning/health/`\n")
    assert missing_files(page, tracked()) == ["planner/", "looks.py", "docs/none.md", "docs/none.md"]
