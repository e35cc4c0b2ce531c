"""The topic's side: from the `after` of an event to the canonical row.

Most events are canonical as they are, and are hashed as they stand. Three
longer ways, each taken only by an event that needs it:

- it holds a backslash: its escapes are resolved;
- a column of a scalar type has two spellings: its token is found by the
  column's name and replaced. Without a backslash in the event no string can
  hold that name in quotes, so there is no mistaking it;
- anything else: the object is decoded and put together column by column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from cdc_platform.canonical import hash_sql as engines
from cdc_platform.canonical import wire_values as wire
from cdc_platform.canonical.columns import Normaliser, Shape
from cdc_platform.model import bounded_json
from cdc_platform.model.topology import Engine

_FREQUENT = b'0123456789"abcdefghijklmnopqrstuvwxyz,:. '
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])

# How an unchanged TOAST value looks in a column of text or bytes, in an array and
# in an hstore (Debezium's unavailable.value.placeholder).
_BYTES = b"__debezium_unavailable_value"


@dataclass(frozen=True, slots=True)
class _Patch:
    """A scalar column whose token may have to be replaced: always, or when `trigger` is in the event."""

    label: bytes
    normalise: Normaliser
    trigger: bytes | None


class RowReader:
    """Makes rows and keys of one shape canonical."""

    def __init__(self, shape: Shape, *, placeholder: str = _BYTES.decode()) -> None:
        self.shape = shape
        self._steps = [
            (column.name, engines.json_name(column.name).encode(), engines.form(shape.engine, column))
            for column in shape.columns
        ]
        self._by_name = {name: found for name, _, found in self._steps}
        odd = [(label, found) for _, label, found in self._steps if found is None or found.wire is not None]
        # Objects within the row could hold a column's name as one of theirs.
        nested = any(found is not None and not found.scalar for _, _, found in self._steps)
        self.by_column = nested or any(found is None or len(found.triggers) > 1 for _, found in odd)
        self._patches = tuple(
            _Patch(label, found.wire, found.triggers[0] if found.triggers else None)
            for label, found in odd
            if found is not None and found.wire is not None and not self.by_column and found.triggers != (b"\\",)
        )
        self._escapes = any(found is not None and found.triggers == (b"\\",) for _, found in odd)
        self._unescape = _unescape_of(shape.engine)
        triggers = [patch.trigger for patch in self._patches]
        self._always = self.by_column or None in triggers
        self._unchanged = None if shape.complete_rows else placeholder.encode()
        # The placeholder's first bytes are as rare as all of it.
        unchanged = () if self._unchanged is None else (self._unchanged[:6],)
        # What JSON_QUOTE() leaves as it is is canonical, unless a column has two spellings with a backslash.
        escapes = (b"\\u", b"\\/") if shape.engine.reads_binlog and not self._escapes else (b"\\",)
        patterns = dict.fromkeys((*escapes, *unchanged, *(part for part in triggers if part)))
        self._patterns = tuple((pattern, _rarest(pattern)) for pattern in patterns)
        self._rare = {pattern[at] for pattern, at in self._patterns}
        self._names = tuple(name for name, _, _ in self._steps)

    def suspects(self, rows: Sequence[Any]) -> npt.NDArray[np.int64]:
        """Of the `after` of each event (bytes or msgspec.Raw), the indexes of those that may not be canonical yet.

        Searches all of them as one buffer: a search in each would cost more
        than decoding them.
        """
        if self._always:
            return np.arange(len(rows))
        text = np.frombuffer(b"".join(rows), dtype=np.uint8)
        sizes = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        ends = np.cumsum(sizes)
        rare = np.zeros(len(text), dtype=np.bool_)
        for byte in self._rare:
            rare |= text == byte
        hits = np.flatnonzero(rare)
        here = text[hits]
        # No object is no row; that of a delete is null.
        found = text[ends - sizes] != 0x7B
        for pattern, rare_at in self._patterns:
            # A match that spans two events makes the first one suspect, which costs one more check.
            begins = hits[here == pattern[rare_at]] - rare_at
            begins = begins[(begins >= 0) & (begins <= len(text) - len(pattern))]
            for at, byte in enumerate(pattern):
                if at != rare_at:
                    begins = begins[text[begins + at] == byte]
            if pattern == b"\\" and not self._escapes:
                # A quote in a string is written the same way on both sides; a row does not end with a backslash.
                begins = begins[text[begins + 1] != 0x22]
            found[np.searchsorted(ends, begins, side="right")] = True
        return np.flatnonzero(found)

    def canonical(self, after: bytes) -> bytes | None:
        """The canonical row of an event that has the table's columns; None when it lacks an unchanged TOAST value.

        Raises msgspec.DecodeError.
        """
        if self.by_column or (self._unchanged is not None and self._unchanged in after):
            return self.row(after)
        if b"\\" in after:
            by_column = self._escapes or any(patch.trigger is None or patch.trigger in after for patch in self._patches)
            return self.row(after) if by_column else self._unescape(after)
        for patch in self._patches:
            if patch.trigger is None or patch.trigger in after:
                after = _patched(after, patch)
        return after

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
        if self._is_unchanged(raw):
            return None
        found = self._by_name[name]
        token = found.wire(raw) if found is not None and found.wire is not None else raw
        return self._unescape(token)

    def tokens(self, after: bytes) -> dict[str, bytes | None]:
        """The tokens by column; None for an unchanged TOAST value. Raises msgspec.DecodeError."""
        fields = bounded_json.decode(_OBJECT, after)
        return {name: self.token(name, bytes(fields[name])) if name in fields else b"null" for name in self._names}

    def wire_tokens(self, after: bytes) -> dict[str, bytes | None]:
        """The tokens by column as the wire has them; None for an unchanged TOAST value. Raises msgspec.DecodeError."""
        fields = bounded_json.decode(_OBJECT, after)
        found: dict[str, bytes | None] = {}
        for name in self._names:
            raw = bytes(fields[name]) if name in fields else b"null"
            found[name] = None if self._is_unchanged(raw) else raw
        return found

    def same_columns(self, after: bytes) -> bool:
        """True when the event has the table's columns in the table's order: it can be hashed as it stands.

        Raises msgspec.DecodeError.
        """
        fields: dict[str, msgspec.Raw] = bounded_json.decode(_OBJECT, after)
        return tuple(fields) == self._names

    def key(self, tokens: Mapping[str, bytes]) -> bytes:
        """The canonical key from the wire's tokens of the key columns."""
        found = [self.token(name, tokens[name]) for name in self.shape.key]
        return b",".join(token if token is not None else b"" for token in found)

    def _is_unchanged(self, raw: bytes) -> bool:
        unchanged = self._unchanged
        if unchanged is None or unchanged not in raw:
            return False
        return raw in (b'"' + unchanged + b'"', b'["' + unchanged + b'"]') or raw.startswith(b'"{\\"' + unchanged)


def _unescape_of(engine: Engine) -> Normaliser:
    if engine.reads_binlog:
        return partial(wire.json_unescape, small_hex=engine is Engine.MYSQL)
    return wire.unescape


def _rarest(pattern: bytes) -> int:
    """The index of the byte that a search begins with: JSON is full of digits, quotes and small letters."""
    return next((at for at, byte in enumerate(pattern) if byte not in _FREQUENT), 0)


def _patched(after: bytes, patch: _Patch) -> bytes:
    """The event with one scalar token made canonical. It holds no backslash."""
    begin = after.find(patch.label)
    if begin < 0:
        return after
    begin += len(patch.label)
    if after[begin] == 0x22:
        end = after.index(b'"', begin + 1) + 1
    else:
        end = after.find(b",", begin)
        if end < 0:
            end = len(after) - 1
    token = after[begin:end]
    return after if token == b"null" else after[:begin] + patch.normalise(token) + after[end:]
