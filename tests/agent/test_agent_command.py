"""The agent's command: bad arguments are one clear error, and it stays small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("dagster", "numpy", "great_expectations", "confluent_kafka", "pyarrow", "pandas", "apprise")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--connect-url", "nonsense"], "not a URL"),
        (["--leader-dir", "{}/file"], "cannot be used"),
        (["--leader-dir", "{}", "--group", "nobody-knows"], "no group"),
        (["--leader-dir", "{}", "--zookeeper-root", "cdc"], "not a ZooKeeper path"),
        (["--leader-dir", "{}", "--worker", "a/b"], "not a valid worker id"),
    ],
)
def test_the_agent_refuses_what_it_cannot_use(tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "file").write_text("")
    base = ["--zookeeper", "127.0.0.1:1", "--worker", "w0", "--connect-url", "http://127.0.0.1:1"]
    done = subprocess.run(
        [sys.executable, "-m", "cdc_platform.agent", *base, *(text.format(tmp_path) for text in arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ") and words in done.stderr and "Cure: " in done.stderr
    assert "Traceback" not in done.stderr


def test_the_agent_loads_neither_dagster_nor_numpy() -> None:
    code = f"import sys; import cdc_platform.agent.command; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
