"""What is written now has the form of the newest release on record.

A format that was changed on purpose is recorded under a name of its own (README.md) and added to `RELEASES`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from tests.formats.record import STATE, record
from tests.formats.releases import NEWEST


@pytest.fixture(scope="module")
def now(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("formats") / "now"
    record(root)
    return root


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def form(value: Any) -> Any:
    """A document without its values: what fields there are, and of which type."""
    if isinstance(value, dict):
        return {key: form(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [form(inner) for inner in value]
    return type(value).__name__


def test_the_same_files(now: Path) -> None:
    assert files(now) == files(NEWEST)


def test_the_state_topic_has_the_same_keys_and_fields(now: Path) -> None:
    """Sentences for people may read otherwise; keys, fields and types may not."""

    def forms(root: Path) -> list[tuple[str, Any]]:
        lines = (line.partition("\t") for line in (root / "state" / STATE).read_text().splitlines())
        return [(key, form(json.loads(value)) if value else None) for key, _, value in lines]

    assert forms(now) == forms(NEWEST)


def test_audit_frames_have_the_same_columns(now: Path) -> None:
    for name in files(NEWEST / "audit"):
        written, recorded = (pyarrow.parquet.read_table(root / "audit" / name) for root in (now, NEWEST))
        assert written.schema == recorded.schema
        assert written.to_pylist() == recorded.to_pylist()


@pytest.mark.parametrize("name", [name for name in files(NEWEST) if not name.startswith(("state/", "audit/"))])
def test_all_else_is_the_same_to_the_byte(now: Path, name: str) -> None:
    assert (now / name).read_bytes() == (NEWEST / name).read_bytes()


def test_no_fixture_names_a_module() -> None:
    for name in files(NEWEST):
        assert b"cdc_platform" not in (NEWEST / name).read_bytes(), name
