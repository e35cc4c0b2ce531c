"""All that is recorded: file name to text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.surface import command_line, configuration, documents, json_output, orchestration
from tests.surface.golden import as_json

_JSON: Mapping[str, Callable[[], Any]] = {
    "command-line.json": command_line.parameters,
    "settings.json": configuration.settings,
    "dagster.json": orchestration.definitions,
    "dagster-extension-points.json": orchestration.extension_points,
    "dagster-cursors.json": orchestration.cursors,
    "state-topic.json": documents.state_topic,
    "json-output.json": json_output.shapes,
}
_TEXT: Mapping[str, Callable[[], str]] = {"help.txt": command_line.help_texts}

NAMES = sorted({*_JSON, *_TEXT})


def recorded(name: str) -> str:
    """The text of one file as it is now."""
    return _TEXT[name]() if name in _TEXT else as_json(_JSON[name]())


def surface() -> dict[str, str]:
    """All files as they are now."""
    return {name: recorded(name) for name in NAMES}
