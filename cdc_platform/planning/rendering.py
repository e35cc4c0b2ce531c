"""A plan as JSON, as text for a terminal, and as Markdown. Pure."""

from __future__ import annotations

from typing import Any

from cdc_platform.model.plain_text import for_markdown
from cdc_platform.planning.actions import shown
from cdc_platform.planning.plan import Plan


def to_json(plan: Plan) -> dict[str, Any]:
    """The plan as a document: `actions`, `refusals`, `findings`, `counts`, `fingerprint`, `sentence`."""
    return {
        "sentence": plan.sentence(),
        "fingerprint": plan.fingerprint,
        "exit_code": plan.exit_code,
        "counts": dict(plan.counts()),
        "actions": [action.document() for action in plan.actions],
        "refusals": [{"scope": r.scope, "reason": r.reason} for r in plan.refusals],
        "findings": [{"subject": f.subject, "text": f.text} for f in plan.findings],
    }


def to_text(plan: Plan, *, most: int = 200) -> str:
    """The plan for a terminal: one line an action.

    `+` creates, `~` changes, `!` restarts, `>` moves, `-` deletes, `x` is refused, `?` is to know.
    """
    lines = [f"{a.kind.sign} {a.sentence()}" for a in plan.actions[:most]]
    for action in plan.actions[:most]:
        if found := action.changed_values():
            subject, changes = found
            lines += [f"    {subject} {k}: {shown(k, now)!r} -> {new!r}" for k, (now, new) in sorted(changes.items())]
    if len(plan.actions) > most:
        lines.append(f"... and {len(plan.actions) - most} more actions (--json shows all)")
    lines += [f"x refused for {r.scope}: {r.reason}" for r in plan.refusals]
    lines += [f"? {f.subject}: {f.text}" for f in plan.findings]
    return "\n".join([*lines, plan.sentence()])


def to_markdown(plan: Plan, *, most: int = 200) -> str:
    """The plan as Markdown, as Dagster metadata and review comments show it."""
    lines = [f"**{for_markdown(plan.sentence())}**"]
    if plan.actions:
        lines += ["", "| action | what |", "|---|---|"]
        lines += [f"| {a.kind.verb} | {for_markdown(a.sentence())} |" for a in plan.actions[:most]]
        if len(plan.actions) > most:
            lines.append(f"| ... | {len(plan.actions) - most} more |")
    if plan.refusals:
        lines += ["", "| refused for | why |", "|---|---|"]
        lines += [f"| {for_markdown(r.scope)} | {for_markdown(r.reason)} |" for r in plan.refusals]
    if plan.findings:
        lines += ["", "| to know | |", "|---|---|"]
        lines += [f"| {for_markdown(f.subject)} | {for_markdown(f.text)} |" for f in plan.findings[:most]]
    return "\n".join(lines)
