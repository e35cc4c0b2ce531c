"""The systemd units of the control plane: programs and options that exist, little rights, one code server."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
UNITS = sorted(FOLDER.glob("cdc-platform-[cdw]*.service"))


class _Unit(configparser.RawConfigParser):
    def optionxform(self, optionstr: str) -> str:
        return optionstr


def unit(path: Path) -> configparser.RawConfigParser:
    parser = _Unit(strict=True)
    parser.read_string(path.read_text())
    return parser


def command(path: Path) -> list[str]:
    return shlex.split(unit(path)["Service"]["ExecStart"])


def test_there_are_three() -> None:
    assert [path.stem for path in UNITS] == ["cdc-platform-code", "cdc-platform-daemon", "cdc-platform-webserver"]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_programs_have_the_options_that_they_are_started_with(path: Path) -> None:
    program, *rest = command(path)
    at = Path(sys.executable).parent / Path(program).name
    verbs = [word for word in rest if not word.startswith("-")]
    shown = subprocess.run([at, *verbs, "--help"], capture_output=True, text=True, timeout=120, check=True).stdout
    for option in (word.partition("=")[0] for word in rest if word.startswith("--")):
        assert option in shown, option


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_they_run_with_little_rights_and_listen_on_loopback(path: Path) -> None:
    service = unit(path)["Service"]
    assert service["User"] == service["Group"] == "cdc-platform" and service["Restart"] == "always"
    for name in ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices"):
        assert service[name] == "true"
    assert service["CapabilityBoundingSet"] == "" and service["ProtectSystem"] == "strict"
    hosts = [word for word in command(path) if word.startswith("--host")]
    assert all(word == "--host=127.0.0.1" for word in hosts)


def test_daemon_and_webserver_find_the_code_server() -> None:
    (server,) = yaml.safe_load((FOLDER / "workspace.yaml").read_text())["load_from"]
    assert f"--port={server['grpc_server']['port']}" in command(UNITS[0])
    for path in UNITS[1:]:
        assert UNITS[0].name in unit(path)["Unit"]["After"]
        assert "--workspace=/etc/cdc-platform/workspace.yaml" in command(path)


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_knows_every_directive(path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("there is no systemd-analyze here")
    done = subprocess.run([program, "verify", str(path)], capture_output=True, text=True, timeout=60, check=False)
    wrong = [line for line in done.stderr.splitlines() if "Unknown" in line or "Failed to parse" in line]
    assert wrong == []
