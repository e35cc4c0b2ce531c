"""All that is recorded: file name to text."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

from tests.surface import (
    command_line,
    configuration,
    documents,
    events,
    exits,
    json_output,
    monitoring,
    orchestration,
    outside,
    packaging,
)
from tests.surface.golden import as_json

_JSON: Mapping[str, Callable[[], Any]] = {
    "command-line.json": command_line.parameters,
    "settings.json": configuration.settings,
    "dagster.json": orchestration.definitions,
    "dagster-extension-points.json": orchestration.extension_points,
    "dagster-cursors.json": orchestration.cursors,
    "dagster-run-requests.json": orchestration.run_requests,
    "dagster-events.json": events.metadata,
    "state-topic.json": documents.state_topic,
    "zookeeper.json": outside.zookeeper,
    "kafka.json": outside.kafka,
    "worker-files.json": outside.worker_files,
    "audit-frame.json": outside.audit_frame,
    "policy.json": configuration.policy,
    "metrics.json": monitoring.metrics,
    "alerts.json": monitoring.alerts,
    "words.json": monitoring.words,
    "exit-codes.json": exits.codes,
    "package.json": packaging.package,
    "json-output.json": json_output.shapes,
}
_TEXT: Mapping[str, Callable[[], str]] = {
    "help.txt": command_line.help_texts,
    "topology.yaml": outside.topology_file,
}

NAMES = sorted({*_JSON, *_TEXT})


def recorded(name: str) -> str:
    """The text of one file as it is now."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith("CDC_")}
    with (
        tempfile.TemporaryDirectory() as empty,
        contextlib.chdir(empty),  # no settings file
        # Nor the user's caches and verdicts, which other processes may be writing.
        mock.patch.dict(os.environ, plain | {"HOME": empty}, clear=True),
    ):
        return _TEXT[name]() if name in _TEXT else as_json(_JSON[name]())


def surface() -> dict[str, str]:
    """All files as they are now."""
    return {name: recorded(name) for name in NAMES}
