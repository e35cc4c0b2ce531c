"""A Kafka cluster under contract, the fake one or a real one."""

from __future__ import annotations

import secrets

from cdc_platform.clients.protocols import Kafka
from cdc_platform.model.observed import ObservedTopic, TopicRequest
from tests.waiting import assert_eventually


class Harness:
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
