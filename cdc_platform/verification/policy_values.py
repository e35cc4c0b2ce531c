"""Reads a block of a dataset's `verification` as a policy: each value by the type of its field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, TypeVar, get_type_hints

import msgspec

from cdc_platform.errors import TopologyError

Count = Annotated[int, msgspec.Meta(gt=0)]
Amount = Annotated[float, msgspec.Meta(gt=0)]

Policy = TypeVar("Policy")


def read_policy(kind: type[Policy], given: Mapping[str, Any], dataset: str, field: str) -> Policy:
    """A policy of this (data)class, by what is given of its fields; other names are left out.

    Raises:
        TopologyError: a value is not one of its field's; `field` with the name of it is where.
    """
    hints, found = get_type_hints(kind, include_extras=True), {}
    plain = kind()
    for item in fields(kind):  # type: ignore[arg-type]
        if item.name in given:
            try:
                found[item.name] = msgspec.convert(given[item.name], hints[item.name])
            except msgspec.ValidationError as error:
                raise TopologyError(
                    f"{given[item.name]!r} is not a value of it: {error}.",
                    where=f"dataset {dataset}",
                    field=f"{field}.{item.name}",
                    cure=f"The default is {getattr(plain, item.name)!r}.",
                ) from None
    return kind(**found)
