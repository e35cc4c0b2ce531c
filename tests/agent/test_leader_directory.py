"""Leader files on disk: whole, newest, readable by the worker, and nobody else's business touched."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cdc_platform.agent.journal import Journal, OldLeader, Remembered
from cdc_platform.agent.leader_directory import LeaderDirectory
from cdc_platform.connectors.leader_files import LeaderFile, leader_file, leader_reference
from cdc_platform.errors import BadInput
from cdc_platform.model.topology import Address, Cluster, Shard


def at(host: str, generation: int) -> LeaderFile:
    return LeaderFile(leader=Address(host, 3306), generation=generation)


def test_a_file_has_the_keys_that_connectors_refer_to(tmp_path: Path) -> None:
    LeaderDirectory(tmp_path, owner="w0").write({"pins.00000": at("db-1", 3)})
    shard = Shard(dataset="pins", id="00000", leader=Address("db-1", 3306), database="p")
    cluster = Cluster(name="main", urls=("http://c:1",), leader_dir=str(tmp_path))
    text = Path(leader_file(cluster, shard)).read_text()
    assert text == "host=db-1\nport=3306\ngeneration=3\n"
    assert leader_reference(cluster, shard, "host") == f"${{file:{tmp_path}/pins.00000.properties:host}}"


def test_the_mode_is_0640_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        LeaderDirectory(tmp_path, owner="w0", group=str(os.getgid())).write({"a.0": at("x", 0)})
    finally:
        os.umask(before)
    found = (tmp_path / "a.0.properties").stat()
    assert stat.S_IMODE(found.st_mode) == 0o640
    assert found.st_gid == os.getgid()


def test_an_older_generation_never_replaces_a_newer_file(tmp_path: Path) -> None:
    directory = LeaderDirectory(tmp_path, owner="w0")
    assert directory.write({"a.0": at("new", 5)}) == {}
    assert LeaderDirectory(tmp_path, owner="w1").write({"a.0": at("old", 4)}) == {}
    assert directory.read() == {"a.0": at("new", 5)}
    directory.write({"a.0": at("other", 5)})
    assert directory.read() == {"a.0": at("other", 5)}, "a hand edit without a new generation is followed"


def test_agents_that_share_a_directory_leave_the_newest(tmp_path: Path) -> None:
    def work(owner: int) -> None:
        directory = LeaderDirectory(tmp_path, owner=f"w{owner}")
        for generation in range(owner, 60, 3):
            directory.write({f"a.{shard}": at(f"h{generation}", generation) for shard in range(5)})

    threads = [threading.Thread(target=work, args=(owner,)) for owner in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = LeaderDirectory(tmp_path, owner="w0").read()
    assert found == {f"a.{shard}": at("h59", 59) for shard in range(5)}
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.endswith(".tmp")) == []


def test_a_file_is_never_seen_in_part(tmp_path: Path) -> None:
    directory = LeaderDirectory(tmp_path, owner="w0")
    directory.write({"a.0": at("h0", 0)})
    stop = threading.Event()
    seen: set[str] = set()

    def look() -> None:
        while not stop.is_set():
            seen.add((tmp_path / "a.0.properties").read_text())

    thread = threading.Thread(target=look)
    thread.start()
    for generation in range(1, 100):
        directory.write({"a.0": at(f"h{generation}", generation)})
    stop.set()
    thread.join()
    assert len(seen) > 1
    assert all(text == "host=h{0}\nport=3306\ngeneration={0}\n".format(text.split("=")[-1].strip()) for text in seen)


def test_broken_and_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "a.0.properties").write_text("host=x\n")
    (tmp_path / "a.1.properties").write_bytes(b"\xff\x00")
    (tmp_path / "readme.txt").write_text("mine")
    (tmp_path / ".w0.a.2.123.tmp").write_text("left by a crash")
    (tmp_path / ".w1.a.2.123.tmp").write_text("another agent's")
    directory = LeaderDirectory(tmp_path, owner="w0")
    assert directory.read() == {"a.0": None, "a.1": None}
    directory.write({"a.0": at("x", 0)})
    assert directory.read()["a.0"] == at("x", 0)
    assert (tmp_path / "readme.txt").exists() and (tmp_path / ".w1.a.2.123.tmp").exists()
    assert not (tmp_path / ".w0.a.2.123.tmp").exists()


def test_what_cannot_be_written_is_named_and_the_rest_is_written(tmp_path: Path) -> None:
    directory = LeaderDirectory(tmp_path, owner="w0")
    (tmp_path / "a.0.properties").mkdir()
    failed = directory.write({"a.0": at("x", 0), "a.1": at("x", 0)})
    assert failed.keys() == {"a.0"} and "directory" in failed["a.0"].lower()
    assert directory.read()["a.1"] == at("x", 0)


def test_a_directory_or_group_that_cannot_be_used_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"file: --leader-dir: cannot be used: .*Cure: "):
        LeaderDirectory(tmp_path / "file", owner="w0")
    with pytest.raises(BadInput, match="no group 'no-such-group'"):
        LeaderDirectory(tmp_path, owner="w0", group="no-such-group")


def test_a_lock_holder_that_was_stopped_gives_an_error_not_a_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdc_platform.agent.leader_directory._LOCK_SECONDS", 0.3)
    directory = LeaderDirectory(tmp_path, owner="w0")
    code = (
        "import fcntl, sys, time; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); "
        "print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / ".lock")], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGSTOP)
        assert "locked the directory" in directory.write({"a.0": at("x", 0)})["a.0"]
    finally:
        holder.kill()
        holder.communicate()
    assert directory.write({"a.0": at("x", 0)}) == {}


def test_the_journal_is_read_back_and_garbage_is_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "w0:8083")
    assert journal.read() == Remembered()
    old = OldLeader(leader=Address("y", 3306), since=datetime(2026, 11, 2, 3, tzinfo=UTC))
    found = Remembered(applied={"a.0": at("x", 3)}, old={"a.0": old})
    journal.write(found)
    assert Journal(tmp_path, "w0:8083").read() == found
    assert Journal(tmp_path, "w1:8083").read() == Remembered()
    for garbage in (
        b"{", b"[]", b"\xff", b'{"a.0": 1}', b'{"applied": {"a.0": 1}, "old": {}}',
        b'{"applied": {"a.0": ["x", 1]}, "old": {}}', b'{"applied": {}, "old": {"a.0": ["x:1", "2026-11-02"]}}',
    ):  # fmt: skip
        journal.path.write_bytes(garbage)
        assert journal.read() == Remembered()


def test_2_000_files_are_written_once_and_then_looked_at_cheaply(tmp_path: Path) -> None:
    directory = LeaderDirectory(tmp_path, owner="w0")
    contents = {f"pins.{number:05d}": at("db", 1) for number in range(2_000)}
    begun = time.monotonic()
    assert directory.write(contents) == {}
    written = time.monotonic()
    assert directory.read() == contents
    read = time.monotonic()
    assert directory.read() == contents
    again = time.monotonic()
    print(f"write {written - begun:.2f} s, read {read - written:.2f} s, read again {again - read:.2f} s")
    assert written - begun < 30
    assert again - read < 1
