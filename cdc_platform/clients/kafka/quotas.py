"""Client quotas: how many bytes a second a connector's producer may send.

Set through the Kafka protocol (KIP-546), which librdkafka does not speak; the
requests are those of kafka-python. A quota belongs to a `client.id`; brokers
apply it by delaying their answers, so nothing is lost, only slower. The rate
holds on each broker: a producer that writes to three brokers may send three
times as much.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from kafka import errors as kafka_errors
from kafka.net.compat import KafkaNetClient
from kafka.protocol.admin.client_quotas import AlterClientQuotasRequest, DescribeClientQuotasRequest

from cdc_platform.clients.secrets import resolve_all
from cdc_platform.errors import CdcError, KafkaRejected, KafkaUnavailable, SettingsError

log = logging.getLogger(__name__)

RATE = "producer_byte_rate"

_CLIENT = "client-id"
_ANY_NAME = 2
_A_REQUEST = 1000
_POLL = 0.1
_COMMANDS_SHOWN = 3

# librdkafka's names, as the settings have them, and kafka-python's.
_NAMES = {
    "bootstrap.servers": "bootstrap_servers",
    "client.id": "client_id",
    "security.protocol": "security_protocol",
    "sasl.mechanism": "sasl_mechanism",
    "sasl.mechanisms": "sasl_mechanism",
    "sasl.username": "sasl_plain_username",
    "sasl.password": "sasl_plain_password",
    "ssl.ca.location": "ssl_cafile",
    "ssl.certificate.location": "ssl_certfile",
    "ssl.key.location": "ssl_keyfile",
    "ssl.key.password": "ssl_password",
    "ssl.crl.location": "ssl_crlfile",
}
# Without these a connection would be refused or, worse, less safe than asked for.
_SECURITY = ("ssl.", "sasl.", "enable.ssl.", "https.")


class ClientQuotas:
    """The producers' byte rates on one Kafka cluster; satisfies `snapshots.ports.Rates`.

    Safe to call from many threads, one call at a time. Nothing is connected
    before the first call.

    Args:
        config: a librdkafka configuration; values may be references.
        timeout: seconds for each call as a whole.
    """

    def __init__(self, config: Mapping[str, str], timeout: float = 30.0) -> None:
        self._config = dict(config)
        self._timeout = timeout
        self._servers = config.get("bootstrap.servers", "(no bootstrap.servers)")
        self._lock = threading.Lock()
        self._client: Any = None

    def rates(self) -> Mapping[str, int]:
        """Bytes a second by `client.id`, of all clients that have a rate of their own."""
        with self._lock:
            return self._read(time.monotonic() + self._timeout)

    def set_rates(self, rates: Mapping[str, int | None]) -> None:
        """Set bytes a second by `client.id`; None removes. What is right already is not written.

        Read back before it returns: the brokers show what was asked.

        Raises:
            KafkaRejected: refused; names the command for an operator who has the right.
            KafkaUnavailable: not answered, or not shown in time.
        """
        for client_id, rate in rates.items():
            if rate is not None and rate < 1:
                raise KafkaRejected(f"{rate} is not a rate.", where=client_id, cure="Use 1 byte a second or more.")
        with self._lock:
            end = time.monotonic() + self._timeout
            wrong = _differences(rates, self._read(end))
            if not wrong:
                return
            entries = iter(wrong.items())
            while batch := dict(islice(entries, _A_REQUEST)):
                self._alter(batch, end)
            while left := _differences(rates, self._read(end)):
                if time.monotonic() > end:
                    raise KafkaUnavailable(
                        f"{len(left)} quotas do not show yet, {next(iter(left))} among them.",
                        where=f"Kafka {self._servers}",
                    )
                time.sleep(_POLL)
            log.info("%d client quotas changed", len(wrong))

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._drop()

    def _read(self, end: float) -> dict[str, int]:
        component = DescribeClientQuotasRequest.ComponentData(entity_type=_CLIENT, match_type=_ANY_NAME, match=None)
        answer = self._ask(DescribeClientQuotasRequest(components=[component], strict=True), end)
        self._check(answer.error_code, answer.error_message, "describe client quotas", {})
        return {
            entry.entity[0].entity_name: int(value.value)
            for entry in answer.entries or ()
            for value in entry.values
            if value.key == RATE
        }

    def _alter(self, rates: Mapping[str, int | None], end: float) -> None:
        request = AlterClientQuotasRequest
        entries = [
            request.EntryData(
                entity=[request.EntryData.EntityData(entity_type=_CLIENT, entity_name=client_id)],
                ops=[request.EntryData.OpData(key=RATE, value=float(rate or 0), remove=rate is None)],
            )
            for client_id, rate in rates.items()
        ]
        answer = self._ask(request(entries=entries, validate_only=False), end)
        for entry in answer.entries:
            name = entry.entity[0].entity_name if entry.entity else None
            self._check(entry.error_code, entry.error_message, f"set the quota of {name}", rates)

    def _ask(self, request: Any, end: float) -> Any:
        """One request to any broker, which hands it to the controller if need be."""
        while True:
            # Brokers close idle connections: what was open before may be tried again.
            fresh = self._client is None
            try:
                left = end - time.monotonic()
                if left <= 0:
                    raise kafka_errors.KafkaTimeoutError("no time left")
                client = self._connected(left)
                left = end - time.monotonic()
                return client.send_and_receive(client.least_loaded_node(), request, timeout_ms=max(1.0, left * 1000))
            except kafka_errors.KafkaError as error:
                self._drop()
                if fresh or not error.retriable:
                    raise self._translated(error, "client quotas", {}) from None

    def _connected(self, seconds: float) -> Any:
        if self._client is None:
            client = KafkaNetClient(**self._settings())
            try:
                client.get_broker_version(timeout_ms=seconds * 1000)
            except kafka_errors.KafkaError:
                client.close()
                raise
            self._client = client
        return self._client

    def _settings(self) -> dict[str, Any]:
        resolved = {"client.id": "cdc-platform", **resolve_all(self._config)}
        found: dict[str, Any] = {"receive_message_max_bytes": 100_000_000}
        for name, value in resolved.items():
            if name in _NAMES:
                found[_NAMES[name]] = value
            elif name == "ssl.endpoint.identification.algorithm":
                found["ssl_check_hostname"] = value != "none"
            elif name.startswith(_SECURITY):
                raise SettingsError(
                    "client quotas cannot be set over a connection with this setting.",
                    where="settings",
                    field=f"kafka.{name}",
                    cure=f"Let an operator set them: {operator_command(self._servers, {})[0]}",
                )
        found["security_protocol"] = found.get("security_protocol", "plaintext").upper()
        found["bootstrap_servers"] = found.get("bootstrap_servers", "").split(",")
        return found

    def _check(self, code: int, message: str | None, what: str, rates: Mapping[str, int | None]) -> None:
        kind = kafka_errors.for_code(code)
        if kind is not kafka_errors.NoError:
            raise self._translated(kind(message or ""), what, rates)

    def _translated(self, error: kafka_errors.KafkaError, what: str, rates: Mapping[str, int | None]) -> CdcError:
        where = f"Kafka {self._servers}"
        message = f"{what}: {error}."
        if isinstance(error, kafka_errors.ClusterAuthorizationFailedError):
            commands = operator_command(self._servers, rates)
            more = f" and {len(commands) - _COMMANDS_SHOWN} more" if len(commands) > _COMMANDS_SHOWN else ""
            return KafkaRejected(
                message,
                where=where,
                cure=f"Allow AlterConfigs and DescribeConfigs on the cluster, or run: "
                f"{'; '.join(commands[:_COMMANDS_SHOWN])}{more}",
            )
        if error.retriable or isinstance(error, kafka_errors.KafkaConnectionError | kafka_errors.KafkaTimeoutError):
            return KafkaUnavailable(message, where=where, cure="Check that the brokers are up and reachable.")
        return KafkaRejected(message, where=where)

    def _drop(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def operator_command(servers: str, rates: Mapping[str, int | None]) -> Sequence[str]:
    """What an operator with the right types instead: one `kafka-configs` line a client."""
    return list(_commands(servers, rates or {"CLIENT_ID": 1_000_000}))


def _commands(servers: str, rates: Mapping[str, int | None]) -> Iterator[str]:
    for client_id, rate in rates.items():
        change = f"--delete-config {RATE}" if rate is None else f"--add-config {RATE}={rate}"
        yield (
            f"kafka-configs --bootstrap-server {servers} --alter {change} "
            f"--entity-type clients --entity-name {client_id}"
        )


def _differences(wanted: Mapping[str, int | None], seen: Mapping[str, int]) -> dict[str, int | None]:
    return {client_id: rate for client_id, rate in wanted.items() if seen.get(client_id) != rate}
