"""Settings as a file, for the processes of a test: whatever a stack's settings hold, secure or not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from cdc_platform.settings import Settings


def write_settings(settings: Settings, path: Path) -> Path:
    """Every setting that is not the default; alerts are left out."""
    plain = Settings()
    found = {field.name: getattr(settings, field.name) for field in fields(settings) if field.name != "alerts"}
    lines = [f"{name} = {_toml(value)}" for name, value in found.items() if value != getattr(plain, name)]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {json.dumps(one)}" for key, one in value.items()) + " }"
    return json.dumps(value)
