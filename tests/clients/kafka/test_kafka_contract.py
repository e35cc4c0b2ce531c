"""What the platform relies on in the brokers' admin side, asked of the fake and of real Kafka alike."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator

import pytest

from cdc_platform.clients.kafka.admin import KafkaAdmin
from cdc_platform.clients.protocols import Kafka
from cdc_platform.errors import KafkaRejected, KafkaUnavailable, SecretUnresolved, SettingsError
from cdc_platform.model.observed import ObservedTopic, TopicRequest
from cdc_platform.testing import FakeKafka
from tests.waiting import assert_eventually

NOWHERE = {"bootstrap.servers": "127.0.0.1:1"}


class Subject:
    """A Kafka cluster under contract, and topics in it that no other test uses."""

    def __init__(self, kafka: Kafka) -> None:
        self.kafka = kafka
        self._own = f"contract-{secrets.token_hex(4)}"

    def request(self, name: str = "a", **more: object) -> TopicRequest:
        values: dict[str, object] = {"partitions": 2, "replication": 1, "config": {}, **more}
        return TopicRequest(name=f"{self._own}.{name}", **values)  # type: ignore[arg-type]

    def seen(self, request: TopicRequest) -> ObservedTopic | None:
        return self.kafka.topics([request.name]).get(request.name)

    def assert_shows(self, request: TopicRequest, **values: object) -> None:
        """Brokers learn of a change a moment after the controller has answered."""

        def holds() -> bool:
            seen = self.seen(request)
            return seen is not None and all(getattr(seen, key) == value for key, value in values.items())

        assert_eventually(holds, what=f"{request.name} with {values}")

    def clean(self) -> None:
        self.kafka.delete_topics([name for name in self.kafka.topics() if name.startswith(self._own)])


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.stack)])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    if request.param == "fake":
        yield Subject(FakeKafka())
        return
    subject = Subject(KafkaAdmin(request.getfixturevalue("stack").kafka_client))
    yield subject
    subject.clean()


def test_topic_is_created_with_partitions_replication_and_config(subject: Subject) -> None:
    request = subject.request(config={"cleanup.policy": "compact", "retention.ms": "604800000"})
    subject.kafka.create_topics([request])
    subject.assert_shows(request, partitions=2, replication=1, config=request.config)
    assert request.name in subject.kafka.topics()


def test_config_holds_only_what_differs_from_the_default(subject: Subject) -> None:
    request = subject.request()
    subject.kafka.create_topics([request])
    subject.assert_shows(request, config={})


def test_topics_by_name_leave_out_what_is_not_there(subject: Subject) -> None:
    first, second = subject.request("a"), subject.request("b")
    subject.kafka.create_topics([first, second])
    subject.assert_shows(first)
    subject.assert_shows(second)
    assert set(subject.kafka.topics([first.name, "contract-none"])) == {first.name}
    assert subject.kafka.topics([]) == {}


def test_creating_what_exists_is_no_error_and_changes_nothing(subject: Subject) -> None:
    request = subject.request()
    subject.kafka.create_topics([request])
    subject.kafka.create_topics([subject.request(partitions=5)])
    subject.assert_shows(request, partitions=2)


def test_one_bad_topic_does_not_keep_the_others_from_being_made(subject: Subject) -> None:
    good = subject.request("good")
    bad = [
        subject.request("factor", replication=99),
        subject.request("config", config={"no.such.config": "1"}),
        subject.request("value", config={"retention.ms": "soon"}),
        subject.request("partitions", partitions=0),
        subject.request("sl/ash"),
    ]
    with pytest.raises(KafkaRejected) as caught:
        subject.kafka.create_topics([*bad[:2], good, *bad[2:]])
    for request in bad:
        assert request.name in str(caught.value)
    assert good.name not in str(caught.value)
    subject.assert_shows(good)
    assert not any(subject.seen(request) for request in bad)


def test_partitions_grow_and_never_shrink(subject: Subject) -> None:
    request = subject.request()
    subject.kafka.create_topics([request])
    subject.assert_shows(request)
    subject.kafka.add_partitions(request.name, 4)
    subject.assert_shows(request, partitions=4)
    subject.kafka.add_partitions(request.name, 4)
    with pytest.raises(KafkaRejected, match="INVALID_PARTITIONS"):
        subject.kafka.add_partitions(request.name, 3)
    subject.assert_shows(request, partitions=4)


def test_config_is_changed_by_entry_and_returned_to_the_default(subject: Subject) -> None:
    request = subject.request(config={"retention.ms": "1000000", "cleanup.policy": "compact"})
    subject.kafka.create_topics([request])
    subject.assert_shows(request)
    subject.kafka.alter_topic_config(request.name, {"retention.ms": None, "segment.ms": "3600000"})
    subject.assert_shows(request, config={"cleanup.policy": "compact", "segment.ms": "3600000"})


def test_bad_config_change_is_rejected_as_a_whole(subject: Subject) -> None:
    request = subject.request()
    subject.kafka.create_topics([request])
    subject.assert_shows(request)
    for bad in ({"retention.ms": "soon"}, {"no.such.config": "1"}):
        with pytest.raises(KafkaRejected, match="INVALID_CONFIG"):
            subject.kafka.alter_topic_config(request.name, {"segment.ms": "3600000", **bad})
    subject.assert_shows(request, config={})


def test_changes_of_a_topic_that_is_not_there_are_rejected(subject: Subject) -> None:
    name = subject.request().name
    changes: tuple[Callable[[], object], ...] = (
        lambda: subject.kafka.add_partitions(name, 3),
        lambda: subject.kafka.alter_topic_config(name, {"retention.ms": "1000"}),
    )
    for change in changes:
        with pytest.raises(KafkaRejected, match="UNKNOWN_TOPIC"):
            change()


def test_topic_is_deleted_and_gone_already_is_no_error(subject: Subject) -> None:
    request = subject.request()
    subject.kafka.create_topics([request])
    subject.assert_shows(request)
    subject.kafka.delete_topics([request.name, subject.request("none").name])
    assert_eventually(lambda: subject.seen(request) is None, what="gone")
    subject.kafka.delete_topics([request.name])


def test_nothing_asked_is_nothing_done(subject: Subject) -> None:
    request = subject.request()
    subject.kafka.create_topics([request])
    subject.assert_shows(request)
    before = subject.kafka.topics([request.name])
    subject.kafka.create_topics([])
    subject.kafka.delete_topics([])
    assert subject.kafka.topics([request.name]) == before


# The real client alone


def test_brokers_away_are_unavailable_and_say_why() -> None:
    admin = KafkaAdmin(NOWHERE, timeout=0.3)
    for call in (
        admin.topics,
        lambda: admin.create_topics([TopicRequest(name="a", partitions=1, replication=1, config={})]),
        lambda: admin.delete_topics(["a"]),
    ):
        with pytest.raises(KafkaUnavailable, match=r"127\.0\.0\.1:1.*Cure"):
            call()


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
