"""Progress has rate and time left, a line each ten seconds where there is no terminal, and Ctrl-C ends at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cdc_platform.cli import progress
from cdc_platform.cli.progress import Downloads, Stages, Steps, mebibytes, pace
from tests.waiting import assert_eventually


@pytest.mark.parametrize(
    ("done", "total", "seconds", "text"),
    [
        (0, 50, 3.0, "0 of 50"),
        (10, 50, 0.0, "10 of 50"),
        (1200, 5000, 40.0, "1,200 of 5,000, 30/s, 2 min left"),
        (1, 4, 10.0, "1 of 4, 0.1/s, 30 s left"),
        (50, 50, 5.0, "50 of 50, 10/s"),
    ],
)
def test_pace_has_rate_and_time_left(done: int, total: int, seconds: float, text: str) -> None:
    assert pace(done, total, seconds) == text


def test_pace_of_bytes() -> None:
    assert pace(10 << 20, 280 << 20, 5.0, mebibytes) == "10.0 MiB of 280.0 MiB, 2.0 MiB/s, 2 min left"


def test_stages_say_a_line_each_ten_seconds_and_one_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr("cdc_platform.cli.progress.time.monotonic", lambda: now[0])
    with Stages() as stages:
        for done in range(25):
            stages.update("reading sources", done, 24)
            now[0] += 1.0
        stages.update("reading sources", 24, 24)
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "reading sources: 10 of 24, 1/s, 14 s left",
        "reading sources: 20 of 24, 1/s, 4 s left",
        "reading sources: 24 of 24, 1/s",
    ]


def test_downloads_are_one_sum(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setattr("cdc_platform.cli.progress.time.monotonic", lambda: now[0])
    with Downloads() as downloads:
        downloads.file("a.jar", 0, 30 << 20)
        downloads.file("b.jar", 0, 10 << 20)
        now[0] = 10.0
        downloads.file("a.jar", 20 << 20, 30 << 20)
    assert "Downloading programs: 20.0 MiB of 40.0 MiB, 2.0 MiB/s, 10 s left" in capsys.readouterr().err


def test_steps_repeat_what_takes_long(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.5)
    said: list[str] = []
    with Steps() as steps:
        steps.say("Proving the shards again.")

        def repeated() -> bool:
            said.extend(capsys.readouterr().err.splitlines())
            return any(line.startswith("Proving the shards again. (") for line in said)

        assert_eventually(repeated, "the sentence is repeated", 10.0)
    assert said[0] == "Proving the shards again."


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Steps(quiet=True) as steps, Stages(quiet=True) as stages:
        steps.say("x")
        stages.update("y", 1, 1)
    assert capsys.readouterr() == ("", "")


BUSY = """
import threading, time
from concurrent.futures import ThreadPoolExecutor
from cdc_platform.cli.progress import ends_at_once
with ends_at_once(lambda: "Interrupted: 3 of 9 shards are over. `again` goes on."), ThreadPoolExecutor() as pool:
    print("at work", flush=True)
    pool.submit(time.sleep, 600).result()
"""


def test_an_interrupt_ends_at_once_though_threads_go_on() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout and process.stdout.readline() == "at work\n"
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130 and time.monotonic() - began < 5
    assert said == "Interrupted: 3 of 9 shards are over. `again` goes on.\n"
