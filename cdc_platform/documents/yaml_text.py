"""YAML text to plain values, for text that a stranger may have written.

Built from the parser's events, not from its object graph: no tags, no
aliases (an anchor bomb needs them), no duplicate keys, a bound on size and
depth, and no recursion. Keys are text as written, so `00007:` stays "00007".
Plain scalars follow YAML's JSON-like core: true/false, null, decimal numbers;
`yes`, `1:30` and `2030-01-01` are text.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from cdc_platform.errors import TopologyError

MAX_BYTES = 32 * 1024 * 1024
MAX_DEPTH = 32

# libyaml is some ten times faster; the pure parser gives the same events.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,300})")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)\.[0-9]+([eE][-+][0-9]{1,3})?")


class _Mapping:
    """A mapping that is being filled: `key` waits for its value."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.result: dict[str, Any] = {}
        self.key: str | None = None

    def next_path(self) -> str:
        return f"{self.path}.{self.key}" if self.path else str(self.key)

    def add(self, value: Any) -> None:
        assert self.key is not None
        self.result[self.key] = value
        self.key = None


class _Sequence:
    def __init__(self, path: str) -> None:
        self.path = path
        self.result: list[Any] = []

    def next_path(self) -> str:
        return f"{self.path}[{len(self.result)}]"

    def add(self, value: Any) -> None:
        self.result.append(value)


class YamlText:
    """One YAML document.

    Args:
        text: the document.
        where: its file, for errors.

    Attributes:
        value: what it holds: dict, list, str, int, float, bool or None.

    Raises:
        TopologyError: no YAML, or YAML with features that a topology has no use for.
    """

    def __init__(self, text: str, where: str) -> None:
        self.where = where
        self.value: Any = None
        self._lines: dict[str, int] = {}
        if len(text) > MAX_BYTES:
            raise TopologyError(
                f"{len(text)} characters are too many.", where=where, cure=f"Use {MAX_BYTES} at most; see shard ranges."
            )
        try:
            self._read(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable text"
            line = mark.line + 1 if mark else None
            raise self._error(f"is not valid YAML: {problem}.", "Fix the file.", line) from None

    def line(self, path: str) -> int | None:
        """The line where the field of this path stands, or the nearest one around it."""
        while path:
            if path in self._lines:
                return self._lines[path]
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return None

    def _read(self, text: str) -> None:
        stack: list[_Mapping | _Sequence] = []
        documents = 0
        for event in yaml.parse(text, Loader=_Loader):
            line = event.start_mark.line + 1 if event.start_mark else 0
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._error("holds a second YAML document.", "Remove the line `---`.", line)
            elif isinstance(event, yaml.AliasEvent):
                raise self._error("uses a YAML alias (`*name`).", "Write the value out; see shard ranges.", line)
            elif isinstance(event, yaml.ScalarEvent):
                self._scalar(stack, event, line)
            elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                if event.tag is not None:
                    raise self._error(f"uses the YAML tag {event.tag!r}.", "Remove the tag.", line)
                path = self._begin(stack, line)
                if len(stack) >= MAX_DEPTH:
                    raise self._error("is nested too deeply.", f"Use {MAX_DEPTH} levels at most.", line)
                stack.append(_Mapping(path) if isinstance(event, yaml.MappingStartEvent) else _Sequence(path))
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                self._end(stack, stack.pop().result)

    def _scalar(self, stack: list[_Mapping | _Sequence], event: Any, line: int) -> None:
        if event.tag is not None and event.tag != "!":
            raise self._error(f"uses the YAML tag {event.tag!r}.", "Remove the tag.", line)
        top = stack[-1] if stack else None
        if isinstance(top, _Mapping) and top.key is None:
            if event.value in top.result:
                raise self._error(f"{event.value!r} is there twice.", "Keep one of them.", line, top.path)
            top.key = event.value
            self._lines[top.next_path()] = line
            return
        self._begin(stack, line)
        self._end(stack, _plain(event.value) if event.implicit[0] else event.value)

    def _begin(self, stack: list[_Mapping | _Sequence], line: int) -> str:
        """A value begins: its path."""
        if not stack:
            return ""
        top = stack[-1]
        if isinstance(top, _Mapping):
            if top.key is None:
                raise self._error("a key must be text.", "Use plain text as key.", line, top.path)
            return top.next_path()
        path = top.next_path()
        self._lines[path] = line
        return path

    def _end(self, stack: list[_Mapping | _Sequence], value: Any) -> None:
        if stack:
            stack[-1].add(value)
        else:
            self.value = value

    def _error(self, message: str, cure: str, line: int | None, path: str = "") -> TopologyError:
        where = f"{self.where}:{line}" if line else self.where
        return TopologyError(message, where=where, field=path or None, cure=cure)


def _plain(text: str) -> Any:
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    if _DECIMAL.fullmatch(text):
        return float(text)
    return text


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Writes what `YamlText` reads: never an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def dump(value: Any) -> str:
    """Plain values as YAML text, keys in their order."""
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110
    )
    return text
