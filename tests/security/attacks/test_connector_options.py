"""A dataset's author names classes, files, servers and secrets of the worker in connector options."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cdc_platform.connectors.config import desired_config
from cdc_platform.connectors.overrides import check_dataset, check_shard
from cdc_platform.connectors.worker_properties import JVM_FLAGS, WorkerSpec, worker_properties
from cdc_platform.errors import OverrideRefused
from tests.connectors.cases import EAST, PINS, PINS_7, PLAIN

HOSTILE = {
    "producer.override.config.providers": "x",
    "producer.override.config.providers.x.class": "org.apache.kafka.common.config.provider.FileConfigProvider",
    "producer.override.metric.reporters": "org.example.Reporter",
    "producer.override.sasl.login.class": "org.example.Login",
    "producer.override.ssl.engine.factory.class": "org.example.Factory",
    "producer.override.sasl.jaas.config": "${file:/etc/cdc-platform/secrets/pins/kafka.properties:jaas}",
    "producer.override.security.protocol": "PLAINTEXT",
    "producer.override.ssl.endpoint.identification.algorithm": "",
    "consumer.override.bootstrap.servers": "evil.example:9092",
    "admin.override.bootstrap.servers": "evil.example:9092",
    "driver.socketFactory": "org.example.Factory",
    "driver.socketFactoryArg": "/etc/passwd",
    "driver.sslfactory": "org.example.Factory",
    "driver.loggerFile": "/tmp/x",
    "driver.allowLoadLocalInfile": "true",
    "database.jdbc.driver": "org.example.Driver",
    "database.protocol": "jdbc:evil",
    "database.sslfactory": "org.example.Factory",
    "database.ssl.mode": "disabled",
    "database.sslmode": "prefer",
    "openlineage.integration.config.file.path": "/etc/passwd",
    "schema.history.internal.file.filename": "/tmp/x",
    "schema.history.socketFactoryArg": "evil.example",
    "snapshot.locking.mode.custom.class": "org.example.Lock",
    # A reference under an option that is no credential: Connect's error prints what it resolves to.
    "producer.override.linger.ms": "${file:/etc/cdc-platform/secrets/pins/source.properties:password}",
    "poll.interval.ms": "${directory:/etc:passwd}",
}


@pytest.mark.parametrize("option", HOSTILE)
def test_an_option_that_reaches_beyond_the_dataset_is_refused(option: str) -> None:
    override = {option: HOSTILE[option]}
    with pytest.raises(OverrideRefused) as of_dataset:
        check_dataset(replace(PINS, connector=override), PLAIN)
    assert of_dataset.value.field == f"connector.{option}"
    with pytest.raises(OverrideRefused):
        check_shard(PINS, replace(PINS_7, connector=override), PLAIN)


def test_an_operator_permits_an_option_by_name_or_pattern() -> None:
    dataset = replace(PINS, connector={"driver.usePipelineAuth": "false"})
    with pytest.raises(OverrideRefused) as caught:
        check_dataset(dataset, PLAIN)
    assert "permitted_connector_options" in str(caught.value)
    for permitted in ("driver.usePipelineAuth", "driver.use*"):
        own = replace(PLAIN, permitted_connector_options=(permitted,))
        assert desired_config(dataset, PINS_7, EAST, own)["driver.usePipelineAuth"] == "false"


def test_a_permission_is_no_way_around_what_the_platform_leans_on() -> None:
    own = replace(PLAIN, permitted_connector_options=("*",))
    with pytest.raises(OverrideRefused):
        check_dataset(replace(PINS, connector={"producer.override.acks": "0"}), own)


def test_workers_take_no_class_file_or_server_for_their_clients() -> None:
    spec = WorkerSpec(cluster="main", bootstrap_servers="127.0.0.1:9092", plugin_path=("/opt/plugins",))
    properties = worker_properties(spec)
    assert properties["connector.client.config.override.policy"] == "Allowlist"
    allowed = properties["connector.client.config.override.allowlist"].split(",")
    assert not [name for name in allowed if "class" in name or "provider" in name or name.startswith(("sasl", "ssl"))]
    assert JVM_FLAGS == ("-Dorg.apache.kafka.automatic.config.providers=none",)


def test_workers_allow_what_the_platform_sets_in_each_connector() -> None:
    spec = WorkerSpec(cluster="main", bootstrap_servers="127.0.0.1:9092", plugin_path=("/opt/plugins",))
    allowed = worker_properties(spec)["connector.client.config.override.allowlist"].split(",")
    prefix = "producer.override."
    config = desired_config(PINS, PINS_7, EAST, PLAIN)
    assert {name.removeprefix(prefix) for name in config if name.startswith(prefix)} <= set(allowed)
