"""Settings of a wrong type are named with field and expected type, from the file and from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdc_platform.errors import SettingsError
from cdc_platform.settings import Settings


def load(tmp_path: Path, text: str, env: dict[str, str] | None = None) -> Settings:
    file = tmp_path / "c.toml"
    file.write_text(text)
    return Settings.load(file, env or {})


@pytest.mark.parametrize(
    ("text", "field", "expected"),
    [
        ("zookeeper = 2181", "zookeeper", "must be text"),
        ("zookeeper_password = 7", "zookeeper_password", "must be text"),
        ("connect_timeout = '20'", "connect_timeout", "must be a number"),
        ("connect_timeout = true", "connect_timeout", "must be a number"),
        ("max_deletes = 1.5", "max_deletes", "must be a whole number"),
        ("batch_size = [1]", "batch_size", "must be a whole number"),
        ("kafka = 'k:9092'", "kafka", "must be a table"),
        ("kafka = { 'bootstrap.servers' = ['k:9092'] }", "kafka.bootstrap.servers", "must be text"),
        ("worker_kafka = 1", "worker_kafka", "must be a table"),
        ("secrets_dirs = 1", "secrets_dirs", "must be a list of text"),
        ("secrets_dirs = ['/a', 1]", "secrets_dirs[1]", "must be text"),
        ("secrets_dirs = ['a']", "secrets_dirs", "must be absolute"),
        ("alerts = 3", "alerts", "must be a table"),
        ("alerts = { a = 3 }", "alerts.a", "must be a table"),
        ("[alerts.a]\nurl = 3", "alerts.a.url", "must be text"),
        ("[alerts.a]\nurl = '${env:U}'\nowners = 'ann'", "alerts.a.owners", "must be a list of text"),
        ("[alerts.a]\nurl = '${env:U}'\nowners = [1]", "alerts.a.owners[0]", "must be text"),
        ("[alerts.a]\nurl = '${env:U}'\nwatchdog = 'yes'", "alerts.a.watchdog", "must be true or false"),
        ("pass_budget = -1", "pass_budget", "must not be negative"),
        ("platform = ''", "platform", "is empty"),
        ("platfrom = 'x'", "platfrom", "no such setting"),
    ],
)
def test_a_wrong_type_in_the_file_names_field_and_expected_type(
    tmp_path: Path, text: str, field: str, expected: str
) -> None:
    with pytest.raises(SettingsError) as raised:
        load(tmp_path, text)
    assert raised.value.field == field and expected in raised.value.message
    assert raised.value.where == str(tmp_path / "c.toml") and raised.value.cure


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("connect_timeout", "soon", "must be a number"),
        ("max_deletes", "1.5", "must be a whole number"),
        ("batch_size", "-1", "must not be negative"),
        ("secrets_dirs", "secrets", "must be absolute"),
        ("zookeeper", "", "is empty"),
        ("zookeeper_password", "hunter2", "must be a reference"),
    ],
)
def test_a_wrong_value_in_the_environment_names_the_variable(
    tmp_path: Path, name: str, value: str, expected: str
) -> None:
    variable = f"CDC_PLATFORM_{name.upper()}"
    with pytest.raises(SettingsError) as raised:
        load(tmp_path, "", {variable: value})
    assert raised.value.where == variable and expected in raised.value.message
    assert "hunter2" not in str(raised.value)


def test_the_environment_goes_on_top_of_the_file(tmp_path: Path) -> None:
    env = {"CDC_PLATFORM_MAX_DELETES": "7", "CDC_PLATFORM_PASS_BUDGET": "1.5", "CDC_PLATFORM_SECRETS_DIRS": "/s"}
    found = load(tmp_path, "max_deletes = 3\nconnect_timeout = 5\n", env)
    assert (found.max_deletes, found.pass_budget, found.secrets_dirs) == (7, 1.5, ("/s",))
    assert found.connect_timeout == 5.0


def test_options_of_kafka_may_be_numbers_and_booleans(tmp_path: Path) -> None:
    found = load(
        tmp_path, "[kafka]\n'bootstrap.servers' = 'k:1'\n'socket.timeout.ms' = 6000\n'log.connection' = false\n"
    )
    assert found.kafka == {"bootstrap.servers": "k:1", "socket.timeout.ms": "6000", "log.connection": "false"}


def test_a_file_of_the_current_directory_is_taken_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Settings.load(env={})
    assert not caplog.records
    (tmp_path / "cdc-platform.toml").write_text('platform = "other"\n')
    assert Settings.load(env={}).platform == "other"
    assert str(tmp_path / "cdc-platform.toml") in caplog.text
    caplog.clear()
    Settings.load(tmp_path / "cdc-platform.toml", env={})
    assert not caplog.records


def test_a_misspelt_variable_is_named(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("")
    Settings.load(file, env={"CDC_PLATFORM_ZOOKEPER": "zk:1", "CDC_PLATFORM_OLD_EXIT_CODES": "1", "OTHER": "x"})
    (record,) = caplog.records
    assert record.getMessage().startswith("CDC_PLATFORM_ZOOKEPER is no setting and is not used. Did you mean")
