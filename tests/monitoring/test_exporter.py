"""The exporter tells what passes recorded."""

from __future__ import annotations

from prometheus_client import generate_latest

from cdc_platform.errors import KafkaUnavailable
from cdc_platform.monitoring.exporter import registry
from cdc_platform.testing.state_topic import FakeStateStore
from tests.reconciler.test_run_pass import settled


def test_metrics_of_cluster_dataset_worker_and_pass() -> None:
    world = settled("east")
    world.connect["east"].model.fail_task("d0.00001", "Connection refused")
    world.reconcile()
    text = generate_latest(registry(FakeStateStore(world.topic))).decode()
    for line in (
        "cdc_state_readable 1.0",
        'cdc_shards{dataset="d0",state="RUNNING"} 4.0',
        'cdc_cluster_reachable{cluster="east"} 1.0',
        'cdc_connectors{cluster="east"} 4.0',
        'cdc_restarts_total{failure="connection"} 1.0',
        'cdc_pass_actions{status="done",verb="restart connector"} 1.0',
        "cdc_passes_total 4.0",
        'cdc_trouble_shards{failure="connection",place="db-1:3306"} 1.0',
        "cdc_zombies 0.0",
    ):
        assert line in text, line
    assert 'cdc_worker_tasks{cluster="east",worker="east-w' in text
    assert 'cdc_heartbeat_age_seconds{dataset="d0",quantile="0.99"}' in text
    assert 'cdc_pass_duration_seconds{phase="look"}' in text


def test_an_empty_topic_and_one_that_cannot_be_read_are_no_failure() -> None:
    store = FakeStateStore()
    assert "cdc_state_readable 1.0" in generate_latest(registry(store)).decode()
    store.outage = KafkaUnavailable("away.")
    text = generate_latest(registry(store)).decode()
    assert "cdc_state_readable 0.0" in text
    assert "cdc_zombies" not in text


def test_a_record_of_another_version_is_told() -> None:
    store = FakeStateStore()
    store.claim(1)
    store.write({"pass/last": {"at": "yesterday"}})
    assert "cdc_state_understood 0.0" in generate_latest(registry(store)).decode()
