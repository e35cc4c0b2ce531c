"""The state topic without a broker: `protocols.StateStore` in memory."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

from cdc_platform.clients.kafka.state_reader import VERSION_FIELD, WRITER_KEY
from cdc_platform.errors import BadInput, CdcError, Fenced


class FakeStateTopic:
    """What the stores of several control planes share."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.documents: dict[str, str] = {}
        self.generation: int | None = None
        self.epoch = 0


class FakeStateStore:
    """One control plane's view of a `FakeStateTopic`; give two stores the same one to see them fence.

    `outage`, once set, is raised by every call. `writes` lists what was written,
    one mapping a transaction.
    """

    def __init__(self, topic: FakeStateTopic | None = None) -> None:
        self._topic = topic or FakeStateTopic()
        self._generation: int | None = None
        self._epoch: int | None = None
        self._fenced: Fenced | None = None
        self.outage: CdcError | None = None
        self.writes: list[Mapping[str, Mapping[str, Any] | None]] = []

    @property
    def problems(self) -> Mapping[str, str]:
        """There is no garbage in memory."""
        return {}

    def close(self) -> None:
        """Nothing to close."""

    def claim(self, generation: int) -> None:
        """Become the writer; the writer before is fenced. Raises Fenced if a newer one was here."""
        self._check()
        with self._topic.lock:
            self._refuse_if_newer(generation)
            self._topic.generation = generation
            self._generation, self._fenced = generation, None
            self._take_over()

    def read(self) -> Mapping[str, Mapping[str, Any]]:
        """All records up to now."""
        self._check()
        with self._topic.lock:
            return {key: json.loads(text) for key, text in self._topic.documents.items()}

    def write(self, records: Mapping[str, Mapping[str, Any] | None]) -> None:
        """Write all or none; None deletes."""
        self._check()
        encoded = {key: _encoded(key, document) for key, document in records.items()}
        if not records:
            return
        with self._topic.lock:
            if self._fenced is not None:
                raise self._fenced
            if self._epoch is None:
                self._take_over()
            elif self._epoch != self._topic.epoch:
                if self._generation is None:
                    self._fenced = Fenced("a newer writer has taken over.", where="state topic")
                    raise self._fenced
                self._refuse_if_newer(self._generation)
                self._take_over()
            for key, text in encoded.items():
                if text is None:
                    self._topic.documents.pop(key, None)
                else:
                    self._topic.documents[key] = text
            self.writes.append(dict(records))

    def _check(self) -> None:
        if self.outage is not None:
            raise self.outage

    def _take_over(self) -> None:
        self._topic.epoch += 1
        self._epoch = self._topic.epoch

    def _refuse_if_newer(self, generation: int) -> None:
        newest = self._topic.generation
        if newest is not None and newest > generation:
            self._fenced = Fenced(f"written under lock generation {newest}, ours is {generation}.", where="state topic")
            raise self._fenced


def _encoded(key: str, document: Mapping[str, Any] | None) -> str | None:
    if not key or key == WRITER_KEY:
        raise BadInput(f"{key!r} is no key for a record.", where="state topic")
    if document is None:
        return None
    if VERSION_FIELD in document:
        raise BadInput("this field is the store's own.", where=key, field=VERSION_FIELD)
    try:
        return json.dumps(dict(document))
    except (TypeError, ValueError) as error:
        raise BadInput(f"no JSON document: {error}.", where=key) from None
