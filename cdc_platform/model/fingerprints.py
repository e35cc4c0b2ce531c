"""Short digests that tell values apart: of configs, plans, records. Stored ones depend on them: they never change."""

from __future__ import annotations

import hashlib


def fingerprint(value: str | bytes, digits: int = 16) -> str:
    """The first `digits` hexadecimal digits of the value's SHA-256; text is taken as UTF-8."""
    return hashlib.sha256(value.encode() if isinstance(value, str) else value).hexdigest()[:digits]
