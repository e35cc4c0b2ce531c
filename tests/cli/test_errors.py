"""What a person sees of bad input: one line that names file, field and cure, and exit code 1."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = str(Path(sys.executable).parent / "cdc-platform")
NOBODY_LISTENS = "127.0.0.1:1"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("CDC_PLATFORM_")}
    return subprocess.run(
        [COMMAND, *arguments], capture_output=True, text=True, timeout=120, env={**clean, **environment}
    )


def assert_one_error(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert done.returncode == 1, done
    assert done.stderr.startswith("Error: "), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "Cure: " in done.stderr
    for part in parts:
        assert part in done.stderr


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("datasets: [\n", "topology.yaml:2"),
        ("datasets:\n  pins:\n    engine: oracle\n    tables: [a]\n", "datasets.pins.engine"),
        ("clusters: {main: {urls: [nowhere]}}\n", "clusters.main.urls"),
    ],
)
def test_a_bad_topology_file_is_told_without_zookeeper(tmp_path: Path, text: str, field: str) -> None:
    file = tmp_path / "topology.yaml"
    file.write_text(text)
    assert_one_error(run("topology", "import", str(file), CDC_PLATFORM_ZOOKEEPER=NOBODY_LISTENS), str(file), field)


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        ("{schedul: '0 4 * * *'}", "datasets.pins.verification.schedul"),
        ("{schedule: often}", "datasets.pins.verification.schedule"),
        ("{scheduled_shards: -3}", "datasets.pins.verification.scheduled_shards"),
        ("{duplicates: {limits: {gremlins: 1}}}", "datasets.pins.verification.duplicates.limits"),
    ],
)
def test_a_bad_verification_policy_is_told_when_it_is_imported(tmp_path: Path, policy: str, field: str) -> None:
    file = tmp_path / "topology.yaml"
    file.write_text(
        "clusters: {main: {urls: ['http://connect:8083']}}\n"
        "datasets:\n  pins:\n    engine: mariadb\n    tables: [pins]\n    clusters: [main]\n"
        "    credentials: {user: '${env:U}', password: '${env:P}'}\n"
        f"    verification: {policy}\n"
        "    shards: {range: 00000-00001, leader: 'db:3306', database: 'pins_{shard}'}\n"
    )
    refused = run("topology", "import", str(file), CDC_PLATFORM_ZOOKEEPER=NOBODY_LISTENS)
    assert_one_error(refused, str(file), field)


def test_a_topology_file_that_is_not_there() -> None:
    assert_one_error(run("topology", "import", "/nonexistent.yaml"), "/nonexistent.yaml")


def test_a_settings_file_that_is_not_there() -> None:
    assert_one_error(run("plan", CDC_PLATFORM_CONFIG="/nonexistent.toml"), "/nonexistent.toml", "CDC_PLATFORM_CONFIG")


def test_an_unknown_setting_is_named(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('zookeper = "x:1"\n')
    assert_one_error(run("plan", CDC_PLATFORM_CONFIG=str(file)), str(file), "zookeper")


def test_a_plan_file_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text("{}")
    assert_one_error(run("apply", str(file)), str(file), "fingerprint")


def test_a_directory_that_cannot_be_made() -> None:
    assert_one_error(run("stack", "up", "--dir", "/proc/nope"), "/proc/nope")


def test_zookeeper_away_is_one_sentence_whatever_the_client_logs() -> None:
    assert_one_error(run("topology", "show", CDC_PLATFORM_ZOOKEEPER=NOBODY_LISTENS), NOBODY_LISTENS, "ZooKeeper")
