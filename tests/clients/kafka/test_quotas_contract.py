"""Client quotas, asked of the fake and of real Kafka alike."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any

import pytest
from kafka.protocol.admin.client_quotas import AlterClientQuotasResponse, DescribeClientQuotasResponse

from cdc_platform.clients.kafka import quotas as subject
from cdc_platform.clients.kafka.quotas import ClientQuotas
from cdc_platform.errors import KafkaRejected, KafkaUnavailable, SettingsError
from cdc_platform.testing import FakeQuotas

Quotas = FakeQuotas | ClientQuotas

NOWHERE = {"bootstrap.servers": "127.0.0.1:1"}


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.stack)])
def quotas(request: pytest.FixtureRequest) -> Iterator[Quotas]:
    if request.param == "fake":
        yield FakeQuotas()
        return
    real = ClientQuotas(request.getfixturevalue("stack").kafka_client)
    yield real
    real.close()


@pytest.fixture
def client(quotas: Quotas) -> Iterator[str]:
    """A prefix of client ids; what is set under it is removed."""
    prefix = f"connector-producer-contract.{secrets.token_hex(4)}"
    yield prefix
    quotas.set_rates(dict.fromkeys(own(quotas, prefix)))


def own(quotas: Quotas, prefix: str) -> dict[str, int]:
    return {name: rate for name, rate in quotas.rates().items() if name.startswith(prefix)}


def test_rates_are_set_changed_and_removed(quotas: Quotas, client: str) -> None:
    first, second = f"{client}-0", f"{client}-1"
    quotas.set_rates({first: 1_000_000, second: 1})
    assert own(quotas, client) == {first: 1_000_000, second: 1}
    quotas.set_rates({first: 2_000_000_000_000, second: None})
    assert own(quotas, client) == {first: 2_000_000_000_000}


def test_removing_what_is_not_there_is_no_error(quotas: Quotas, client: str) -> None:
    quotas.set_rates({f"{client}-0": None})
    quotas.set_rates({})
    assert own(quotas, client) == {}


def test_zero_is_no_rate_and_nothing_is_set(quotas: Quotas, client: str) -> None:
    with pytest.raises(KafkaRejected, match="not a rate"):
        quotas.set_rates({f"{client}-0": 5, f"{client}-1": 0})
    assert own(quotas, client) == {}


def test_ten_thousand_rates_take_seconds(quotas: Quotas, client: str) -> None:
    """Of this process: how long a busy machine makes it wait is another matter."""
    wanted: dict[str, int | None] = {f"{client}.{at:05d}-0": 1_000_000 + at for at in range(10_000)}
    started = time.process_time()
    quotas.set_rates(wanted)
    assert time.process_time() - started < 15.0
    assert own(quotas, client) == wanted
    started = time.process_time()
    quotas.set_rates(wanted)
    assert time.process_time() - started < 2.0


# The real client alone


def test_brokers_away_are_unavailable() -> None:
    with pytest.raises(KafkaUnavailable, match=r"127\.0\.0\.1:1.*Cure"):
        ClientQuotas(NOWHERE, timeout=0.5).rates()


def test_security_setting_that_cannot_be_kept_is_refused() -> None:
    """Never a connection that is less safe than the settings ask for."""
    with pytest.raises(SettingsError, match=r"kafka\.sasl\.oauthbearer\.config.*kafka-configs"):
        ClientQuotas({**NOWHERE, "sasl.oauthbearer.config": "x"}).rates()


def test_brokers_that_refuse_name_the_operators_command(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        """A broker that lets everybody describe and nobody alter."""

        def __init__(self, **config: Any) -> None:
            pass

        def get_broker_version(self, timeout_ms: float) -> tuple[int, int]:
            return (4, 3)

        def least_loaded_node(self) -> int:
            return 1

        def send_and_receive(self, node: int, request: Any, timeout_ms: float) -> Any:
            if "Describe" in type(request).__name__:
                return DescribeClientQuotasResponse(throttle_time_ms=0, error_code=0, error_message=None, entries=[])
            entry = AlterClientQuotasResponse.EntryData(error_code=31, error_message="Denied.", entity=[])
            return AlterClientQuotasResponse(throttle_time_ms=0, entries=[entry])

        def close(self) -> None:
            pass

    monkeypatch.setattr(subject, "KafkaNetClient", Refusing)
    with pytest.raises(KafkaRejected) as caught:
        ClientQuotas(NOWHERE).set_rates({f"client-{at}": at + 1 for at in range(5)})
    assert (
        "kafka-configs --bootstrap-server 127.0.0.1:1 --alter --add-config producer_byte_rate=1 "
        "--entity-type clients --entity-name client-0" in str(caught.value)
    )
    assert "and 2 more" in str(caught.value)
