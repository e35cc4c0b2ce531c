"""The platform's errors as failures of a Dagster run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from cdc_platform.errors import CdcError


@contextmanager
def as_failure() -> Iterator[None]:
    """A `CdcError` inside fails the step with its one sentence, and without retries: only a changed world helps."""
    try:
        yield
    except CdcError as error:
        raise dg.Failure(
            description=str(error), metadata={"error": type(error).__name__}, allow_retries=False
        ) from error
