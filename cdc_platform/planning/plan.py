"""What one pass would do: a value that can be printed, refused, compared and applied. Pure.

`make_plan` compares the ideal state with one `Picture`. Nothing is decided on
what could not be read: such a part gives a `Refusal` and no action.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cdc_platform.connectors.overrides import is_secret_in_plain_text
from cdc_platform.model.naming import some_of
from cdc_platform.model.observed import TopicRequest
from cdc_platform.planning.health.failures import Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateTopic:
    """A topic is missing on the brokers."""

    topic: TopicRequest

    def sentence(self) -> str:
        """What it does, in one sentence without a full stop."""
        return (
            f"create topic {self.topic.name} ({self.topic.partitions} partitions, replication {self.topic.replication})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AddPartitions:
    """A topic has fewer partitions than wanted."""

    topic: str
    before: int
    total: int

    def sentence(self) -> str:
        """What it does, in one sentence without a full stop."""
        return f"grow topic {self.topic} from {self.before} to {self.total} partitions"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlterTopic:
    """A topic's config differs from what is wanted: key to (value now, value wanted)."""

    topic: str
    changes: Mapping[str, tuple[str | None, str]]

    def sentence(self) -> str:
        """What it does, in one sentence without a full stop."""
        return f"set {', '.join(f'{k}={v[1]}' for k, v in sorted(self.changes.items()))} on topic {self.topic}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateConnector:
    """A shard has no connector."""

    cluster: str
    name: str
    config: Mapping[str, str]

    def sentence(self) -> str:
        """What it does, in one sentence without a full stop."""
        return f"create connector {self.name} in cluster {self.cluster}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateConnector:
    """A connector's config differs: key to (value now, value wanted); None is absent."""

    cluster: str
    name: str
    config: Mapping[str, str]
    changes: Mapping[str, tuple[str | None, str | None]]

    def sentence(self) -> str:
        """What it does, in one sentence without a full stop."""
        keys = some_of(sorted(self.changes), 6)
        return f"update connector {self.name} in cluster {self.cluster}: {keys}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartConnector:
    """A connector or its task is FAILED, or RUNNING without life.

    `unwell`: Connect calls it RUNNING, and would restart nothing when asked for what has failed.
    """

    cluster: str
    name: str
    failure: Failure
    attempt: int
    cause: str
    unwell: bool = False

    def sentence(self) -> str:
        """What it does, in one sentence without a full stop."""
        return (
            f"restart connector {self.name} in cluster {self.cluster} "
            f"(attempt {self.attempt}, {self.failure}: {self.cause})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeConnector:
    """A connector of ours was paused or stopped by hand."""

    cluster: str
    name: str
    state: str

    def sentence(self) -> str:
        """What it does, in one sentence without a full stop."""
        return f"resume connector {self.name} in cluster {self.cluster}, found {self.state}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAndResumeConnector:
    """A connector is stopped and resumed: its task is taken from every worker and given to one anew."""

    cluster: str
    name: str
    reason: str

    def sentence(self) -> str:
        """What it does, in one sentence without a full stop."""
        return f"stop and resume connector {self.name} in cluster {self.cluster}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrateConnector:
    """A connector leaves one cluster for another and takes its offsets along."""

    name: str
    source: str
    target: str
    config: Mapping[str, str]

    def sentence(self) -> str:
        """What it does, in one sentence without a full stop."""
        return f"move connector {self.name} from cluster {self.source} to {self.target} with its offsets"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteConnector:
    """A connector of ours has no shard any more.

    `left_topics` are deleted with it; `leftovers` says what a person must remove.
    """

    cluster: str
    name: str
    reason: str
    left_topics: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()

    def sentence(self) -> str:
        """What it does, in one sentence without a full stop."""
        left = f"; left to you: {'; '.join(self.leftovers)}" if self.leftovers else ""
        return f"delete connector {self.name} from cluster {self.cluster}: {self.reason}{left}"


Action = (
    CreateTopic
    | AddPartitions
    | AlterTopic
    | CreateConnector
    | UpdateConnector
    | RestartConnector
    | ResumeConnector
    | StopAndResumeConnector
    | MigrateConnector
    | DeleteConnector
)

# In this order a plan is applied: topics before the connectors that write to them.
ORDER: tuple[type, ...] = (
    CreateTopic,
    AddPartitions,
    AlterTopic,
    RestartConnector,
    ResumeConnector,
    CreateConnector,
    UpdateConnector,
    StopAndResumeConnector,
    MigrateConnector,
    DeleteConnector,
)

VERBS: Mapping[type, str] = {
    CreateTopic: "create topic",
    AddPartitions: "grow topic",
    AlterTopic: "alter topic",
    CreateConnector: "create connector",
    UpdateConnector: "update connector",
    RestartConnector: "restart connector",
    ResumeConnector: "resume connector",
    StopAndResumeConnector: "stop and resume connector",
    MigrateConnector: "move connector",
    DeleteConnector: "delete connector",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A part of the plan that a guardrail forbids: `scope` is `platform`, a cluster, dataset or shard."""

    scope: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something a person should know that the plan does not change."""

    subject: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The actions of one pass, in the order of their application."""

    actions: tuple[Action, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    findings: tuple[Finding, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.actions)

    @property
    def exit_code(self) -> int:
        """0: nothing would change; 2: something would; 1: a part could not be planned."""
        if self.refusals:
            return 1
        return 2 if self.actions else 0

    @property
    def fingerprint(self) -> str:
        """The same for two plans with the same actions."""
        text = json.dumps([_action_json(a, full=True) for a in self.actions], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def counts(self) -> Mapping[str, int]:
        """How many actions of each verb, in the order of application."""
        found = Counter(type(action) for action in self.actions)
        return {VERBS[kind]: found[kind] for kind in ORDER if found[kind]}

    def sentence(self) -> str:
        """The plan in one sentence."""
        if not self.actions:
            text = "Nothing to change"
        else:
            text = ", ".join(f"{verb} {n}" for verb, n in self.counts().items())
            text = text[0].upper() + text[1:]
        if self.refusals:
            text += f"; refused for {some_of([refusal.scope for refusal in self.refusals], 5)}"
        return text + "."


def ordered(actions: Iterator[Action] | list[Action]) -> tuple[Action, ...]:
    """The actions in the order of their application, deterministic within a kind."""
    rank = {kind: number for number, kind in enumerate(ORDER)}
    return tuple(sorted(actions, key=lambda a: (rank[type(a)], a.sentence())))


def _action_json(action: Action, *, full: bool) -> dict[str, Any]:
    document: dict[str, Any] = {"action": VERBS[type(action)], "sentence": action.sentence()}
    match action:
        case CreateTopic():
            document |= {"topic": action.topic.name, "partitions": action.topic.partitions}
            document |= {"replication": action.topic.replication, "config": dict(action.topic.config)}
        case AddPartitions():
            document |= {"topic": action.topic, "before": action.before, "total": action.total}
        case AlterTopic():
            document |= {"topic": action.topic, "changes": _changes(action.changes)}
        case UpdateConnector():
            document |= {"connector": action.name, "cluster": action.cluster}
            document |= {"changes": _changes(action.changes)}
        case MigrateConnector():
            document |= {"connector": action.name, "source": action.source, "target": action.target}
        case RestartConnector():
            document |= {"connector": action.name, "cluster": action.cluster}
            document |= {"failure": str(action.failure), "attempt": action.attempt}
        case DeleteConnector():
            document |= {"connector": action.name, "cluster": action.cluster, "reason": action.reason}
            document |= {"topics": list(action.left_topics), "leftovers": list(action.leftovers)}
        case StopAndResumeConnector():
            document |= {"connector": action.name, "cluster": action.cluster, "reason": action.reason}
        case CreateConnector() | ResumeConnector():
            document |= {"connector": action.name, "cluster": action.cluster}
    if full and isinstance(action, CreateConnector | UpdateConnector | MigrateConnector):
        document["config"] = dict(action.config)
    return document


def _changes(changes: Mapping[str, tuple[str | None, str | None]]) -> dict[str, dict[str, str | None]]:
    return {key: {"now": _shown(key, now), "wanted": wanted} for key, (now, wanted) in sorted(changes.items())}


def _shown(key: str, value: str | None) -> str | None:
    """What a hand put into a connector may be a secret in plain text; it stays out of plans."""
    return "(not shown)" if value is not None and is_secret_in_plain_text(key, value) else value


def to_json(plan: Plan) -> dict[str, Any]:
    """The plan as a document: `actions`, `refusals`, `findings`, `counts`, `fingerprint`, `sentence`."""
    return {
        "sentence": plan.sentence(),
        "fingerprint": plan.fingerprint,
        "exit_code": plan.exit_code,
        "counts": dict(plan.counts()),
        "actions": [_action_json(action, full=False) for action in plan.actions],
        "refusals": [{"scope": r.scope, "reason": r.reason} for r in plan.refusals],
        "findings": [{"subject": f.subject, "text": f.text} for f in plan.findings],
    }


_SIGNS: Mapping[type, str] = {
    CreateTopic: "+",
    CreateConnector: "+",
    DeleteConnector: "-",
    RestartConnector: "!",
    ResumeConnector: "!",
    StopAndResumeConnector: "!",
    MigrateConnector: ">",
}


def to_text(plan: Plan, *, most: int = 200) -> str:
    """The plan for a terminal: one line an action.

    `+` creates, `~` changes, `!` restarts, `>` moves, `-` deletes, `x` is refused, `?` is to know.
    """
    lines = [f"{_SIGNS.get(type(a), '~')} {a.sentence()}" for a in plan.actions[:most]]
    for action in plan.actions[:most]:
        if isinstance(action, UpdateConnector | AlterTopic):
            subject = action.name if isinstance(action, UpdateConnector) else action.topic
            lines += [
                f"    {subject} {k}: {_shown(k, now)!r} -> {new!r}" for k, (now, new) in sorted(action.changes.items())
            ]
    if len(plan.actions) > most:
        lines.append(f"... and {len(plan.actions) - most} more actions (--json shows all)")
    lines += [f"x refused for {r.scope}: {r.reason}" for r in plan.refusals]
    lines += [f"? {f.subject}: {f.text}" for f in plan.findings]
    return "\n".join([*lines, plan.sentence()])


def to_markdown(plan: Plan, *, most: int = 200) -> str:
    """The plan as Markdown, as Dagster metadata and review comments show it."""
    lines = [f"**{plan.sentence()}**"]
    if plan.actions:
        lines += ["", "| action | what |", "|---|---|"]
        lines += [f"| {VERBS[type(a)]} | {_cell(a.sentence())} |" for a in plan.actions[:most]]
        if len(plan.actions) > most:
            lines.append(f"| ... | {len(plan.actions) - most} more |")
    if plan.refusals:
        lines += ["", "| refused for | why |", "|---|---|"]
        lines += [f"| {_cell(r.scope)} | {_cell(r.reason)} |" for r in plan.refusals]
    if plan.findings:
        lines += ["", "| to know | |", "|---|---|"]
        lines += [f"| {_cell(f.subject)} | {_cell(f.text)} |" for f in plan.findings[:most]]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
