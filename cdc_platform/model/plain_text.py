"""Text that strangers wrote, for where it goes: there it is text and nothing else. A function for each destination.

Values, errors and names come from databases, topics, ZooKeeper and Connect. What is stored (state topic, audit frame)
stays as it is; the place that shows it calls one of these.
"""

from __future__ import annotations

import html
import re

# Control characters, lone surrogates, separators of lines, and what turns the direction of text or is not seen.
_UNSEEN = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f"
)
_CONTROL = re.compile(f"[{_UNSEEN}]")
_CONTROL_OR_LINE = re.compile(f"[\t\n{_UNSEEN}]")
_MARKDOWN = re.compile(r"[\\`*_\[\]<>|~&@]|(?<=:)/(?=/)|(?<=www)\.", re.IGNORECASE)
_BACKTICKS = re.compile("`+")
_HIDDEN_SPACE = "\u200b"


def for_terminal(text: str) -> str:
    """With control characters spelled out, as `\\u001b`; lines and tabs stay, and JSON stays JSON."""
    return _CONTROL.sub(_spelled, text)


def for_log(text: str) -> str:
    """On one line, with control characters spelled out."""
    return _CONTROL_OR_LINE.sub(_spelled, text)


def for_markdown(text: str) -> str:
    """On one line, as a part of a paragraph, list item or cell: no markup, no HTML, no link."""
    return _MARKDOWN.sub(r"\\\g<0>", for_log(text))


def for_markdown_code(text: str) -> str:
    """As an inline code span of Markdown that the text cannot end."""
    shown = for_log(text)
    fence = "`" * (1 + max((len(run) for run in _BACKTICKS.findall(shown)), default=0))
    edge = " " if shown.startswith("`") or shown.endswith("`") or not shown.strip() else ""
    return f"{fence}{edge}{shown}{edge}{fence}"


def for_html(text: str) -> str:
    """As text of an element or of a quoted attribute."""
    return html.escape(for_terminal(text))


def for_chat(text: str) -> str:
    """For Slack, Discord and their like: no person is mentioned, and no link hides its address or loads an image."""
    shown = for_terminal(text).replace("<", "‹").replace(">", "›")
    return shown.replace("@", f"@{_HIDDEN_SPACE}").replace("](", f"]{_HIDDEN_SPACE}(")


def for_pager(text: str) -> str:
    """For PagerDuty and what else shows text as it is."""
    return for_terminal(text)


def _spelled(found: re.Match[str]) -> str:
    code = ord(found.group())
    names = {9: "\\t", 10: "\\n", 13: "\\r"}
    return names.get(code) or (f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
