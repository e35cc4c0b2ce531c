"""What the Launchpads of jobs ask for: fields, the values that they may have, and what they are filled with."""

# Without `from __future__ import annotations`: Dagster reads types, and cannot resolve them as text.

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar, get_args, get_origin

import dagster as dg
from pydantic import ValidationError

from cdc_platform.defs.translator import CdcTableProps
from cdc_platform.model.fingerprints import fingerprint
from cdc_platform.snapshots.request_options import Option

T = TypeVar("T", bound=dg.Config)

# A dataset, or tables, that the code location was loaded without.
UNLISTED = "unlisted"
REHEARSE = "rehearse"


@dataclass(frozen=True, slots=True)
class Choices:
    """The datasets and tables that a Launchpad offers, by the name of the field; none: any text is taken."""

    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    # A table of the first dataset.
    first_table: str = ""

    @classmethod
    def of(cls, tables: Iterable[CdcTableProps]) -> "Choices":
        """Those of the tables that the code location has loaded."""
        known = list(tables)
        if not known:
            return cls()
        names = tuple(sorted({one.table for one in known}))
        first = min(known, key=lambda one: (one.dataset, one.table))
        datasets = tuple(sorted({one.dataset for one in known}))
        return cls({"dataset": datasets, "tables": names, "table": names}, first.table)

    def has(self, name: str, given: Iterable[str]) -> bool:
        """Whether the field takes all of these."""
        return name not in self.values or set(given) <= set(self.values[name])

    def scalar(self, name: str, otherwise: Any) -> Any:
        """The type of one value of the field."""
        if name not in self.values:
            return otherwise
        # Dagster knows an enum by its name alone: another platform's, or of another load, must not be taken for it.
        known = fingerprint("\n".join(sorted(self.values[name])), 8)
        return dg.Enum(f"cdc_{name}_{known}", [dg.EnumValue(value) for value in self.values[name]])

    def filled(self, op: str, **more: Any) -> Any:
        """The config that a job's Launchpad opens with: the first dataset, and what else is said; None without one."""
        if not self.values:
            return None
        return {"ops": {op: {"config": {"dataset": self.values["dataset"][0], **more}}}}


def option_fields(options: Iterable[Option], choices: Choices) -> dict[str, dg.Field]:
    """The fields of a bootstrap or backfill. A dataset need not be given where `unlisted` or `continues` names it."""
    found = {}
    for option in options:
        scalar: Any = choices.scalar(option.name, option.scalar)
        if isinstance(scalar, type) and issubclass(scalar, StrEnum):
            scalar = dg.Enum(scalar.__name__, [dg.EnumValue(one.name, one) for one in scalar])
        shape: Any = {dict: {str: scalar}, tuple: [scalar], None: scalar}[option.several]
        default = list(option.default) if option.several is tuple else option.default
        found[option.name] = dg.Field(
            dg.Noneable(shape), default_value=default, is_required=False, description=option.text
        )
    return found


def job_fields(choices: Choices) -> dict[str, dg.Field]:
    """What the Launchpads of `bootstrap` and `backfill` have beyond their options."""
    unlisted = {"dataset": str, "tables": dg.Field([str], default_value=[])}
    return {
        REHEARSE: dg.Field(
            bool,
            default_value=False,
            description="Only say what would be done: shards, rows by the servers' statistics, hours at these limits.",
        ),
        **(
            {
                UNLISTED: dg.Field(
                    dg.Noneable(unlisted),
                    default_value=None,
                    is_required=False,
                    description="Instead of dataset and tables: those that came after the code location was loaded.",
                )
            }
            if choices.values
            else {}
        ),
    }


def fields_of(config: type[dg.Config], choices: Choices) -> dict[str, dg.Field]:
    """The fields of a `Config` whose fields are texts, numbers, switches and lists of texts."""
    found = {}
    for name, one in config.model_fields.items():
        several = get_origin(one.annotation) is list
        scalar = choices.scalar(name, get_args(one.annotation)[0] if several else one.annotation)
        shape: Any = [scalar] if several else scalar
        if one.is_required():
            found[name] = dg.Field(shape, description=one.description)
        else:
            found[name] = dg.Field(dg.Noneable(shape), default_value=one.default, description=one.description)
    return found


def parsed(config: type[T], given: Mapping[str, Any]) -> T:
    """The config as given, checked; null is the default. Raises Failure."""
    try:
        return config(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise dg.Failure(f"The config cannot be used: {said}.", allow_retries=False) from error
