"""Where Postgres lives: only what the stack made is removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdc_platform.errors import StackError
from cdc_platform.local.postgres_directories import remove


@pytest.mark.parametrize("note", ["", "/", ".", "{here}/mine", "{here}/cdc-platform-postgres-x/.."])
def test_a_note_that_names_something_else_removes_nothing(tmp_path: Path, note: str) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (tmp_path / "cdc-platform-postgres-x").mkdir()
    (tmp_path / "postgres.path").write_text(note.format(here=tmp_path))
    with pytest.raises(StackError, match="no directory that the stack made"):
        remove(tmp_path / "postgres")
    assert mine.exists() and (tmp_path / "cdc-platform-postgres-x").exists()


def test_what_the_stack_made_outside_goes_with_its_note(tmp_path: Path) -> None:
    outside = tmp_path / "cdc-platform-postgres-x"
    (outside / "data").mkdir(parents=True)
    (tmp_path / "postgres.path").write_text(f"{outside}\n")
    remove(tmp_path / "postgres")
    assert not outside.exists() and not (tmp_path / "postgres.path").exists()
    remove(tmp_path / "postgres")
