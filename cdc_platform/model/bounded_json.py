"""JSON that strangers wrote: whatever is wrong with it is one kind of error.

msgspec meets a document that is nested too deeply with a RecursionError, which no caller of a decoder expects: one such
record in a topic would end whatever reads it.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

T = TypeVar("T")

# What decoding a stranger's record can raise, for loops that call a decoder themselves.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def decode(decoder: msgspec.json.Decoder[T], data: bytes | str) -> T:
    """Decode one document.

    Raises:
        msgspec.DecodeError: it is no JSON, of another shape (ValidationError), not UTF-8, or nested too deeply.
    """
    try:
        return decoder.decode(data)
    except UnicodeDecodeError:
        raise msgspec.DecodeError("not UTF-8") from None
    except RecursionError:
        raise msgspec.DecodeError("nested too deeply") from None
