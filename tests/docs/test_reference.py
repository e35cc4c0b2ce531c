"""The reference is made of the code of now, the site has every page, and each block of the README can be typed."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from cdc_platform.cli.main import COMMANDS, main
from cdc_platform.model.topology import Cluster, Dataset, Limits, Shard, TopicSpec
from cdc_platform.planning.health.failures import Failure

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def generator() -> Any:
    spec = importlib.util.spec_from_file_location("reference", DOCS / "reference" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_names_every_command_and_metric() -> None:
    pages = {name: page() for name, page in generator().PAGES.items()}
    assert all(f"cdc-platform {name}" in pages["cli.md"] for name in COMMANDS)
    assert "| `cdc_watched_connectors` | gauge | `cluster`, `state` |" in pages["metrics.md"]
    assert pages["metrics.md"].count("\n| `cdc_") > 20


@pytest.mark.parametrize("kind", [Cluster, Dataset, Shard, TopicSpec, Limits], ids=lambda kind: kind.__name__)
def test_the_topology_page_has_every_field(kind: Any) -> None:
    page = (DOCS / "topology.md").read_text()
    named = {field.name for field in fields(kind)} - {"name", "dataset", "extra", "left_out"}
    assert {name for name in named if not re.search(rf"\b{name}\b", page)} == set()


def test_operations_has_an_anchor_for_each_class_of_failure() -> None:
    page = (DOCS / "operations.md").read_text()
    headings = {heading.strip().lower() for heading in re.findall(r"^#+ (.*)$", page, re.MULTILINE)}
    named = {word for heading in headings for word in re.findall(r"[a-z0-9-]+", heading)}
    assert {str(failure) for failure in Failure} - named == set()


def _nav(entries: Any) -> list[str]:
    if isinstance(entries, str):
        return [entries]
    parts = entries.values() if isinstance(entries, dict) else entries
    return [page for part in parts for page in _nav(part)]


def test_the_site_has_every_page_once() -> None:
    pages = _nav(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    written = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    written |= {f"reference/{name}" for name in generator().PAGES}
    left = {"guess-test.md", *(page for page in written if page.startswith("decisions/0"))}
    assert sorted(pages) == sorted(written - left)


def _lines(page: Path) -> list[str]:
    """The lines of its blocks that call the command line, as one types them."""
    blocks = re.findall(r"^```(?:sh|bash)?\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    joined = "\n".join(blocks).replace("\\\n", " ")
    found = (line.partition(" #")[0].split(" > ")[0].split(" || ")[0] for line in joined.splitlines())
    return [line for line in found if line.startswith("cdc-platform ") and "[" not in line and " | " not in line]


TYPED = [(page.name, line) for page in (ROOT / "README.md", DOCS / "adoption.md", DOCS / "tutorial.md",
         DOCS / "bootstrap.md") for line in _lines(page)]  # fmt: skip


@pytest.mark.parametrize(("page", "line"), TYPED, ids=[line for _, line in TYPED])
def test_a_command_of_a_page_exists_with_its_options(page: str, line: str) -> None:
    words = shlex.split(line)[1:]
    context = click.Context(main, info_name="cdc-platform")
    command: click.Command = main
    while isinstance(command, click.Group):
        _, found, words = command.resolve_command(context, words)
        assert found is not None, f"{page}: {line}"
        command = found
    if "--help" not in words:
        command.make_context(command.name, words, parent=context)


@pytest.mark.slow
def test_the_site_builds(tmp_path: Path) -> None:
    subprocess.run([sys.executable, DOCS / "reference" / "generate.py"], check=True, timeout=60)
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "site" / "tutorial" / "index.html").read_text()
    assert "own database, proven" in text and "https://fonts." not in text
