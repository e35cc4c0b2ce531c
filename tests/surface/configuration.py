"""Settings: names, types, defaults, names in the environment, keys of the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_type_hints
from unittest import mock

from cdc_platform.connectors.worker_properties import ENV_ALLOWLIST, WORKER_ENV
from cdc_platform.defs.check_suites import load_suite
from cdc_platform.errors import SettingsError
from cdc_platform.settings import CONFIG_ENV, CONFIG_FILE, ENV_PREFIX, SEVERITIES, AlertTarget, Settings
from cdc_platform.verification.check_rows import COLUMNS
from cdc_platform.verification.duplicates.causes import DuplicatePolicy
from cdc_platform.verification.ports import VerificationPolicy


def settings() -> dict[str, Any]:
    """Each setting as the file, the environment and the code know it."""
    with mock.patch.dict("os.environ", {"XDG_CACHE_HOME": "$XDG_CACHE_HOME", "XDG_DATA_HOME": "$XDG_DATA_HOME"}):
        plain = Settings()
    hints = get_type_hints(Settings)
    return {
        "file": CONFIG_FILE,
        "file_named_by": CONFIG_ENV,
        "settings": {
            field.name: {
                "type": _type(hints[field.name]),
                "default": _plain(getattr(plain, field.name)),
                "environment": _environment(field.name),
            }
            for field in fields(Settings)
        },
        "alerts.NAME": {
            "fields": {
                field.name: {"type": _type(get_type_hints(AlertTarget)[field.name])} for field in fields(AlertTarget)
            },
            "severities": list(SEVERITIES),
        },
        "environment_of_workers": {"name": WORKER_ENV, "readable_by_connectors": ENV_ALLOWLIST},
    }


# What the environment is given to see that a setting is read from it.
_GIVEN = {"${env:X}", "/given", "7"}


def _environment(name: str) -> str | None:
    """The name in the environment, when it is in fact read."""
    plain = Settings()
    variable = f"{ENV_PREFIX}{name.upper()}"
    for text in sorted(_GIVEN):
        try:
            found = Settings.load(env={variable: text})
        except SettingsError:
            continue
        if getattr(found, name) != getattr(plain, name):
            return variable
    return None


def policy() -> dict[str, Any]:
    """What a dataset's `verification` may say, and the columns that a suite file may name."""
    return {
        "verification": _fields(VerificationPolicy),
        "verification.duplicates": _fields(DuplicatePolicy),
        "columns": sorted(COLUMNS),
        "default_suite": [
            {"check": one.check, "type": one.type, "severity": one.severity, "kwargs": dict(one.kwargs)}
            for one in load_suite(None, "pins").expectations
        ],
    }


def _fields(kind: type[Any]) -> dict[str, Any]:
    plain, hints = kind(), get_type_hints(kind)
    return {
        field.name: {"type": _type(hints[field.name]), "default": _plain(getattr(plain, field.name))}
        for field in fields(kind)
    }


def _type(hint: Any) -> str:
    text = hint.__name__ if isinstance(hint, type) and not getattr(hint, "__args__", None) else str(hint)
    for prefix in ("collections.abc.", "typing.", f"{AlertTarget.__module__}."):
        text = text.replace(prefix, "")
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value
