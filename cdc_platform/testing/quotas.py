"""Client quotas without brokers: `snapshots.ports.Rates` in memory."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from cdc_platform.errors import CdcError, KafkaRejected


class FakeQuotas:
    """The byte rates of one Kafka cluster.

    `outage`, once set, is raised by every call. `writes` lists what was really
    changed: (client id, rate), in order.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rates: dict[str, int] = {}
        self.outage: CdcError | None = None
        self.writes: list[tuple[str, int | None]] = []

    def close(self) -> None:
        """Nothing to close."""

    def rates(self) -> Mapping[str, int]:
        """Bytes a second by `client.id`."""
        self._check()
        with self._lock:
            return dict(self._rates)

    def set_rates(self, rates: Mapping[str, int | None]) -> None:
        """Set bytes a second by `client.id`; None removes."""
        self._check()
        for client_id, rate in rates.items():
            if rate is not None and rate < 1:
                raise KafkaRejected(f"{rate} is not a rate.", where=client_id)
        with self._lock:
            for client_id, rate in rates.items():
                if self._rates.get(client_id) == rate:
                    continue
                if rate is None:
                    del self._rates[client_id]
                else:
                    self._rates[client_id] = rate
                self.writes.append((client_id, rate))

    def _check(self) -> None:
        if self.outage is not None:
            raise self.outage
