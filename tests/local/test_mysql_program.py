"""Which MySQL server is found, and what is refused: with programs that only say a version."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdc_platform.errors import StackError
from cdc_platform.local import debian_packages, mysql_program

_MYSQL = "mysqld  Ver {} for Linux on x86_64 (MySQL Community Server - GPL)"
_MARIADB = "mysqld  Ver 11.4.5-MariaDB for Linux on x86_64 (mariadb.org binary distribution)"


def _program(folder: Path, says: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mysqld"
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def test_the_program_that_is_named_is_taken(tmp_path: Path) -> None:
    named = _program(tmp_path / "own", _MYSQL.format("8.4.6-0ubuntu1"))
    found = mysql_program.find(tmp_path, named)
    assert (found.command, found.version, found.origin) == ((str(named),), "8.4.6-0ubuntu1", str(named))
    assert found.options == ()


def test_the_one_on_path_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path = _program(tmp_path / "bin", _MYSQL.format("9.1.0"))
    monkeypatch.setenv("PATH", f"{on_path.parent}:/bin:/usr/bin")
    assert mysql_program.find(tmp_path, None).command == (str(on_path),)


@pytest.mark.parametrize(
    ("says", "message"),
    [
        (_MARIADB, "it is no MySQL server"),
        (_MYSQL.format("8.0.22"), "MySQL 8.0.22 is too old"),
        (_MYSQL.format("5.7.44"), "MySQL 5.7.44 is too old"),
        ("", "it is no MySQL server"),
    ],
)
def test_a_program_that_will_not_do_is_refused(tmp_path: Path, says: str, message: str) -> None:
    with pytest.raises(StackError, match=message):
        mysql_program.find(tmp_path, _program(tmp_path / "own", says))


def test_without_any_the_sentence_says_what_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A MariaDB that calls itself mysqld, and no apt.
    monkeypatch.setenv("PATH", str(_program(tmp_path / "bin", _MARIADB).parent))
    with pytest.raises(StackError) as error:
        mysql_program.find(tmp_path, None)
    assert error.value.message == (
        "there is no MySQL server: none on PATH, and mysql-server-core is not to be had from Debian's suite sid: "
        "this machine has no apt-get."
    )
    assert "--mysqld" in (error.value.cure or "")


def test_packages_that_are_unpacked_need_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    root = tmp_path / "server-1.2-3"
    (root / "usr/lib/x86_64-linux-gnu").mkdir(parents=True)
    loader = root / "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
    loader.touch()
    (root / ".packages.json").write_text('{"version": "1.2-3", "packages": {"server_1.2-3_amd64.deb": "00"}}')
    found = debian_packages.provide(tmp_path, "server", suite="sid")
    assert (found.version, found.packages) == ("1.2-3", {"server_1.2-3_amd64.deb": "00"})
    assert found.command("usr/sbin/mysqld") == (
        str(loader), "--library-path", str(loader.parent), str(root / "usr/sbin/mysqld"),
    )  # fmt: skip
