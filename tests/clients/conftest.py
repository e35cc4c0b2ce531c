"""One cluster, three ways: the fake, the fake behind HTTP with the real client, and the real thing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from cdc_platform.clients.connect.client import ConnectClient
from cdc_platform.clients.kafka.admin import KafkaAdmin
from cdc_platform.model.observed import TopicRequest
from cdc_platform.testing import ConnectModel, FakeConnect, FakeConnectServer
from cdc_platform.wiring import connect_client
from tests.clients.connect.harness import Harness as ConnectHarness


@pytest.fixture(params=["fake", "fake-late", "rest", pytest.param("real", marks=pytest.mark.stack)])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ConnectHarness]:
    kind = request.param
    if kind == "real":
        stack = request.getfixturevalue("stack")
        settings = replace(stack.settings(), connect_timeout=60.0)
        with connect_client(settings, "main", stack.connect_urls) as client:
            harness = ConnectHarness(kind, client, tmp_path)
            # Without its topic a task that has something to send cannot stop for as long as Connect lets it.
            kafka = KafkaAdmin(stack.kafka_client)
            topic = harness.config()["topic"]
            kafka.create_topics([TopicRequest(name=topic, partitions=1, replication=1, config={})])
            yield harness
            harness.clean()
            kafka.delete_topics([topic])
        return
    model = ConnectModel(settle=0.0 if kind == "fake" else 0.05, fails=_dies_of_text)
    if kind != "rest":
        yield ConnectHarness(kind, FakeConnect("main", model), tmp_path)
        return
    with FakeConnectServer(model) as server, ConnectClient("main", [server.url], timeout=5.0) as client:
        yield ConnectHarness(kind, client, tmp_path)


def _dies_of_text(name: str, config: Mapping[str, str]) -> str | None:
    file = Path(config["file"])
    if "transforms" not in config or not file.exists() or file.read_text(encoding="utf-8").strip().isdigit():
        return None
    return "org.apache.kafka.connect.errors.ConnectException: Tolerance exceeded in error handler"
