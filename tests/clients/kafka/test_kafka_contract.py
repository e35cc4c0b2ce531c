"""What the platform relies on in the brokers' admin side, asked of the fake and of real Kafka alike."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from cdc_platform.clients.kafka.admin import KafkaAdmin
from cdc_platform.errors import KafkaRejected, KafkaUnavailable, SecretUnresolved, SettingsError
from cdc_platform.model.observed import TopicRequest
from cdc_platform.testing import FakeKafka
from tests.clients.kafka.harness import Harness
from tests.waiting import assert_eventually

NOWHERE = {"bootstrap.servers": "127.0.0.1:1"}


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.stack)])
def harness(request: pytest.FixtureRequest) -> Iterator[Harness]:
    if request.param == "fake":
        yield Harness(FakeKafka())
        return
    harness = Harness(KafkaAdmin(request.getfixturevalue("stack").kafka_client))
    yield harness
    harness.clean()


def test_topic_is_created_with_partitions_replication_and_config(harness: Harness) -> None:
    request = harness.request(config={"cleanup.policy": "compact", "retention.ms": "604800000"})
    harness.kafka.create_topics([request])
    harness.assert_shows(request, partitions=2, replication=1, config=request.config)
    assert request.name in harness.kafka.topics()


def test_config_holds_only_what_differs_from_the_default(harness: Harness) -> None:
    request = harness.request()
    harness.kafka.create_topics([request])
    harness.assert_shows(request, config={})


def test_topics_by_name_leave_out_what_is_not_there(harness: Harness) -> None:
    first, second = harness.request("a"), harness.request("b")
    harness.kafka.create_topics([first, second])
    harness.assert_shows(first)
    harness.assert_shows(second)
    assert set(harness.kafka.topics([first.name, "contract-none"])) == {first.name}
    assert harness.kafka.topics([]) == {}


def test_creating_what_exists_is_no_error_and_changes_nothing(harness: Harness) -> None:
    request = harness.request()
    harness.kafka.create_topics([request])
    harness.kafka.create_topics([harness.request(partitions=5)])
    harness.assert_shows(request, partitions=2)


def test_one_bad_topic_does_not_keep_the_others_from_being_made(harness: Harness) -> None:
    good = harness.request("good")
    bad = [
        harness.request("factor", replication=99),
        harness.request("config", config={"no.such.config": "1"}),
        harness.request("value", config={"retention.ms": "soon"}),
        harness.request("partitions", partitions=0),
        harness.request("sl/ash"),
    ]
    problems = harness.kafka.create_topics([*bad[:2], good, *bad[2:]])
    assert problems.keys() == {request.name for request in bad}
    for request in bad:
        said = str(problems[request.name])
        assert request.name in said and isinstance(problems[request.name], KafkaRejected)
        assert not any(other.name in said for other in bad if other is not request)
    harness.assert_shows(good)
    assert not any(harness.seen(request) for request in bad)


def test_partitions_grow_and_never_shrink(harness: Harness) -> None:
    request = harness.request()
    harness.kafka.create_topics([request])
    harness.assert_shows(request)
    harness.kafka.add_partitions(request.name, 4)
    harness.assert_shows(request, partitions=4)
    harness.kafka.add_partitions(request.name, 4)
    with pytest.raises(KafkaRejected, match="INVALID_PARTITIONS"):
        harness.kafka.add_partitions(request.name, 3)
    harness.assert_shows(request, partitions=4)


def test_config_is_changed_by_entry_and_returned_to_the_default(harness: Harness) -> None:
    request = harness.request(config={"retention.ms": "1000000", "cleanup.policy": "compact"})
    harness.kafka.create_topics([request])
    harness.assert_shows(request)
    harness.kafka.alter_topic_config(request.name, {"retention.ms": None, "segment.ms": "3600000"})
    harness.assert_shows(request, config={"cleanup.policy": "compact", "segment.ms": "3600000"})


def test_bad_config_change_is_rejected_as_a_whole(harness: Harness) -> None:
    request = harness.request()
    harness.kafka.create_topics([request])
    harness.assert_shows(request)
    for bad in ({"retention.ms": "soon"}, {"no.such.config": "1"}):
        with pytest.raises(KafkaRejected, match="INVALID_CONFIG"):
            harness.kafka.alter_topic_config(request.name, {"segment.ms": "3600000", **bad})
    harness.assert_shows(request, config={})


def test_changes_of_a_topic_that_is_not_there_are_rejected(harness: Harness) -> None:
    name = harness.request().name
    changes: tuple[Callable[[], object], ...] = (
        lambda: harness.kafka.add_partitions(name, 3),
        lambda: harness.kafka.alter_topic_config(name, {"retention.ms": "1000"}),
    )
    for change in changes:
        with pytest.raises(KafkaRejected, match="UNKNOWN_TOPIC"):
            change()


def test_topic_is_deleted_and_gone_already_is_no_error(harness: Harness) -> None:
    request = harness.request()
    harness.kafka.create_topics([request])
    harness.assert_shows(request)
    harness.kafka.delete_topics([request.name, harness.request("none").name])
    assert_eventually(lambda: harness.seen(request) is None, what="gone")
    harness.kafka.delete_topics([request.name])


def test_nothing_asked_is_nothing_done(harness: Harness) -> None:
    request = harness.request()
    harness.kafka.create_topics([request])
    harness.assert_shows(request)
    before = harness.kafka.topics([request.name])
    harness.kafka.create_topics([])
    harness.kafka.delete_topics([])
    assert harness.kafka.topics([request.name]) == before


# The real client alone


def test_brokers_away_are_unavailable_and_say_why() -> None:
    admin = KafkaAdmin(NOWHERE, timeout=0.3)
    for call in (
        admin.topics,
        lambda: admin.delete_topics(["a"]),
    ):
        with pytest.raises(KafkaUnavailable, match=r"127\.0\.0\.1:1.*Cure"):
            call()
    (error,) = admin.create_topics([TopicRequest(name="a", partitions=1, replication=1, config={})]).values()
    assert isinstance(error, KafkaUnavailable) and "127.0.0.1:1" in str(error)


def test_librdkafka_speaks_through_logging_and_not_all_the_time(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    admin = KafkaAdmin({"bootstrap.servers": "127.0.0.1:2"}, timeout=0.4)
    for _ in range(2):
        with pytest.raises(KafkaUnavailable, match="Connection refused"):
            admin.topics()
    lines = [record for record in caplog.records if "127.0.0.1:2" in record.getMessage()]
    assert len(lines) == 1 and lines[0].name == "cdc_platform.librdkafka"
    assert capfd.readouterr().err == ""


def test_wrong_librdkafka_setting_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match=r"kafka.*no\.such\.property.*Cure"):
        KafkaAdmin({**NOWHERE, "no.such.property": "1"}).topics()


def test_secret_of_the_settings_is_resolved_or_named() -> None:
    admin = KafkaAdmin({**NOWHERE, "sasl.password": "${env:CDC_TEST_NOT_SET}"})
    with pytest.raises(SecretUnresolved, match="CDC_TEST_NOT_SET"):
        admin.topics()
