"""What one pass would do: a value that can be printed, refused, compared and applied. Pure.

`make_plan` compares the desired state with one observed state. Nothing is decided on
what could not be read: such a part gives a `Refusal` and no action.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cdc_platform.model.fingerprints import fingerprint
from cdc_platform.model.naming import some_of
from cdc_platform.planning.actions import Action


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A part of the plan that a guardrail forbids: `scope` is `platform`, a cluster, dataset or shard."""

    scope: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something an operator should know that the plan does not change."""

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
        text = json.dumps([action.document(full=True) for action in self.actions], sort_keys=True, default=str)
        return fingerprint(text)

    def counts(self) -> Mapping[str, int]:
        """How many actions of each verb, in the order of the plan."""
        return Counter(action.kind.verb for action in self.actions)

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


def ordered(actions: Iterable[Action]) -> tuple[Action, ...]:
    """The actions in the order of their application, deterministic within a kind."""
    return tuple(sorted(actions, key=lambda action: (action.kind.rank, action.sentence())))
