"""Values of the package's own types, made from their annotations: every field filled, or as empty as it may be."""

from __future__ import annotations

import types
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from cdc_platform.planning.actions import Action
from cdc_platform.reconciler.action_methods import METHODS

NOW = datetime(2030, 1, 31, 12, 30, 15, tzinfo=UTC)

_PLAIN: Mapping[Any, Any] = {
    str: "text",
    int: 1,
    float: 1.5,
    bool: True,
    datetime: NOW,
    timedelta: timedelta(minutes=1),
    type(None): None,
    Any: "text",
    object: "text",
}
_MANY: Mapping[Any, type] = {tuple: tuple, list: list, Sequence: tuple, Collection: tuple, frozenset: frozenset}


def sample(kind: Any, *, bare: bool = False, given: Mapping[Any, Any] | None = None) -> Any:
    """A value of `kind`. With `bare`, what may be None is. `given`: values for types that take not just any."""
    known = given or {}

    def make(kind: Any) -> Any:
        if kind in known:
            return known[kind]
        if kind in _PLAIN:
            return _PLAIN[kind]
        origin, inner = get_origin(kind), get_args(kind)
        if origin in (Union, types.UnionType):
            return None if bare and type(None) in inner else make(next(one for one in inner if one is not type(None)))
        if origin is Literal:
            return inner[0]
        if origin in (dict, Mapping):
            return {make(inner[0]): make(inner[1])}
        if origin is tuple and inner[-1] is not Ellipsis:
            return tuple(map(make, inner))
        if origin in _MANY:
            return _MANY[origin](map(make, _alternatives(inner[0])))
        if kind is Action:
            return make(next(iter(METHODS)))
        if isinstance(kind, type) and issubclass(kind, Enum):
            return next(iter(kind))
        if isinstance(kind, type) and is_dataclass(kind):
            hints = get_type_hints(kind)
            return kind(**{field.name: make(hints[field.name]) for field in fields(kind) if field.init})
        raise TypeError(f"no sample of {kind!r}: give one")

    return make(kind)


def both(kind: Any, given: Mapping[Any, Any] | None = None) -> tuple[Any, Any]:
    """A full and a bare sample."""
    return sample(kind, given=given), sample(kind, bare=True, given=given)


def _alternatives(kind: Any) -> Sequence[Any]:
    """In a list of several types: each of them."""
    if get_origin(kind) in (Union, types.UnionType):
        return get_args(kind)
    return tuple(METHODS) if kind is Action else (kind,)
