"""In CI MySQL gets one more try, with the package that ran last; a server that is missing is a failure."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cdc_platform.errors import StackError
from cdc_platform.local import debian_packages, mysql_program
from cdc_platform.local.stack import Stack, StackSpec
from tests import conftest, mysql_in_ci

NEWEST, BEFORE = "9.8.0-1", "9.7.4-2"


def unpacked(cache: Path, version: str, *, age: int, ran: bool) -> None:
    root = cache / "programs" / f"mysql-server-core-{version}"
    root.mkdir(parents=True)
    manifest = root / ".packages.json"
    manifest.write_text(
        f'{{"version": "{version}", "packages": {{"libc6_1_amd64.deb": "00", '
        f'"mysql-server-core_{version}_amd64.deb": "ab"}}}}'
    )
    if ran:
        debian_packages.note_ran(root)
    for path in (manifest, *root.glob(".ran")):
        os.utime(path, (1_700_000_000 - age,) * 2)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in CI, of a machine that has no apt."""
    monkeypatch.setenv("CDC_TEST_CI", "1")
    monkeypatch.setenv("PATH", "/nowhere")
    mysql_in_ci.renewed.cache_clear()
    conftest._lacks_mysql.cache_clear()
    return tmp_path / "cache"


class Starts:
    """Starts of a stack: those of the package that is broken fail, with a server's words."""

    def __init__(self, broken: str, words: str = "mysql-1 ended with code 1.") -> None:
        self.broken, self.words, self.tried = broken, words, list[str]()

    def __call__(self, spec: StackSpec) -> Stack:
        found = debian_packages.newest(spec.cache_dir / "programs", mysql_program.PACKAGE)
        assert found is not None
        self.tried.append(found.version)
        assert not (spec.directory / "mysql-1").exists()
        (spec.directory / "mysql-1").mkdir(parents=True)
        if found.version == self.broken:
            raise StackError(self.words, cure="Read its log.")
        return object.__new__(Stack)


def spec_of(cache: Path) -> StackSpec:
    return StackSpec(directory=cache.parent / "stack", cache_dir=cache, mysql=True)


def test_a_mysql_that_does_not_start_is_tried_once_more_with_the_package_that_ran_last(cache: Path) -> None:
    unpacked(cache, "9.6.0-1", age=90, ran=True)
    unpacked(cache, BEFORE, age=50, ran=True)
    unpacked(cache, NEWEST, age=0, ran=False)
    starts = Starts(NEWEST)
    with pytest.warns(UserWarning) as told:
        mysql_in_ci.up(spec_of(cache), starts)
    assert starts.tried == [NEWEST, BEFORE]
    assert any(f"ran last, {BEFORE} (SHA-256 ab): " in str(one.message) for one in told)


def test_what_fails_twice_fails(cache: Path) -> None:
    unpacked(cache, BEFORE, age=0, ran=True)
    starts = Starts(BEFORE)
    with pytest.warns(UserWarning), pytest.raises(StackError, match="mysql-1 ended"):
        mysql_in_ci.up(spec_of(cache), starts)
    assert starts.tried == [BEFORE, BEFORE]


def test_without_a_package_that_ran_and_for_other_services_there_is_no_second_try(cache: Path) -> None:
    unpacked(cache, NEWEST, age=0, ran=False)
    for starts in (Starts(NEWEST), Starts(NEWEST, "kafka ended with code 1.")):
        with pytest.warns(UserWarning), pytest.raises(StackError):
            mysql_in_ci.up(StackSpec(directory=cache / starts.words, cache_dir=cache, mysql=True), starts)
        assert len(starts.tried) == 1


def test_a_server_that_is_missing_fails_in_ci_and_is_one_sentence_elsewhere(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conftest, "StackSpec", lambda: spec_of(cache))
    with pytest.raises(pytest.fail.Exception, match="no MySQL server: there is no MySQL server"):
        conftest.require_mysql()
    for name in ("CI", "CDC_TEST_CI"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(pytest.skip.Exception, match="no MySQL server: there is no MySQL server"):
        conftest.require_mysql()
    conftest._lacks_mysql.cache_clear()


_APT = """#!/bin/sh
for word in "$@"; do
  case $word in
    indextargets) echo "mirror"; exit;;
    update) echo update >> {log}; exit;;
    install) echo "'mirror/pool/x.deb' libc6_1_amd64.deb 1 SHA256:0"
             echo "'mirror/pool/y.deb' mysql-server-core_{version}_amd64.deb 1 SHA256:0"; exit;;
    download) touch libc6_1_amd64.deb mysql-server-core_{version}_amd64.deb; exit;;
  esac
done
"""


def test_the_newest_package_is_fetched_once_and_beside_it_the_one_that_ran_is_kept(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By programs that speak as apt-get and dpkg-deb do."""
    programs, log, bin_ = cache / "programs", cache.parent / "asked", cache.parent / "bin"
    for version, age, ran in (("9.5.0-1", 300, False), ("9.6.0-1", 200, True), (BEFORE, 100, False)):
        unpacked(cache, version, age=age, ran=ran)
    bin_.mkdir()
    for name, text in (("apt-get", _APT.format(version=NEWEST, log=log)), ("dpkg-deb", "#!/bin/sh\n")):
        (bin_ / name).write_text(text)
        (bin_ / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}:/bin:/usr/bin")
    monkeypatch.setattr(debian_packages, "_KEYRINGS", (bin_ / "apt-get",))
    for _ in range(2):
        mysql_program.renew(cache)
        found = debian_packages.newest(programs, mysql_program.PACKAGE)
        assert found is not None and found.version == NEWEST
    # Within a day the suite is asked once.
    assert log.read_text() == "update\n"
    assert {path.name for path in programs.glob("mysql-*")} == {
        f"mysql-server-core-{NEWEST}",
        "mysql-server-core-9.6.0-1",
    }
    # A day later nothing is new: the suite is asked, and nothing is fetched.
    root = programs / f"mysql-server-core-{NEWEST}"
    os.utime(root / ".packages.json", (1_700_000_000,) * 2)
    (root / "kept").touch()
    mysql_program.renew(cache)
    assert log.read_text() == "update\n" * 2 and (root / "kept").exists()
