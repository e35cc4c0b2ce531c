"""Which topics a dataset may have, and which the platform may change.

A dataset's author chooses topic names by `topic_pattern`, and partitions and retention by `topics`; the platform
applies both with rights of its own. So names are the operator's to permit, names of Kafka, Connect and platforms are
reserved, and a topic that others made is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from cdc_platform.connectors.identity import notification_topic, table_topic
from cdc_platform.connectors.worker_properties import offsets_topic
from cdc_platform.model.topology import Problem, Topology
from cdc_platform.settings import Settings

# Kafka's and other tools' own (`__consumer_offsets`, `_schemas`), Connect's, and those of any platform.
_RESERVED = re.compile(r"_.*|cdc-connect-.*|[^.]+\.platform\..*")
_DEFAULT_CONFIGS = ("configs", "offsets", "status")


def topic_problems(topology: Topology, settings: Settings) -> Iterator[Problem]:
    """Datasets with a table whose topic is not theirs to have."""
    reserved = _reserved_names(topology, settings)
    for dataset in topology.datasets.values():
        for table in dataset.tables:
            topic = table_topic(dataset, table)
            if _flat(topic) in reserved or _RESERVED.fullmatch(topic):
                yield _problem(dataset.name, f"topic {topic} has a name of Kafka's, Connect's or a platform's.")
                break
            if not is_permitted(topic, settings):
                patterns = ", ".join(_permitted(settings))
                yield _problem(
                    dataset.name,
                    f"topic {topic} is not among those that datasets may have ({patterns}).",
                    "Change topic_pattern, or have the operator add a pattern to permitted_topics in the settings.",
                )
                break


def is_permitted(topic: str, settings: Settings) -> bool:
    """True when datasets may have a topic of this name, unless it is reserved."""
    return any(fnmatchcase(topic, pattern) for pattern in _permitted(settings))


def is_ours_by_name(topic: str, settings: Settings) -> bool:
    """True when an existing topic of this name counts as made by the platform, whether a pass has recorded that or not.

    The platform's own topics do, all below `cdc.` and `<platform>.`, where releases without records made theirs, and
    what the operator adopts.
    """
    own = {settings.state_topic, settings.heartbeat_topic, notification_topic(settings)}
    named = (f"{settings.platform}.*", "cdc.*", *settings.adopted_topics)
    return topic in own or any(fnmatchcase(topic, pattern) for pattern in named)


def _permitted(settings: Settings) -> tuple[str, ...]:
    return (f"{settings.platform}.*", *settings.permitted_topics)


def _reserved_names(topology: Topology, settings: Settings) -> frozenset[str]:
    names = {settings.state_topic, settings.heartbeat_topic, notification_topic(settings)}
    for cluster in topology.clusters.values():
        offsets = offsets_topic(cluster)
        names.add(offsets)
        group = offsets.removesuffix("-offsets")
        names |= {f"{group}-{kind}" for kind in _DEFAULT_CONFIGS}
    return frozenset(_flat(name) for name in names)


def _flat(topic: str) -> str:
    # Kafka takes '.' and '_' for the same.
    return topic.replace(".", "_")


def _problem(dataset: str, message: str, cure: str = "Change topic_pattern.") -> Problem:
    return Problem("dataset", dataset, f"{message} Cure: {cure}")
