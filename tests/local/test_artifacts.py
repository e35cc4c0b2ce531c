"""The programs' lock and cache, against a repository on loopback."""

from __future__ import annotations

import errno
import io
import os
import shutil
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cdc_platform.errors import ChecksumMismatch, StackError
from cdc_platform.local import artifacts, unpacking
from cdc_platform.local.artifacts import Lock, maven_mirror, provide
from tests.local.maven import Repository, serving


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving(tmp_path / "home") as served:
        yield served


def tar(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def test_programs_come_from_the_users_maven_mirror(repository: Repository, tmp_path: Path) -> None:
    lock = Lock(parts={"kafka": (repository.add("a", b"alpha"), repository.add("b", b"beta"))})
    programs = provide(tmp_path / "cache", lock)
    assert [path.read_bytes() for path in programs.jars["kafka"]] == [b"alpha", b"beta"]
    assert programs.classpath("kafka").split(os.pathsep) == [str(p) for p in programs.jars["kafka"]]


def test_second_start_uses_no_network(repository: Repository, tmp_path: Path) -> None:
    plugin = repository.add("p", tar({"p/p.jar": b"x"}), classifier="plugin", extension="tar.gz")
    lock = Lock(parts={"kafka": (repository.add("a", b"alpha"),), "debezium-mariadb": (plugin,)})
    first = provide(tmp_path / "cache", lock)
    asked = len(repository.requests)
    assert provide(tmp_path / "cache", lock) == first
    assert len(repository.requests) == asked
    assert (first.directories["debezium-mariadb"] / "p" / "p.jar").read_bytes() == b"x"


def test_wrong_checksum_is_refused_and_nothing_is_kept(repository: Repository, tmp_path: Path) -> None:
    entry = repository.add("a", b"alpha")
    repository.files[entry.filename] = b"evil!"
    with pytest.raises(ChecksumMismatch) as caught:
        provide(tmp_path / "cache", Lock(parts={"kafka": (entry,)}))
    assert caught.value.where == entry.filename
    assert entry.sha256 in str(caught.value)
    assert caught.value.cure
    assert not list((tmp_path / "cache").rglob("*.jar"))


def test_damaged_file_in_the_cache_is_fetched_again(repository: Repository, tmp_path: Path) -> None:
    lock = Lock(parts={"kafka": (repository.add("a", b"alpha"),)})
    (jar,) = provide(tmp_path / "cache", lock).jars["kafka"]
    jar.write_bytes(b"alphb")
    provide(tmp_path / "cache", lock)
    assert jar.read_bytes() == b"alpha"


def test_damaged_unpacked_directory_is_made_anew(repository: Repository, tmp_path: Path) -> None:
    plugin = repository.add("p", tar({"p/p.jar": b"x", "p/q.jar": b"y"}), extension="tar.gz")
    lock = Lock(parts={"debezium-mysql": (plugin,)})
    directory = provide(tmp_path / "cache", lock).directories["debezium-mysql"]
    (directory / "p" / "q.jar").unlink()
    provide(tmp_path / "cache", lock)
    assert (directory / "p" / "q.jar").read_bytes() == b"y"


def test_cut_connection_is_tried_again_from_the_start(repository: Repository, tmp_path: Path) -> None:
    entry = repository.add("a", bytes(range(256)) * 1000)
    repository.cuts[entry.filename] = [1000]
    (jar,) = provide(tmp_path / "cache", Lock(parts={"kafka": (entry,)})).jars["kafka"]
    assert artifacts.sha256(jar) == entry.sha256
    assert repository.requests.count(entry.filename) == 2


def test_half_download_of_a_killed_process_is_thrown_away(repository: Repository, tmp_path: Path) -> None:
    left = tmp_path / "cache" / "programs" / ".download-dead" / "a.jar"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"al")
    provide(tmp_path / "cache", Lock(parts={"kafka": (repository.add("a", b"alpha"),)}))
    assert not left.parent.exists()


def test_two_processes_at_once_download_once(repository: Repository, tmp_path: Path) -> None:
    entry = repository.add("a", b"alpha" * 10000)
    lock = Lock(parts={"kafka": (entry,)})
    errors: list[BaseException] = []

    def run() -> None:
        try:
            provide(tmp_path / "cache", lock)
        except BaseException as error:  # noqa: BLE001 (shown below)
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert repository.requests.count(entry.filename) == 1


def test_file_that_no_repository_has(repository: Repository, tmp_path: Path) -> None:
    entry = repository.add("a", b"alpha")
    repository.files.clear()
    with pytest.raises(StackError, match=r"a-1\.0\.jar: no repository has it"):
        provide(tmp_path / "cache", Lock(parts={"kafka": (entry,)}))


def test_no_network_is_one_clear_error(repository: Repository, tmp_path: Path) -> None:
    entry = repository.add("a", b"alpha")
    settings = tmp_path / "home" / ".m2" / "settings.xml"
    settings.write_text(settings.read_text().replace(repository.url, "http://127.0.0.1:1/maven"))
    with pytest.raises(StackError) as caught:
        provide(tmp_path / "cache", Lock(parts={"kafka": (entry,)}))
    assert caught.value.where == entry.filename
    assert "network" in (caught.value.cure or "")


def test_no_disk_space_is_seen_before_the_download(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = repository.add("a", b"alpha" * 1000)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    with pytest.raises(StackError, match="no space") as caught:
        provide(tmp_path / "cache", Lock(parts={"kafka": (entry,)}))
    assert caught.value.where == str(tmp_path / "cache" / "programs")
    assert "XDG_CACHE_HOME" in (caught.value.cure or "")
    assert repository.requests == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_disk_space_while_unpacking(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    plugin = repository.add("p", tar({"p/p.jar": b"x"}), extension="tar.gz")

    def full(*args: Any, **more: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tarfile.TarFile, "extractall", full)
    lock = Lock(parts={"debezium-mysql": (plugin,)})
    with pytest.raises(StackError, match="no space"):
        provide(tmp_path / "cache", lock)
    monkeypatch.undo()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    directory = provide(tmp_path / "cache", lock).directories["debezium-mysql"]
    assert (directory / "p" / "p.jar").read_bytes() == b"x"


@pytest.mark.parametrize("old_python", [False, True])
def test_archive_member_outside_its_directory_is_refused(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old_python: bool
) -> None:
    if old_python:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    plugin = repository.add("p", tar({"../../escaped": b"x"}), extension="tar.gz")
    with pytest.raises(StackError, match="outside"):
        provide(tmp_path / "cache", Lock(parts={"debezium-mysql": (plugin,)}))
    assert not list(tmp_path.rglob("escaped"))


def test_cache_that_cannot_be_written(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StackError, match="could not be stored") as caught:
        provide(tmp_path / "cache", Lock(parts={"kafka": (repository.add("a", b"alpha"),)}))
    assert "writable" in (caught.value.cure or "")


@pytest.mark.parametrize(
    ("mirror_of", "extra", "used"),
    [
        ("central", "", True),
        ("*", "", True),
        ("external:*", "", True),
        ("*,!central", "", False),
        ("other", "", False),
        ("central", "<blocked>true</blocked>", False),
    ],
)
def test_maven_mirror_rules(tmp_path: Path, mirror_of: str, extra: str, used: bool) -> None:
    file = tmp_path / "settings.xml"
    file.write_text(
        "<settings><mirrors><mirror><id>m</id>"
        f"<mirrorOf>{mirror_of}</mirrorOf><url>http://127.0.0.1/m/</url>{extra}</mirror></mirrors></settings>"
    )
    assert maven_mirror(file) == ("http://127.0.0.1/m" if used else None)


def test_broken_maven_settings_are_named(tmp_path: Path) -> None:
    file = tmp_path / "settings.xml"
    file.write_text("<settings>")
    with pytest.raises(StackError) as caught:
        maven_mirror(file)
    assert caught.value.where == str(file)


def test_the_lock_pins_all_parts_with_checksums() -> None:
    lock = Lock.load()
    singles = {"jmx-agent", "mariadb", "postgres", "debezium-mariadb", "debezium-mysql", "debezium-postgres"}
    assert set(lock.parts) == {"kafka", "zookeeper"} | singles
    assert set(unpacking.LAYOUTS) == set(unpacking.GROWTH) < set(lock.parts)
    for part, found in lock.parts.items():
        names = [entry.filename for entry in found]
        assert len(names) == len(set(names)), part
        for entry in found:
            assert len(bytes.fromhex(entry.sha256)) == 32
            assert entry.size > 0
    # One Kafka version throughout: a library's managed versions must not win over it.
    kafka = {entry.version for entry in lock.parts["kafka"] if entry.group == "org.apache.kafka"}
    assert len(kafka) == 1
