"""A hostile author of a dataset, all the way from the file to the connector's config and the topics."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdc_platform.connectors.config import desired_config, problems
from cdc_platform.connectors.leader_files import HOST, PORT, leader_reference
from cdc_platform.connectors.topics import desired_topics
from cdc_platform.documents import load_yaml
from cdc_platform.errors import CdcError
from cdc_platform.settings import Settings

OWN = Settings(secrets_dirs=("/run/secrets",))
EVIL = "evil.example"
_PREFIXES = ["producer.override.", "consumer.override.", "admin.override.", "driver.", "database.", "openlineage.", ""]
_PREFIXES += ["schema.history.internal.", "signal.", "notification.", "topic.", "transforms.", "snapshot."]
_NAMES = [
    "config.providers",
    "config.providers.x.class",
    "bootstrap.servers",
    "sasl.jaas.config",
    "ssl.mode",
    "sslmode",
]
_NAMES += ["linger.ms", "socketFactory", "hostname", "user", "password", "ssl.truststore", "ssl.truststore.password"]
_NAMES += [
    "sslrootcert",
    "jdbc.driver",
    "poll.interval.ms",
    "security.protocol",
    "kafka.topic",
    "transport.url",
    "name",
]
_VALUES = [EVIL, f"{EVIL}:9092", "org.example.Evil", "PLAINTEXT", "disabled", "/etc/passwd", "1", ""]
_REFERENCES = ["${file:/run/secrets/pins/s.properties:p}", "${file:/run/secrets/orders/s.properties:p}"]
_REFERENCES += ["${file:/run/secrets/pins/../orders/s.properties:p}", "${file:/etc/passwd:x}", "${env:CDC_PASSWORD}"]
_REFERENCES += ["${env:WORKER}", "x${env:HOME}", "${directory:/etc:passwd}", "${file:/run/secrets/zk.properties:p}"]
_PATTERNS = [
    "cdc.{dataset}.{table}",
    "__{dataset}_{table}",
    "cdc-connect-{dataset}-{table}",
    "{dataset}.platform.{table}",
]
_PATTERNS += [
    "payments{dataset}{table}",
    "cdc.platform.{dataset}{table}",
    "{dataset}{table}",
    "${{env:X}}{dataset}{table}",
]

options = st.builds(str.__add__, st.sampled_from(_PREFIXES), st.sampled_from(_NAMES) | st.text("a.Cl-_ ", max_size=8))
values = st.sampled_from(_VALUES + _REFERENCES)
# Mostly right, so that many come all the way.
logins = st.sampled_from([_REFERENCES[0]] * 6 + _REFERENCES[1:])
authors = st.fixed_dictionaries(
    {
        "pattern": st.sampled_from([_PATTERNS[0]] * 5 + _PATTERNS[1:]),
        "user": logins,
        "password": logins,
        "connector": st.dictionaries(options, values, max_size=2),
        "shard": st.dictionaries(options, values, max_size=1),
        "engine": st.sampled_from(["mariadb", "mysql", "postgres"]),
        "table": st.sampled_from(["t", "state", "configs", "${env:X}", "a|b"]),
    }
)


def document(author: Mapping[str, Any]) -> str:
    """JSON is YAML."""
    shard = {"leader": "db:3306", "database": "d", "connector": author["shard"]}
    dataset = {
        "engine": author["engine"],
        "tables": [author["table"]],
        "clusters": ["main"],
        "topic_pattern": author["pattern"],
        "credentials": {"user": author["user"], "password": author["password"]},
        "connector": author["connector"],
        "shards": {"00000": shard},
    }
    return json.dumps({"clusters": {"main": {"urls": ["http://w:8083"]}}, "datasets": {"pins": dataset}})


def assert_nothing_of_others(author: Mapping[str, Any], file: Path) -> bool:
    """True when a config came out, and asserts that nothing in it, or in the topics, belongs to others."""
    file.write_text(document(author))
    try:
        topology = load_yaml(file)
    except CdcError:
        return False
    if problems(topology, OWN):
        return False
    dataset, (shard,), cluster = topology.datasets["pins"], topology.shards["pins"], topology.clusters["main"]
    config = desired_config(dataset, shard, cluster, OWN)
    ours = {leader_reference(cluster, shard, HOST), leader_reference(cluster, shard, PORT), "${env:WORKER}"}
    for option, value in config.items():
        for reference in re.findall(r"\$\{[^}]*\}", value):
            assert reference in ours or re.fullmatch(r"\$\{file:/run/secrets/pins/[^/]+:p\}", reference), (
                option,
                value,
            )
        if option.startswith(("producer.", "consumer.", "admin.", "driver.", "database.", "openlineage.", "schema.")):
            # Names that no driver, client or Debezium option has are read by nothing.
            assert EVIL not in value, (option, value)
            assert "org.example" not in value and value != "/etc/passwd", (option, value)
            assert not (option.endswith(("protocol", "mode")) and value in ("PLAINTEXT", "disabled")), (option, value)
    for topic in desired_topics(topology, OWN):
        assert topic.name.startswith("cdc."), topic
    return True


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(author=authors)
def test_an_author_gets_nothing_of_others(tmp_path: Path, author: Mapping[str, Any]) -> None:
    assert_nothing_of_others(author, tmp_path / "topology.yaml")


@pytest.mark.slow
@settings(max_examples=100_000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(author=authors)
def test_an_author_gets_nothing_of_others_in_100_000_tries(tmp_path: Path, author: Mapping[str, Any]) -> None:
    assert_nothing_of_others(author, tmp_path / "topology.yaml")


def test_an_honest_author_comes_all_the_way(tmp_path: Path) -> None:
    honest = {
        "pattern": _PATTERNS[0],
        "user": _REFERENCES[0],
        "password": _REFERENCES[0],
        "connector": {"producer.override.linger.ms": "1"},
        "shard": {},
        "engine": "mariadb",
        "table": "t",
    }
    assert assert_nothing_of_others(honest, tmp_path / "topology.yaml")
