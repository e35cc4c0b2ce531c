"""What tests read of a Kafka message: its JSON and its headers, with types."""

from __future__ import annotations

import json
from typing import Any

from confluent_kafka import Message


def document(content: str | bytes | None) -> Any:
    """The JSON of a key or value; None for a tombstone."""
    return json.loads(content) if content else None


def headers_of(message: Message) -> dict[str, str]:
    """Name to text; the last of a name wins."""
    pairs = dict(message.headers() or [])
    return {name: value.decode() if isinstance(value, bytes) else value or "" for name, value in pairs.items()}
