"""Worker properties: values with reasons, in the syntax that Java reads."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from cdc_platform.cli.worker_properties import worker_properties as command
from cdc_platform.connectors.java_properties import render
from cdc_platform.connectors.jmx_export import jmx_exporter_config
from cdc_platform.connectors.worker_properties import WorkerSpec, reasons, recommended, worker_properties
from cdc_platform.errors import TopologyError

SPEC = WorkerSpec(
    cluster="main",
    bootstrap_servers="127.0.0.1:9092",
    plugin_path=("/opt/plugins",),
    leader_dir="/srv/leaders",
    secrets_dirs=("/etc/secrets",),
)


def load_properties(text: str) -> dict[str, str]:
    """Reads what `java.util.Properties.load` reads, as its documentation describes it."""
    found: dict[str, str] = {}
    for line in text.split("\n"):
        if not line or line[0] in "#!":
            continue
        units: list[str] = []
        key: str | None = None
        at = 0
        while at < len(line):
            char = line[at]
            if char == "\\":
                follower = line[at + 1]
                if follower == "u":
                    units.append(chr(int(line[at + 2 : at + 6], 16)))
                    at += 6
                    continue
                units.append({"t": "\t", "n": "\n", "r": "\r", "f": "\f"}.get(follower, follower))
                at += 2
                continue
            if key is None and char in "=:":
                key, units = "".join(units), []
                at += 1
                while at < len(line) and line[at] in " \t\f":
                    at += 1
                continue
            units.append(char)
            at += 1
        assert key is not None
        value = "".join(units)
        found[_joined(key)] = _joined(value)
    return found


def _joined(text: str) -> str:
    """Surrogate pairs as Java holds them, made characters."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16")


@given(st.dictionaries(st.text(min_size=1), st.text(), max_size=5))
def test_java_reads_what_was_rendered(properties: dict[str, str]) -> None:
    encodable = {k: v for k, v in properties.items() if _encodes(k) and _encodes(v)}
    assert load_properties(render(encodable)) == encodable


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def test_the_recommended_settings() -> None:
    found = worker_properties(SPEC)
    assert found["rebalance.timeout.ms"] == "600000"
    assert found["offset.flush.interval.ms"] == "5000"
    assert int(found["scheduled.rebalance.max.delay.ms"]) <= 10_000
    assert int(found["heartbeat.interval.ms"]) * 3 <= int(found["session.timeout.ms"])
    assert found["config.providers.file.param.allowed.paths"] == "/srv/leaders,/etc/secrets"
    assert found["listeners"] == "http://127.0.0.1:8083"
    assert found["plugin.discovery"] == "service_load"
    assert found["connector.client.config.override.policy"] == "Allowlist"
    assert found["topic.creation.enable"] == "false"


def test_what_departs_from_kafka_s_default_says_why() -> None:
    why = reasons(SPEC)
    # Where the worker is and what it converts by need no reason; all else does.
    plain = re.compile(
        r"bootstrap\.servers|group\.id|listeners|plugin\.path|.*\.storage\..*|.*converter.*|.*\.class|rest\..*"
    )
    assert [name for name in worker_properties(SPEC) if name not in why and not plain.fullmatch(name)] == []
    assert [reason for reason in why.values() if len(reason.split()) < 4] == []
    text = render(worker_properties(SPEC), why)
    assert f"# {why['rebalance.timeout.ms']}\nrebalance.timeout.ms=600000\n" in text
    assert load_properties(text) == worker_properties(SPEC)


def test_security_reaches_every_client_of_the_worker() -> None:
    found = worker_properties(replace(SPEC, kafka={"security.protocol": "SSL"}))
    for prefix in ("", "producer.", "consumer.", "admin."):
        assert found[f"{prefix}security.protocol"] == "SSL"


def test_what_the_operator_sets_goes_on_top() -> None:
    found = worker_properties(replace(SPEC, extra={"rebalance.timeout.ms": "1", "metric.reporters": ""}))
    assert found["rebalance.timeout.ms"] == "1"
    assert found["metric.reporters"] == ""


@pytest.mark.parametrize(
    "wrong",
    [
        {"plugin_path": ()},
        {"plugin_path": ("relative",)},
        {"leader_dir": "a,b"},
        {"secrets_dirs": ("/a,/b",)},
        {"port": 0},
        {"replication": 0},
        {"host": "0.0.0.0"},
    ],
)
def test_a_worker_that_cannot_work_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(TopologyError):
        replace(SPEC, **wrong)  # type: ignore[arg-type]


def test_an_ipv6_listener_is_bracketed() -> None:
    assert worker_properties(replace(SPEC, host="::1"))["listeners"] == "http://[::1]:8083"


def test_worker_properties_on_the_command_line() -> None:
    args = ["main", "--bootstrap", "127.0.0.1:9092", "--plugin-path", "/opt/plugins"]
    args += ["--leader-dir", "/srv/leaders", "--secrets-dir", "/etc/secrets"]
    text = CliRunner().invoke(command, args, catch_exceptions=False).output
    assert load_properties(text) == worker_properties(SPEC)
    rows = json.loads(CliRunner().invoke(command, [*args, "--json"], catch_exceptions=False).output)["properties"]
    assert rows == [{"name": p.name, "value": p.value, "reason": p.reason} for p in recommended(SPEC)]
    assert CliRunner().invoke(command, [*args, "--set", "novalue"]).exit_code == 2
    exporter = CliRunner().invoke(command, [*args, "--jmx-exporter"], catch_exceptions=False).output
    assert exporter == jmx_exporter_config()


def test_the_exporter_s_rules_are_anchored() -> None:
    # The agent searches with its patterns; without the colon, P50 of an attribute would match too.
    for rule in yaml.safe_load(jmx_exporter_config())["rules"]:
        assert rule["pattern"].endswith("): ")


def test_worker_properties_carry_the_settings_kafka_security_and_https(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "own.toml"
    file.write_text(
        '[kafka]\n"bootstrap.servers" = "k:1"\n[worker_kafka]\n"bootstrap.servers" = "k:2"\n'
        '"security.protocol" = "SASL_SSL"\n"sasl.jaas.config" = "x password=${file:/s:p};"\n'
    )
    monkeypatch.setenv("CDC_PLATFORM_CONFIG", str(file))
    text = CliRunner().invoke(command, ["main", "--https"]).output
    found = load_properties(text)
    assert found["bootstrap.servers"] == "k:2"
    assert (found["listeners"], found["rest.advertised.listener"]) == ("https://127.0.0.1:8083", "https")
    for prefix in ("", "producer.", "consumer.", "admin."):
        assert found[f"{prefix}security.protocol"] == "SASL_SSL"
        assert "${file:/s:p}" in found[f"{prefix}sasl.jaas.config"]
