"""What should be, by the topology: the topics and configs of the connectors room, as the planner takes them. Pure."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from cdc_platform.connectors.config import DesiredConfigs, leftovers, problems
from cdc_platform.connectors.topic_ownership import is_ours_by_name
from cdc_platform.connectors.topics import desired_topics
from cdc_platform.model.topology import Topology
from cdc_platform.planning.inputs import DesiredState
from cdc_platform.settings import Settings


def with_problems(topology: Topology, settings: Settings) -> Topology:
    """The topology, with the problems that names and overrides add."""
    return replace(topology, problems=(*topology.problems, *problems(topology, settings)))


def desired_state(topology: Topology, settings: Settings) -> DesiredState:
    """What should be there; nothing for what is in the topology's problems."""
    return DesiredState(
        topics=desired_topics(topology, settings),
        config_of=DesiredConfigs(settings),
        leftovers=partial(leftovers, settings),
        is_ours=lambda topic: is_ours_by_name(topic, settings),
    )
