"""What a pass can do, one class for each kind of action. Pure.

A kind says all about itself: its verb, its sign in a plan, its rank in a plan, where it
is applied, and what a document shows of it. What it does to Kafka or Connect is in the one table of
`reconciler/apply.py`; an action that is missing there is refused before anything is applied.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cdc_platform.model.naming import some_of
from cdc_platform.model.observed import TopicRequest
from cdc_platform.model.secret_references import is_secret_in_plain_text
from cdc_platform.model.watched import WatchedName
from cdc_platform.planning.health.failures import Failure

# Key to (value now, desired value); None: the key is absent.
Changes = Mapping[str, tuple[str | None, str | None]]


class Lane(StrEnum):
    """Where an action is applied; lanes are taken in this order."""

    TOPICS = "topics"
    CLUSTER = "cluster"  # each Connect cluster has one of its own, all at once
    MIGRATIONS = "migrations"


@dataclass(frozen=True, slots=True)
class ActionKind:
    """What all actions of a kind have in common.

    `sign` is the first character of its line in a plan. Actions are sorted, and applied within a lane,
    by `rank`: topics before the connectors that write to them.
    """

    verb: str
    sign: str
    rank: int
    lane: Lane


class Action(ABC):
    """One step of a plan: a frozen value with a `kind`, which every class of its own sets."""

    __slots__ = ()

    @property
    @abstractmethod
    def kind(self) -> ActionKind:
        """The same for all actions of the class."""

    @abstractmethod
    def sentence(self) -> str:
        """What it does, in one sentence without a full stop."""

    @abstractmethod
    def details(self) -> dict[str, Any]:
        """What a document shows of it beside verb and sentence."""

    def changed_values(self) -> tuple[str, Changes] | None:
        """The subject and its values that change, where it is a change of values."""
        return None

    def document(self, *, full: bool = False) -> dict[str, Any]:
        """As JSON; `full` with the connector's whole config, of which plans show only what changes."""
        config = {"config": dict(self.config)} if full and isinstance(self, _Configured) else {}
        return {"action": self.kind.verb, "sentence": self.sentence(), **self.details(), **config}


class _Configured:
    """Actions that carry a connector's config."""

    __slots__ = ()
    config: Mapping[str, str]


def shown(key: str, value: str | None) -> str | None:
    """A value as plans show it: what a hand put into a connector may be a secret in plain text."""
    return "(not shown)" if value is not None and is_secret_in_plain_text(key, value) else value


def _changes(changes: Changes) -> dict[str, dict[str, str | None]]:
    return {key: {"now": shown(key, now), "wanted": desired} for key, (now, desired) in sorted(changes.items())}


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateTopic(Action):
    """A topic is missing on the brokers."""

    kind = ActionKind("create topic", "+", 1, Lane.TOPICS)

    topic: TopicRequest

    def sentence(self) -> str:
        topic = self.topic
        return f"create topic {topic.name} ({topic.partitions} partitions, replication {topic.replication})"

    def details(self) -> dict[str, Any]:
        topic = self.topic
        sizes = {"partitions": topic.partitions, "replication": topic.replication}
        return {"topic": topic.name, **sizes, "config": dict(topic.config)}


@dataclass(frozen=True, slots=True, kw_only=True)
class AddPartitions(Action):
    """A topic has fewer partitions than it should."""

    kind = ActionKind("grow topic", "~", 2, Lane.TOPICS)

    topic: str
    before: int
    total: int

    def sentence(self) -> str:
        return f"grow topic {self.topic} from {self.before} to {self.total} partitions"

    def details(self) -> dict[str, Any]:
        return {"topic": self.topic, "before": self.before, "total": self.total}


@dataclass(frozen=True, slots=True, kw_only=True)
class AlterTopic(Action):
    """A topic's config differs from what it should be: key to (value now, desired value)."""

    kind = ActionKind("alter topic", "~", 3, Lane.TOPICS)

    topic: str
    changes: Mapping[str, tuple[str | None, str]]

    def sentence(self) -> str:
        return f"set {', '.join(f'{k}={v[1]}' for k, v in sorted(self.changes.items()))} on topic {self.topic}"

    def details(self) -> dict[str, Any]:
        return {"topic": self.topic, "changes": _changes(self.changes)}

    def changed_values(self) -> tuple[str, Changes]:
        return self.topic, self.changes


class ConnectorAction(Action):
    """Something done to the connector `name`."""

    __slots__ = ()
    name: str

    @property
    @abstractmethod
    def clusters(self) -> tuple[str, ...]:
        """The Connect clusters whose group it sets in motion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _InCluster(ConnectorAction):
    """Something done to a connector in the one cluster where it is, or will be."""

    cluster: str
    name: str

    @property
    def clusters(self) -> tuple[str, ...]:
        return (self.cluster,)

    def details(self) -> dict[str, Any]:
        return {"connector": self.name, "cluster": self.cluster}


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartConnector(_InCluster):
    """A connector or its task is FAILED, or RUNNING without life.

    `unwell`: Connect calls it RUNNING, and would restart nothing when asked for what has failed. `watched`: it is
    that of another tool.
    """

    kind = ActionKind("restart connector", "!", 4, Lane.CLUSTER)

    failure: Failure
    attempt: int
    cause: str
    unwell: bool = False
    watched: bool = False

    @property
    def remembered_as(self) -> str:
        """The name of its restart record: the shard's, or that of the watched connector."""
        return str(WatchedName(self.cluster, self.name)) if self.watched else self.name

    def sentence(self) -> str:
        return (
            f"restart {'watched ' if self.watched else ''}connector {self.name} in cluster {self.cluster} "
            f"(attempt {self.attempt}, {self.failure}: {self.cause})"
        )

    def details(self) -> dict[str, Any]:
        more = {"watched": True} if self.watched else {}
        return {**_InCluster.details(self), "failure": str(self.failure), "attempt": self.attempt, **more}


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeConnector(_InCluster):
    """A connector of ours was paused or stopped by hand."""

    kind = ActionKind("resume connector", "!", 5, Lane.CLUSTER)

    state: str

    def sentence(self) -> str:
        return f"resume connector {self.name} in cluster {self.cluster}, found {self.state}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateConnector(_InCluster, _Configured):
    """A shard has no connector."""

    kind = ActionKind("create connector", "+", 6, Lane.CLUSTER)

    config: Mapping[str, str]

    def sentence(self) -> str:
        return f"create connector {self.name} in cluster {self.cluster}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishTables(_InCluster):
    """The publication of a shard that is captured lacks tables of the dataset."""

    kind = ActionKind("publish tables", "+", 11, Lane.CLUSTER)

    tables: tuple[str, ...]

    def sentence(self) -> str:
        return (
            f"add {some_of(self.tables, 6)} to the publication of {self.name}: changes until then are lost, "
            "verify what is in the topic"
        )

    def details(self) -> dict[str, Any]:
        return {**_InCluster.details(self), "tables": list(self.tables)}


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUpSlot(_InCluster):
    """The slot of a shard keeps nearly as much log as it may, and the topology says that it goes before that."""

    kind = ActionKind("give up slot", "!", 12, Lane.CLUSTER)

    reason: str

    def sentence(self) -> str:
        return (
            f"stop connector {self.name} and drop its slot, for {self.reason}: what is changed until the shard is "
            "bootstrapped is lost"
        )

    def details(self) -> dict[str, Any]:
        return {**_InCluster.details(self), "reason": self.reason}


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateConnector(_InCluster, _Configured):
    """A connector's config differs from what it should be."""

    kind = ActionKind("update connector", "~", 7, Lane.CLUSTER)

    config: Mapping[str, str]
    changes: Changes

    def sentence(self) -> str:
        return f"update connector {self.name} in cluster {self.cluster}: {some_of(sorted(self.changes), 6)}"

    def details(self) -> dict[str, Any]:
        return {**_InCluster.details(self), "changes": _changes(self.changes)}

    def changed_values(self) -> tuple[str, Changes]:
        return self.name, self.changes


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAndResumeConnector(_InCluster):
    """A connector is stopped and resumed: its task is taken from every worker and given to one again."""

    kind = ActionKind("stop and resume connector", "!", 8, Lane.CLUSTER)

    reason: str

    def sentence(self) -> str:
        return f"stop and resume connector {self.name} in cluster {self.cluster}: {self.reason}"

    def details(self) -> dict[str, Any]:
        return {**_InCluster.details(self), "reason": self.reason}


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrateConnector(ConnectorAction, _Configured):
    """A connector leaves one cluster for another and takes its offsets along."""

    kind = ActionKind("move connector", ">", 9, Lane.MIGRATIONS)

    name: str
    source: str
    target: str
    config: Mapping[str, str]

    @property
    def clusters(self) -> tuple[str, ...]:
        return (self.source, self.target)

    def sentence(self) -> str:
        return f"move connector {self.name} from cluster {self.source} to {self.target} with its offsets"

    def details(self) -> dict[str, Any]:
        return {"connector": self.name, "source": self.source, "target": self.target}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteConnector(_InCluster):
    """A connector of ours has no shard any more.

    `left_topics` are deleted with it; `leftovers` says what an operator must remove.
    """

    kind = ActionKind("delete connector", "-", 10, Lane.CLUSTER)

    reason: str
    left_topics: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()

    def sentence(self) -> str:
        left = f"; left to you: {'; '.join(self.leftovers)}" if self.leftovers else ""
        return f"delete connector {self.name} from cluster {self.cluster}: {self.reason}{left}"

    def details(self) -> dict[str, Any]:
        left = {"topics": list(self.left_topics), "leftovers": list(self.leftovers)}
        return {**_InCluster.details(self), "reason": self.reason, **left}
