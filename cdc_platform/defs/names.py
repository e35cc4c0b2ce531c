"""Names of jobs, ops, sensors, schedules and the resource: several platforms fit into one code location."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from inspect import Parameter, Signature
from typing import Any, TypeVar, cast

import dagster as dg

from cdc_platform.defs.resource import CdcPlatformResource
from cdc_platform.defs.run_kinds import RunOf
from cdc_platform.defs.translator import TAG_PLATFORM

T = TypeVar("T")

# Its sensors and ops have no prefix: under another name a sensor that was switched off would be on.
DEFAULT = "cdc"


@dataclass(frozen=True, slots=True)
class Names:
    """The names that one platform's definitions have."""

    platform: str = DEFAULT

    @classmethod
    def by(cls, *jobs: dg.JobDefinition) -> Names:
        """Those of the platform whose jobs these are."""
        return cls(next((job.tags[TAG_PLATFORM] for job in jobs if TAG_PLATFORM in job.tags), DEFAULT))

    def job(self, kind: RunOf) -> str:
        """`cdc_backfill`: a job of the platform `cdc`."""
        return f"{_plain(self.platform)}_{kind}"

    def of(self, name: str) -> str:
        """A sensor, schedule or op: with the platform in front, unless it is `cdc`."""
        return name if self.platform == DEFAULT else f"{_plain(self.platform)}_{name}"

    @property
    def resource(self) -> str:
        """**`cdc_platform`**: the key of the platform's resource."""
        return f"{_plain(self.platform)}_platform"

    def taking(self, tick: Callable[[Any], T]) -> Callable[..., T]:
        """The function of a sensor or schedule, with the resource among its parameters, as Dagster calls it."""

        def with_resource(context: Any, **resources: object) -> T:
            return tick(context)

        kind = Parameter.POSITIONAL_OR_KEYWORD
        parameters = [Parameter("context", kind), Parameter(self.resource, kind, annotation=CdcPlatformResource)]
        with_resource.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        with_resource.__name__ = tick.__name__
        return with_resource

    def in_(self, context: Any) -> CdcPlatformResource:
        """The platform's resource, of an op, a check, a sensor or a schedule that requires it."""
        return cast(CdcPlatformResource, getattr(context.resources, self.resource))


def _plain(name: str) -> str:
    return re.sub(r"\W", "_", name)
