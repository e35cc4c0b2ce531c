"""What the platform relies on in the state topic, asked of the fake and of real Kafka alike."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from confluent_kafka import Producer

from cdc_platform.clients.kafka.admin import KafkaAdmin
from cdc_platform.clients.kafka.state_topic import StateTopic
from cdc_platform.clients.protocols import StateStore
from cdc_platform.errors import BadInput, Fenced, KafkaRejected, KafkaUnavailable
from cdc_platform.local.stack import Stack
from cdc_platform.model.observed import TopicRequest
from cdc_platform.testing import FakeStateStore, FakeStateTopic
from tests.waiting import assert_eventually

Open = Callable[[], StateStore]


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.stack)])
def open_store(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Each call gives another control plane's view of the same topic."""
    if request.param == "fake":
        shared = FakeStateTopic()
        yield lambda: FakeStateStore(shared)
        return
    topic = f"cdc.contract-{secrets.token_hex(4)}.state"
    config = request.getfixturevalue("stack").kafka_client
    opened: list[StateTopic] = []

    def open_one() -> StateStore:
        opened.append(StateTopic(config, topic))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()
    KafkaAdmin(config).delete_topics([topic])


def test_records_come_back_in_another_process(open_store: Open) -> None:
    store = open_store()
    assert store.read() == {}
    records = {"restart/pins.00000": {"attempts": 3, "nested": {"é": [1, None, True]}}, "canary/pins": {}}
    store.write(records)
    assert store.read() == records
    assert_eventually(lambda: open_store().read() == records, what="another reader sees them")


def test_own_writes_are_read_at_once_and_the_last_one_wins(open_store: Open) -> None:
    store = open_store()
    for attempt in range(20):
        store.write({"restart/pins.00000": {"attempts": attempt}})
        assert store.read() == {"restart/pins.00000": {"attempts": attempt}}


def test_none_deletes(open_store: Open) -> None:
    store, reader = open_store(), open_store()
    store.write({"a/1": {"x": 1}, "a/2": {"x": 2}})
    assert_eventually(lambda: len(reader.read()) == 2, what="both")
    store.write({"a/1": None, "a/none": None})
    assert store.read() == {"a/2": {"x": 2}}
    assert_eventually(lambda: reader.read() == {"a/2": {"x": 2}}, what="one")


def test_newer_writer_fences_the_older_for_good(open_store: Open) -> None:
    old, new = open_store(), open_store()
    old.claim(1)
    old.write({"a/1": {"by": "old"}})
    new.claim(2)
    for _ in range(2):
        with pytest.raises(Fenced):
            old.write({"a/1": {"by": "old again"}, "a/2": {}})
    new.write({"a/3": {"by": "new"}})
    assert new.read() == {"a/1": {"by": "old"}, "a/3": {"by": "new"}}


def test_older_lock_never_takes_over_from_a_newer_one(open_store: Open) -> None:
    new, late = open_store(), open_store()
    new.claim(7)
    with pytest.raises(Fenced, match=r"7.*6"):
        late.claim(6)
    with pytest.raises(Fenced):
        late.write({"a/1": {}})
    new.write({"a/2": {}})
    assert set(new.read()) == {"a/2"}


def test_claimed_writer_takes_back_what_an_unclaimed_one_took(open_store: Open) -> None:
    """A process that slept through its lock gets a newer producer epoch, but no newer generation."""
    holder, sleeper = open_store(), open_store()
    holder.claim(3)
    sleeper.write({"a/1": {"by": "sleeper"}})
    holder.write({"a/2": {"by": "holder"}})
    with pytest.raises(Fenced):
        sleeper.write({"a/1": {"by": "sleeper again"}})
    assert holder.read() == {"a/1": {"by": "sleeper"}, "a/2": {"by": "holder"}}


def test_same_holder_may_claim_again_with_the_next_lock(open_store: Open) -> None:
    store = open_store()
    for generation in (1, 2, 3):
        store.claim(generation)
        store.write({"a/1": {"generation": generation}})
    assert store.read() == {"a/1": {"generation": 3}}


def test_two_control_planes_may_take_turns_for_ever(open_store: Open) -> None:
    stores = open_store(), open_store()
    for generation in range(1, 9):
        store = stores[generation % 2]
        store.claim(generation)
        store.write({"pass/last": {"generation": generation}})
        with pytest.raises(Fenced):
            stores[(generation + 1) % 2].claim(generation - 1)
    assert stores[0].read() == stores[1].read() == {"pass/last": {"generation": 8}}


@pytest.mark.parametrize(
    "records",
    [{"a/1": {"x": object()}}, {"a/1": {"version": 2}}, {"writer": {"generation": 99}}, {"": {}}],
)
def test_what_is_no_record_is_bad_input_and_nothing_is_written(open_store: Open, records: dict) -> None:  # type: ignore[type-arg]
    store = open_store()
    store.write({"a/0": {}})
    with pytest.raises(BadInput):
        store.write({"a/2": {}, **records})
    assert store.read() == {"a/0": {}}
    store.write({"a/2": {}})


def test_ten_thousand_shards_are_read_back(open_store: Open) -> None:
    records = {
        f"watermark/pins/pins/{at:05d}": {"gtid": f"0-1-{at}", "at": "2026-01-01T00:00:00Z"} for at in range(10_000)
    }
    open_store().write(records)
    reader = open_store()
    assert_eventually(lambda: len(reader.read()) == 10_000, what="all", seconds=5.0)
    started = time.monotonic()
    assert reader.read() == records
    assert time.monotonic() - started < 2.0


# The real topic alone


@pytest.fixture
def config(stack: Stack) -> dict[str, str]:
    return dict(stack.kafka_client)


@pytest.fixture
def topic(config: dict[str, str]) -> Iterator[str]:
    name = f"cdc.contract-{secrets.token_hex(4)}.state"
    yield name
    KafkaAdmin(config).delete_topics([name])


def produce(config: dict[str, str], topic: str, *records: tuple[bytes, bytes]) -> None:
    producer = Producer(config)
    failed: list[object] = []
    for key, value in records:
        producer.produce(
            topic, key=key, value=value, on_delivery=lambda error, _: failed.append(error) if error else None
        )
    assert producer.flush(10.0) == 0 and not failed


@pytest.mark.stack
def test_garbage_in_the_topic_is_reported_and_skipped(config: dict[str, str], topic: str) -> None:
    store = StateTopic(config, topic)
    store.write({"a/1": {"x": 1}, "a/2": {"x": 2}})
    produce(
        config,
        topic,
        (b"g/half", b'{"version":1,"x":'),
        (b"g/list", b"[1]"),
        (b"g/newer", b'{"version":2}'),
        (b"g/none", b'{"x":1}'),
        (b"\xff\xfe", b'{"version":1}'),
        (b"", b'{"version":1}'),
        (b"writer", b'{"version":1,"generation":"many"}'),
        (b"a/2", b"\x00\x01"),
    )
    for reader in (store, StateTopic(config, topic)):
        assert_eventually(partial(_has_problems, reader, 8), what="8 problems")
        assert reader.read() == {"a/1": {"x": 1}, "a/2": {"x": 2}}
        assert {"g/half", "g/list", "g/newer", "g/none", "writer", "a/2"} < set(reader.problems)
    assert "version is 2, not 1" in store.problems["g/newer"]
    store.write({"g/half": {"x": 3}, "a/2": {"x": 4}, "g/list": None})
    assert store.read() == {"a/1": {"x": 1}, "a/2": {"x": 4}, "g/half": {"x": 3}}
    assert not {"g/half", "a/2", "g/list"} & set(store.problems)


def _has_problems(reader: StateTopic, number: int) -> bool:
    return len(reader.read()) > 0 and len(reader.problems) == number


@pytest.mark.stack
def test_topic_is_made_compacted_by_the_first_write_only(config: dict[str, str], topic: str) -> None:
    admin = KafkaAdmin(config)
    store = StateTopic(config, topic)
    assert store.read() == {}
    assert topic not in admin.topics([topic])
    store.write({"a/1": {}})
    seen = admin.topics([topic])[topic]
    assert seen.partitions == 1
    assert (seen.config or {})["cleanup.policy"] == "compact"


@pytest.mark.stack
def test_topic_that_forgets_by_time_is_refused(config: dict[str, str], topic: str) -> None:
    KafkaAdmin(config).create_topics([TopicRequest(name=topic, partitions=1, replication=1, config={})])
    calls: tuple[Callable[[StateTopic], object], ...] = (lambda s: s.read(), lambda s: s.claim(1))
    for call in calls:
        with pytest.raises(KafkaRejected, match=r"cleanup\.policy.*Cure"):
            call(StateTopic(config, topic))


@pytest.mark.stack
def test_transaction_left_open_by_a_killed_writer_is_never_seen(config: dict[str, str], topic: str) -> None:
    store = StateTopic(config, topic)
    store.claim(1)
    store.write({"a/1": {"x": 1}})
    killed = Producer({**config, "transactional.id": f"cdc-platform-state-cdc-{topic}"})
    killed.init_transactions(10.0)
    killed.begin_transaction()
    killed.produce(topic, key=b"a/1", value=b'{"version":1,"x":666}')
    killed.flush(10.0)
    reader = StateTopic(config, topic)
    assert reader.read() == {"a/1": {"x": 1}}
    after = StateTopic(config, topic)
    after.claim(2)
    after.write({"a/2": {"x": 2}})
    expected = {"a/1": {"x": 1}, "a/2": {"x": 2}}
    assert after.read() == expected
    assert_eventually(lambda: reader.read() == expected, what="the next writer's records")


@pytest.mark.stack
def test_reader_follows_a_topic_that_was_made_anew(config: dict[str, str], topic: str) -> None:
    admin = KafkaAdmin(config)
    store = StateTopic(config, topic)
    store.write({f"a/{at}": {} for at in range(50)})
    assert len(store.read()) == 50
    admin.delete_topics([topic])
    assert_eventually(lambda: topic not in admin.topics([topic]), what="gone")
    StateTopic(config, topic).write({"b/1": {}})

    def follows() -> bool:
        try:
            return set(store.read()) == {"b/1"}
        except (KafkaRejected, KafkaUnavailable):
            return False  # brokers learn of it one after the other

    assert_eventually(follows, what="the new topic's records")


def test_brokers_away_are_unavailable() -> None:
    store = StateTopic({"bootstrap.servers": "127.0.0.1:1"}, timeout=0.2)
    for call in (store.read, lambda: store.claim(1), lambda: store.write({"a/1": {}})):
        with pytest.raises(KafkaUnavailable, match="Cure"):
            call()
