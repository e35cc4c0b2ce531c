"""Typed access to the fields of a document, with errors that name file, field and cure.

A document is what JSON can hold: mappings with text keys, lists, text,
numbers, booleans, null. Where it came from (znode or YAML file) is `where`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, TypeVar

from cdc_platform.errors import TopologyError
from cdc_platform.model.naming import one_of
from cdc_platform.model.secret_references import (
    has_login,
    is_reference,
    is_secret_in_plain_text,
    names_password,
    names_secret,
)
from cdc_platform.model.topology import Address

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

_NAMES = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
    type(None): "empty",
}


def kind_of(value: object) -> str:
    """What the author of a file would call this value: "a list", "text", ..."""
    return _NAMES.get(type(value), type(value).__name__)


def join(path: str, name: str) -> str:
    """`path.name`; `name` alone at the top."""
    return f"{path}.{name}" if path else name


@contextmanager
def located(where: str, path: str) -> Iterator[None]:
    """Adds the place to errors of values that do not know where they were read from."""
    try:
        yield
    except TopologyError as error:
        if error.where is not None:
            raise
        last = re.split(r"[.\[]", path)[-1].rstrip("]") if path else ""
        field = path if not error.field or not path or last == error.field else join(path, error.field)
        raise TopologyError(error.message, where=where, field=field or error.field, cure=error.cure) from None


def refuse_plain_secrets(raw: Any, *, where: str, path: str = "", inside: bool = False) -> None:
    """Raises TopologyError for a secret in plain text at any depth, before anything else is said of the document.

    A secret is what is named like one, all that lies below a name like `passwords`, and a URL with user and password.
    Its value is not printed.
    """
    entries: Iterable[tuple[str, str, Any]] = ()
    if isinstance(raw, Mapping):
        entries = ((name, join(path, str(name)), value) for name, value in raw.items())
    elif isinstance(raw, list):
        entries = (("", f"{path}[{index}]", value) for index, value in enumerate(raw))
    for name, at, value in entries:
        name = name if isinstance(name, str) else ""
        if isinstance(value, Mapping | list):
            below = inside or names_password(name) or (isinstance(value, list) and names_secret(name))
            refuse_plain_secrets(value, where=where, path=at, inside=below)
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        text = value if isinstance(value, str) else ""
        if (
            (text and ((inside and not is_reference(text)) or is_secret_in_plain_text(name, text)))
            or (number and (inside or names_password(name)))
            or ("://" in text and has_login(text))
        ):
            raise TopologyError(
                "looks like a secret, but is not a reference (its value is not shown here).",
                where=where,
                field=at,
                cure="Write ${file:/PATH:KEY}, and the secret there.",
            )


class Fields:
    """One mapping of a document. Every field that is asked for counts as known.

    Args:
        raw: what stands there; anything but a mapping is an error.
        where: file or znode.
        path: of this mapping inside `where`, as in `datasets.pins.shards[3]`.

    All methods raise TopologyError.
    """

    def __init__(self, raw: Any, *, where: str, path: str = "") -> None:
        self.where = where
        self.path = path
        if not isinstance(raw, Mapping):
            raise TopologyError(
                f"must be a mapping of fields, but is {kind_of(raw)}.",
                where=where,
                field=path or None,
                cure="Write FIELD: VALUE pairs.",
            )
        self.raw: Mapping[str, Any] = raw
        self._known: set[str] = set()

    def error(self, name: str, message: str, cure: str) -> TopologyError:
        """An error about the field `name` of this mapping."""
        return TopologyError(message, where=self.where, field=join(self.path, name), cure=cure)

    def has(self, name: str) -> bool:
        """True when the field is there and not null."""
        self._known.add(name)
        return self.raw.get(name) is not None

    def value(self, name: str, cure: str) -> Any:
        """A field that must be there, as it stands."""
        if not self.has(name):
            raise self.error(name, "is missing.", cure)
        return self.raw[name]

    def text(self, name: str, default: str | None = None, *, cure: str = "Give it a value.") -> str:
        """Text; without `default` the field must be there."""
        if default is not None and not self.has(name):
            return default
        return self._text(name, self.value(name, cure))

    def whole(self, name: str, default: int, *, least: int = 0, most: int = 2**63 - 1) -> int:
        """A whole number within [least, most]."""
        if not self.has(name):
            return default
        value = self.raw[name]
        if type(value) is not int:
            raise self.error(name, f"must be a whole number, but is {kind_of(value)}.", "Write digits only.")
        if not least <= value <= most:
            raise self.error(name, f"{value} is out of range.", f"Use {least} to {most}.")
        return value

    def optional_whole(self, name: str, *, least: int = 1) -> int | None:
        """A whole number, None when the field is absent."""
        return self.whole(name, 0, least=least) if self.has(name) else None

    def boolean(self, name: str, default: bool) -> bool:
        """True or false."""
        if not self.has(name):
            return default
        value = self.raw[name]
        if not isinstance(value, bool):
            raise self.error(name, f"must be true or false, but is {kind_of(value)}.", "Write true or false.")
        return value

    def choice(self, name: str, kind: type[E], default: E | None = None) -> E:
        """One of the enum's values."""
        options = ", ".join(kind)
        text = self.text(name, None if default is None else default.value, cure=f"Use one of {options}.")
        try:
            return kind(text)
        except ValueError:
            raise self.error(
                name,
                f"{text!r} is not a known {kind.__name__.lower()}.",
                one_of(text, map(str, kind)),
            ) from None

    def items(self, name: str, read: Callable[[Any, str], T]) -> tuple[T, ...]:
        """A list; `read` gets each entry with its path."""
        if not self.has(name):
            return ()
        value = self.raw[name]
        path = join(self.path, name)
        if not isinstance(value, list):
            raise self.error(name, f"must be a list, but is {kind_of(value)}.", "Write [a, b].")
        return tuple(read(entry, f"{path}[{index}]") for index, entry in enumerate(value))

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        if not self.has(name):
            return ()
        value = self.raw[name]
        if not isinstance(value, list):
            raise self.error(name, f"must be a list, but is {kind_of(value)}.", "Write [a, b].")
        return tuple(self._text(f"{name}[{index}]", entry) for index, entry in enumerate(value))

    def text_map(self, name: str) -> dict[str, str]:
        """A mapping of text to text."""
        if not self.has(name):
            return {}
        inner = Fields(self.raw[name], where=self.where, path=join(self.path, name))
        return {key: inner._text(key, entry) for key, entry in inner.raw.items()}

    def free(self, name: str) -> dict[str, Any]:
        """A mapping of anything: its reader lives elsewhere."""
        if not self.has(name):
            return {}
        inner = Fields(self.raw[name], where=self.where, path=join(self.path, name))
        return dict(inner.raw)

    def address(self, name: str) -> Address:
        """`HOST:PORT`; the field must be there."""
        return self._address(name, self.value(name, "Write HOST:PORT, as in db-7.internal:3306."))

    def addresses(self, name: str) -> tuple[Address, ...]:
        """A list of `HOST:PORT`."""
        if not self.has(name):
            return ()
        value = self.raw[name]
        if not isinstance(value, list):
            raise self.error(name, f"must be a list, but is {kind_of(value)}.", 'Write ["HOST:PORT"].')
        return tuple(self._address(f"{name}[{index}]", entry) for index, entry in enumerate(value))

    def reference(self, name: str) -> str:
        """A `${file:PATH:KEY}` or `${env:NAME}` reference; never prints what stands there instead."""
        cure = "Write ${file:/PATH:KEY} or ${env:NAME}; the worker resolves it."
        value = self.value(name, cure)
        if not isinstance(value, str) or not is_reference(value):
            raise self.error(name, "must be a reference (its value is not shown here).", cure)
        return value

    def inner(self, name: str) -> Fields:
        """The mapping in this field; an absent one is empty."""
        raw = self.raw[name] if self.has(name) else {}
        return Fields(raw, where=self.where, path=join(self.path, name))

    @property
    def known(self) -> frozenset[str]:
        """The fields that were asked for."""
        return frozenset(self._known)

    def unknown(self) -> dict[str, Any]:
        """The fields that were not asked for."""
        if len(self.raw) == len(self._known) and self._known.issuperset(self.raw):
            return {}
        return {key: value for key, value in self.raw.items() if key not in self._known}

    def refuse_unknown(self) -> None:
        """Raises TopologyError on the first unknown field, with the nearest known name."""
        for name in self.unknown():
            known = sorted(self._known)
            raise self.error(name, "no such field.", one_of(name, known, most=len(known)))

    def _text(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            hint = f'Write it in quotes: "{str(value).lower() if isinstance(value, bool) else value}".'
            scalar = isinstance(value, bool | int | float)
            raise self.error(
                name,
                f"must be text, but is {kind_of(value)}.",
                hint if scalar else "Write text.",
            )
        try:
            value.encode()
        except UnicodeEncodeError:
            raise self.error(name, "holds a half character (lone surrogate).", "Fix the text.") from None
        return value

    def _address(self, name: str, value: Any) -> Address:
        try:
            return Address.parse(self._text(name, value))
        except TopologyError as error:
            raise self.error(name, error.message, error.cure or "") from None
