"""Engines, to parametrize tests by."""

from __future__ import annotations

import pytest

from cdc_platform.model.topology import Engine

BINLOGS = tuple(engine for engine in Engine if engine.reads_binlog)

EACH_ENGINE = pytest.mark.parametrize("engine", list(Engine), ids=str)
EACH_BINLOG = pytest.mark.parametrize("engine", BINLOGS, ids=str)
