"""The ideal state of a topology: what the connector floor wants, as the planner takes it."""

from __future__ import annotations

from dataclasses import replace

from cdc_platform.connectors.config import DesiredConfigs, leftovers, problems
from cdc_platform.connectors.topics import desired_topics
from cdc_platform.model.topology import Topology
from cdc_platform.planning.planner import DesiredState
from cdc_platform.settings import Settings


def desired_state(topology: Topology, settings: Settings) -> tuple[Topology, DesiredState]:
    """The topology with the problems that identity and overrides add, and what it wants."""
    checked = replace(topology, problems=(*topology.problems, *problems(topology, settings)))
    wanted = DesiredState(
        topics=desired_topics(checked, settings), config_of=DesiredConfigs(settings), leftovers=leftovers
    )
    return checked, wanted
