"""Moved to `cdc_platform.clients.sources.leader_probes`; this name goes with the release after 0.2."""

from cdc_platform.clients.sources.leader_probes import *  # noqa: F403
