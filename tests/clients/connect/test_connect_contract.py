"""What the platform relies on in Kafka Connect, asked of the fakes and of the real thing alike."""

from __future__ import annotations

import pytest

from cdc_platform.errors import ConnectRejected, NotFound
from tests.clients.connect.harness import Harness
from tests.waiting import assert_eventually


def test_connector_is_created_and_comes_to_run(cluster: Harness) -> None:
    name = cluster.name()
    cluster.connect.create(name, cluster.config())
    cluster.assert_running(name)
    seen = cluster.connect.connector(name)
    assert seen.config == {**cluster.config(), "name": name}
    assert seen.owner == "contract"
    assert [task.id for task in seen.tasks] == [0]
    assert seen.worker and seen.tasks[0].worker


def test_connector_just_created_is_in_the_list_at_once(cluster: Harness) -> None:
    """Connect's expanded list leaves it out until it has a status: a planner would create it twice."""
    name = cluster.name()
    cluster.connect.create(name, cluster.config())
    assert cluster.connect.connectors()[name].config["topic"] == cluster.config()["topic"]
    cluster.assert_running(name)
    assert cluster.connect.connectors()[name] == cluster.connect.connector(name)


def test_connector_created_stopped_has_no_tasks(cluster: Harness) -> None:
    name = cluster.name()
    cluster.connect.create(name, cluster.config(), stopped=True)
    cluster.assert_stopped(name)
    cluster.connect.resume(name)
    cluster.assert_running(name)


def test_create_again_with_the_same_config_is_no_error(cluster: Harness) -> None:
    name = cluster.name()
    cluster.connect.create(name, cluster.config())
    cluster.connect.create(name, cluster.config())
    cluster.assert_running(name)


def test_create_again_with_another_config_is_rejected(cluster: Harness) -> None:
    name = cluster.name()
    cluster.connect.create(name, cluster.config())
    with pytest.raises(ConnectRejected, match="already exists"):
        cluster.connect.create(name, cluster.config(batch_size="7"))
    assert "batch.size" not in cluster.connect.connectors()[name].config


def test_create_stopped_is_rejected_when_it_runs_already(cluster: Harness) -> None:
    name = cluster.name()
    cluster.connect.create(name, cluster.config())
    cluster.assert_running(name)
    with pytest.raises(ConnectRejected, match="already exists"):
        cluster.connect.create(name, cluster.config(), stopped=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"connector_class": "no.such.Connector"}, "Failed to find any class"),
        ({"connector_class": ""}, "contains no connector type|Failed to find any class"),
        ({"tasks_max": "many"}, "Invalid value many for configuration tasks.max"),
    ],
)
def test_config_that_does_not_validate_is_rejected(cluster: Harness, change: dict[str, str], message: str) -> None:
    name = cluster.name()
    with pytest.raises(ConnectRejected, match=message):
        cluster.connect.create(name, cluster.config(**change))
    assert name not in cluster.connect.connectors()


def test_update_replaces_the_whole_config(cluster: Harness) -> None:
    name = cluster.name()
    cluster.connect.create(name, cluster.config(batch_size="7"))
    cluster.assert_running(name)
    cluster.connect.update(name, cluster.config())
    assert_eventually(
        lambda: cluster.connect.connectors()[name].config == {**cluster.config(), "name": name},
        what="the new config",
    )
    cluster.assert_running(name)


def test_update_of_a_stopped_connector_leaves_it_stopped(cluster: Harness) -> None:
    name = cluster.name()
    cluster.connect.create(name, cluster.config(), stopped=True)
    cluster.assert_stopped(name)
    cluster.connect.update(name, cluster.config(batch_size="7"))
    cluster.assert_stopped(name)


def test_delete_of_what_is_gone_is_no_error(cluster: Harness) -> None:
    name = cluster.name()
    cluster.connect.create(name, cluster.config())
    cluster.connect.delete(name)
    cluster.connect.delete(name)
    assert_eventually(lambda: name not in cluster.connect.connectors(), what="gone")
    with pytest.raises(NotFound):
        cluster.connect.connector(name)


def test_unknown_connector_is_not_found_by_any_verb(cluster: Harness) -> None:
    name = cluster.name()
    entry = [{"partition": cluster.partition(), "offset": {"position": 1}}]
    for verb in (
        lambda: cluster.connect.connector(name),
        lambda: cluster.connect.offsets(name),
        lambda: cluster.connect.pause(name),
        lambda: cluster.connect.resume(name),
        lambda: cluster.connect.stop(name),
        lambda: cluster.connect.restart_failed(name),
        lambda: cluster.connect.restart_task(name, 0),
        lambda: cluster.connect.alter_offsets(name, entry),
        lambda: cluster.connect.reset_offsets(name),
    ):
        with pytest.raises(NotFound):
            verb()


def test_pause_keeps_the_tasks_and_stop_takes_them_away(cluster: Harness) -> None:
    name = cluster.name()
    cluster.connect.create(name, cluster.config())
    cluster.assert_running(name)
    cluster.connect.pause(name)
    assert_eventually(lambda: cluster.connect.connector(name).state == "PAUSED", what="PAUSED")
    assert len(cluster.connect.connector(name).tasks) == 1
    cluster.connect.stop(name)
    cluster.assert_stopped(name)
    cluster.connect.resume(name)
    cluster.assert_running(name)


def test_restart_of_a_task_that_is_not_there_is_not_found(cluster: Harness) -> None:
    name = cluster.name()
    cluster.connect.create(name, cluster.config())
    cluster.assert_running(name)
    cluster.connect.restart_task(name, 0)
    cluster.connect.restart_failed(name)
    cluster.assert_running(name)
    with pytest.raises(NotFound, match="Unknown task"):
        cluster.connect.restart_task(name, 7)


def failed(cluster: Harness, name: str) -> bool:
    tasks = cluster.connect.connector(name).tasks
    return bool(tasks) and tasks[0].state == "FAILED"


def test_failed_task_shows_its_trace_until_it_is_restarted(cluster: Harness) -> None:
    name = cluster.name()
    cluster.source_says("no number\n")
    cluster.connect.create(name, cluster.fragile())
    assert_eventually(lambda: failed(cluster, name), what="FAILED")
    seen = cluster.connect.connectors()[name]
    assert seen.state == "RUNNING" and not seen.running
    assert "org.apache.kafka.connect.errors.ConnectException" in (seen.tasks[0].trace or "")
    cluster.source_says("42\n")
    assert failed(cluster, name), "it never comes back by itself"
    cluster.connect.restart_failed(name)
    cluster.assert_running(name)
    assert cluster.connect.connector(name).tasks[0].trace is None


def test_restarted_task_that_is_still_broken_fails_again(cluster: Harness) -> None:
    name = cluster.name()
    cluster.source_says("no number\n")
    cluster.connect.create(name, cluster.fragile())
    assert_eventually(lambda: failed(cluster, name), what="FAILED")
    cluster.connect.restart_task(name, 0)
    assert_eventually(lambda: failed(cluster, name), what="FAILED again")
    cluster.source_says("42\n")
    cluster.connect.restart_task(name, 0)
    cluster.assert_running(name)


def test_changed_config_starts_a_failed_task_anew(cluster: Harness) -> None:
    name = cluster.name()
    cluster.source_says("no number\n")
    cluster.connect.create(name, cluster.fragile())
    assert_eventually(lambda: failed(cluster, name), what="FAILED")
    cluster.connect.update(name, cluster.config())
    cluster.assert_running(name)


def test_failed_task_stays_failed_through_pause_and_resume(cluster: Harness) -> None:
    name = cluster.name()
    cluster.source_says("no number\n")
    cluster.connect.create(name, cluster.fragile())
    assert_eventually(lambda: failed(cluster, name), what="FAILED")
    cluster.source_says("42\n")
    cluster.connect.pause(name)
    assert_eventually(lambda: cluster.connect.connector(name).state == "PAUSED", what="PAUSED")
    cluster.connect.resume(name)
    assert_eventually(lambda: cluster.connect.connector(name).state == "RUNNING", what="RUNNING")
    assert failed(cluster, name)


def test_unchanged_update_starts_nothing_anew(cluster: Harness) -> None:
    """Connect bounces the connector object, but sees that the task's config is the same (KAFKA-9228)."""
    name = cluster.name()
    cluster.source_says("no number\n")
    cluster.connect.create(name, cluster.fragile())
    assert_eventually(lambda: failed(cluster, name), what="FAILED")
    cluster.source_says("42\n")
    cluster.connect.update(name, cluster.fragile())
    # Something later that shows: by then an earlier restart would show too.
    other = cluster.name("00001")
    cluster.connect.create(other, cluster.config())
    cluster.assert_running(other)
    assert failed(cluster, name)


def test_offsets_are_changed_only_while_it_is_stopped(cluster: Harness) -> None:
    name = cluster.name()
    entry = [{"partition": cluster.partition(), "offset": {"position": 3}}]
    cluster.connect.create(name, cluster.config())
    cluster.assert_running(name)
    with pytest.raises(ConnectRejected, match="must be in the STOPPED state"):
        cluster.connect.alter_offsets(name, entry)
    with pytest.raises(ConnectRejected, match="must be in the STOPPED state"):
        cluster.connect.reset_offsets(name)
    cluster.connect.stop(name)
    cluster.assert_stopped(name)
    cluster.connect.alter_offsets(name, entry)
    cluster.assert_offsets(name, entry)
    cluster.connect.reset_offsets(name)
    cluster.assert_offsets(name, [])


def test_offsets_of_other_partitions_stay_and_null_forgets_one(cluster: Harness) -> None:
    name = cluster.name()
    first = {"partition": cluster.partition(), "offset": {"position": 3}}
    second = {"partition": {"filename": "/other"}, "offset": {"position": 4}}
    cluster.connect.create(name, cluster.config(), stopped=True)
    cluster.assert_stopped(name)
    cluster.connect.alter_offsets(name, [first])
    cluster.connect.alter_offsets(name, [second])
    cluster.assert_offsets(name, [first, second])
    cluster.connect.alter_offsets(name, [{"partition": first["partition"], "offset": None}])
    cluster.assert_offsets(name, [second])
    with pytest.raises(ConnectRejected, match="need to be provided"):
        cluster.connect.alter_offsets(name, [])


def test_offsets_outlive_the_connector(cluster: Harness) -> None:
    """So a re-created name resumes at a stale place unless its offsets were reset before the delete."""
    name = cluster.name()
    entry = [{"partition": cluster.partition(), "offset": {"position": 3}}]
    cluster.connect.create(name, cluster.config(), stopped=True)
    cluster.assert_stopped(name)
    cluster.connect.alter_offsets(name, entry)
    cluster.connect.delete(name)
    assert_eventually(lambda: name not in cluster.connect.connectors(), what="gone")
    cluster.connect.create(name, cluster.config(), stopped=True)
    cluster.assert_stopped(name)
    cluster.assert_offsets(name, entry)


def test_placeholders_stay_placeholders(cluster: Harness) -> None:
    """What Connect resolves for its tasks never comes back by REST."""
    name = cluster.name()
    cluster.connect.create(name, cluster.config(note="${env:CDC_NOT_SET}"), stopped=True)
    assert cluster.connect.connectors()[name].config["note"] == "${env:CDC_NOT_SET}"


def test_workers_health_and_plugins(cluster: Harness) -> None:
    name = cluster.name()
    cluster.connect.create(name, cluster.config())
    cluster.assert_running(name)
    assert {worker.status for worker in cluster.connect.health()} == {"healthy"}
    seen = cluster.connect.connector(name)
    assert cluster.connect.workers()[seen.tasks[0].worker] >= 1
    assert cluster.config()["connector.class"] in {p.class_name for p in cluster.connect.plugins()}
