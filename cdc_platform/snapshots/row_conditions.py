"""Which rows a backfill reads: a small language, parsed and rendered here. Pure.

Who launches a backfill writes the condition, and Debezium puts it into its query as it is, with the rights of the
connector's user. So what reaches SQL is made here of columns, comparisons and literals:

    status = 'new' AND (id BETWEEN 10 AND 20 OR note IS NOT NULL) AND NOT kind IN ('a', 'b')

Literals are numbers, 'text' (a quote is doubled), TRUE, FALSE and NULL. Columns are names, or quoted
as the engine does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NoReturn

from cdc_platform.errors import BadInput
from cdc_platform.model.topology import Engine

MAX_CHARACTERS = 10_000
MAX_DEPTH = 50

_TOKEN = re.compile(
    r"\s*(?:(?P<number>-?[0-9]+(?:\.[0-9]+)?(?![\w.]))|(?P<text>'(?:[^'\x00-\x1f]|'')*')"
    r"|(?P<quoted>`[A-Za-z_][\w$]{0,62}`|\"[A-Za-z_][\w$]{0,62}\")|(?P<word>[A-Za-z_][\w$]{0,62})"
    r"|(?P<sign><=|>=|<>|!=|=|<|>|\(|\)|,))",
    re.ASCII,
)
_KEYWORDS = frozenset({"AND", "OR", "NOT", "IN", "BETWEEN", "IS", "NULL", "TRUE", "FALSE"})
_COMPARISONS = frozenset({"=", "<>", "!=", "<", "<=", ">", ">="})
_CONSTANTS = frozenset({"TRUE", "FALSE"})
_FORM = "Write comparisons of columns with literals, joined by AND, OR, NOT and parentheses."


def sql_condition(text: str, engine: Engine) -> str:
    """The condition as SQL of the engine.

    Raises:
        BadInput: it is not of this language, or too long or too deep.
    """
    if len(text) > MAX_CHARACTERS:
        _refuse(f"is longer than {MAX_CHARACTERS} characters")
    parser = _Parser(_tokens(text), engine)
    rendered = parser.alternatives(0)
    if parser.tokens:
        _refuse(f"ends before {parser.tokens[-1][1]!r}")
    return rendered


def _tokens(text: str) -> list[tuple[str, str]]:
    """Kind and text of each token, the last first."""
    found: list[tuple[str, str]] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            _refuse(f"cannot be read from {text[at : at + 20].strip()!r} on")
        kind = str(match.lastgroup)
        token = match.group(kind)
        if kind == "word" and token.upper() in _KEYWORDS:
            kind, token = "keyword", token.upper()
        found.append((kind, token))
        at = match.end()
    return found[::-1]


@dataclass(slots=True)
class _Parser:
    tokens: list[tuple[str, str]]
    engine: Engine
    _end: tuple[str, str] = field(default=("end", ""), init=False)

    def alternatives(self, depth: int) -> str:
        parts = [self._all_of(depth)]
        while self._took("OR"):
            parts.append(self._all_of(depth))
        return " OR ".join(parts)

    def _all_of(self, depth: int) -> str:
        parts = [self._one(depth)]
        while self._took("AND"):
            parts.append(self._one(depth))
        return " AND ".join(parts)

    def _one(self, depth: int) -> str:
        if depth > MAX_DEPTH:
            _refuse(f"is nested deeper than {MAX_DEPTH} levels")
        if self._took("NOT"):
            return f"NOT {self._one(depth + 1)}"
        if self._took("("):
            inner = self.alternatives(depth + 1)
            self._demand(")")
            return f"({inner})"
        return self._comparison(self._column())

    def _comparison(self, column: str) -> str:
        kind, token = self._next()
        if token in _COMPARISONS and kind == "sign":
            return f"{column} {'<>' if token == '!=' else token} {self._literal()}"
        if (kind, token) == ("keyword", "IS"):
            negated = "NOT " if self._took("NOT") else ""
            self._demand("NULL")
            return f"{column} IS {negated}NULL"
        negated = "NOT " if (kind, token) == ("keyword", "NOT") else ""
        if negated:
            kind, token = self._next()
        if (kind, token) == ("keyword", "IN"):
            self._demand("(")
            values = [self._literal()]
            while self._took(","):
                values.append(self._literal())
            self._demand(")")
            return f"{column} {negated}IN ({', '.join(values)})"
        if (kind, token) == ("keyword", "BETWEEN"):
            low = self._literal()
            self._demand("AND")
            return f"{column} {negated}BETWEEN {low} AND {self._literal()}"
        return _unexpected(token, "a comparison")

    def _column(self) -> str:
        kind, token = self._next()
        postgres = self.engine is Engine.POSTGRES
        if kind == "word":
            # Postgres takes a name without quotes for one in small letters.
            return f'"{token.lower()}"' if postgres else f"`{token}`"
        if kind == "quoted" and token[0] == ('"' if postgres else "`"):
            return token
        return _unexpected(token, "a column")

    def _literal(self) -> str:
        kind, token = self._next()
        if kind == "number" or (kind == "keyword" and token in _CONSTANTS):
            return token
        if kind == "text":
            return quoted_text(token[1:-1].replace("''", "'"), self.engine)
        return _unexpected(token, "a literal")

    def _next(self) -> tuple[str, str]:
        return self.tokens.pop() if self.tokens else self._end

    def _took(self, wanted: str) -> bool:
        if self.tokens and self.tokens[-1][0] in ("sign", "keyword") and self.tokens[-1][1] == wanted:
            self.tokens.pop()
            return True
        return False

    def _demand(self, wanted: str) -> None:
        if not self._took(wanted):
            _refuse(f"lacks {wanted!r}")


def quoted_text(value: str, engine: Engine) -> str:
    """A text literal. One with a backslash means the same whatever the session's settings are."""
    escaped = value.replace("'", "''")
    if "\\" not in value:
        return f"'{escaped}'"
    escaped = escaped.replace("\\", "\\\\")
    return f"E'{escaped}'" if engine is Engine.POSTGRES else f"'{escaped}'"


def _unexpected(token: str, wanted: str) -> NoReturn:
    _refuse(f"has {token!r} where {wanted} is expected" if token else f"ends where {wanted} is expected")


def _refuse(problem: str) -> NoReturn:
    raise BadInput(
        f"{problem}.",
        where="request",
        field="condition",
        cure=f"{_FORM} An operator can permit other SQL: permit_sql_conditions in the settings.",
    )
