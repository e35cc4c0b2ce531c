"""Secrets in what drivers, Debezium and Connect say: taken out before it is kept, shown or sent."""

from __future__ import annotations

import re

from cdc_platform.model.secret_references import names_secret

_MASK = "***"
# What a text may be as long as; longer ones keep both ends.
_LONGEST = 256 * 1024

_NAME = r"(?:password|passwd|pwd|passphrase|secret|token|credentials?|api[._-]?key|private[._-]?key)[\w.-]{0,40}"
# A value in quotes, or all up to a space; `using password: YES` is none.
_VALUE = r"""(?:"(?:\\.|[^"\\\n]){0,4000}"|'(?:\\.|[^'\\\n]){0,4000}'|(?!(?:YES|NO)\b)[^\s"'&;)}\]]+)"""
_KEY_BLOCK = r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|\Z)"
_IDENTIFIED = r"(\bIDENTIFIED\b[^'\"\n]{0,60}\b(?:BY|AS|USING)\s+(?:PASSWORD\s*\(?\s*)?)"
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(_KEY_BLOCK, re.DOTALL), _MASK),
    (re.compile(rf"""({_NAME}["']?\s{{0,3}}[=:]\s{{0,3}}){_VALUE}""", re.IGNORECASE), rf"\1{_MASK}"),
    (re.compile(r"(://[^\s/:@]{0,200}):[^\s/]{1,400}@"), rf"\1:{_MASK}@"),
    (re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9+/_.=~-]{6,}", re.IGNORECASE), rf"\1 {_MASK}"),
    (re.compile(_IDENTIFIED + _VALUE, re.IGNORECASE), rf"\1{_MASK}"),
    (re.compile(r"(\bPASSWORD\s*\(?\s*)('(?:''|[^'\n]){0,4000}'|\"[^\"\n]{0,4000}\")", re.IGNORECASE), rf"\1{_MASK}"),
)
# Connect validates after it has replaced `${...}`, and ConfigException prints the offending value.
_INVALID = re.compile(r"Invalid value (?s:.{0,4000}?) for configuration ([\w.-]+)")


def without_secrets(text: str) -> str:
    """The text with `***` in place of what its neighbours call a password, a token or another secret."""
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]}\n...\n{text[-_LONGEST // 2 :]}"
    text = _INVALID.sub(_invalid, text)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def _invalid(found: re.Match[str]) -> str:
    return f"Invalid value {_MASK} for configuration {found[1]}" if names_secret(found[1]) else found[0]
