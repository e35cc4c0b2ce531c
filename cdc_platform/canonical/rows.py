"""The topic's side: from the `after` of an event to the canonical row.

Most events are canonical as they are, and are hashed as they stand. An event
takes the long way, column by column, when a column always needs it, or when it
holds a byte pattern that may need it (a backslash, say: an escape).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from cdc_platform.canonical import engines, wire
from cdc_platform.canonical.columns import Shape

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])

# How an unchanged TOAST value looks in a column of text or bytes, in an array and
# in an hstore (Debezium's unavailable.value.placeholder).
_BYTES = b"__debezium_unavailable_value"


class RowReader:
    """Makes rows and keys of one shape canonical."""

    def __init__(self, shape: Shape, *, placeholder: str = _BYTES.decode()) -> None:
        self.shape = shape
        self._steps = [
            (column.name, engines.json_name(column.name).encode(), engines.form(shape.engine, column))
            for column in shape.columns
        ]
        self._by_name = {name: found for name, _, found in self._steps}
        forms = [found for _, _, found in self._steps if found is not None and found.wire is not None]
        self.always = any(not found.triggers for found in forms) or any(found is None for _, _, found in self._steps)
        patterns = {b"\\"} | {pattern for found in forms for pattern in found.triggers}
        self._placeholder = placeholder.encode()
        if not shape.complete_rows:
            patterns.add(self._placeholder)
        self.patterns = tuple(sorted(patterns))
        self._names = tuple(name for name, _, _ in self._steps)

    def row(self, after: bytes) -> bytes | None:
        """The canonical row; None when the event lacks an unchanged TOAST value.

        Columns that the table does not have (any more) are left out; one that
        the event does not have counts as NULL. Raises msgspec.DecodeError.
        """
        return self.assembled(self.tokens(after))

    def assembled(self, tokens: Mapping[str, bytes | None]) -> bytes | None:
        """The canonical row from its columns' tokens; None when one is missing."""
        parts: list[bytes] = []
        for name, label, _ in self._steps:
            token = tokens[name]
            if token is None:
                return None
            parts.append(label + token)
        return b"{" + b",".join(parts) + b"}"

    def token(self, name: str, raw: bytes) -> bytes | None:
        """One column's token; None for an unchanged TOAST value."""
        if raw == b"null":
            return raw
        if not self.shape.complete_rows and self._placeholder in raw and self._missing(raw):
            return None
        found = self._by_name[name]
        token = found.wire(raw) if found is not None and found.wire is not None else raw
        return wire.unescape(token)

    def tokens(self, after: bytes) -> dict[str, bytes | None]:
        """The tokens by column; None for an unchanged TOAST value. Raises msgspec.DecodeError."""
        fields = _OBJECT.decode(after)
        return {name: self.token(name, bytes(fields[name])) if name in fields else b"null" for name in self._names}

    def same_columns(self, after: bytes) -> bool:
        """True when the event has the table's columns in the table's order: it can be hashed as it stands."""
        return tuple(_OBJECT.decode(after)) == self._names

    def key(self, tokens: Mapping[str, bytes]) -> bytes:
        """The canonical key from the wire's tokens of the key columns."""
        found = [self.token(name, tokens[name]) for name in self.shape.key]
        return b",".join(token if token is not None else b"" for token in found)

    def _missing(self, raw: bytes) -> bool:
        mark = self._placeholder
        return raw in (b'"' + mark + b'"', b'["' + mark + b'"]') or raw.startswith(b'"{\\"' + mark)
