"""The code location: `dagster dev -m cdc_platform.definitions`, or `workspace.yaml` at the root."""

from __future__ import annotations

import dagster as dg

from cdc_platform.defs import CdcPlatformComponent


@dg.definitions
def defs() -> dg.Definitions:
    """One platform, with the settings that the command line has."""
    # `dagster dev` is how it is started on one machine, and it has no jobs but the platform's.
    return dg.build_defs_for_component(CdcPlatformComponent(allow_dev=True, old_job_names=True))
