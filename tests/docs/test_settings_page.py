"""docs/settings.md is what the code gives, and every variable in it is read."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from cdc_platform.documents import settings_reference
from cdc_platform.settings import FILE_ONLY, Settings

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_of_settings_is_the_one_that_the_code_gives() -> None:
    hint = "python -m cdc_platform.documents.settings_reference > docs/settings.md"
    assert (DOCS / "settings.md").read_text() == settings_reference.page(), hint


def test_every_setting_has_a_meaning_and_no_other() -> None:
    assert settings_reference.MEANINGS.keys() == {setting.name for setting in fields(Settings)}


def test_every_variable_of_the_page_is_read(tmp_path: Path) -> None:
    variables = re.findall(r"`(CDC_PLATFORM_[A-Z_]+)` \|", settings_reference.page())
    assert len(variables) == len(fields(Settings)) - len(FILE_ONLY)
    values = {"number": "7", "whole number": "7", "list of text": "/x", "table": "k:1"}
    rows = re.findall(r"^\| `(\w+)` \| `(CDC_\w+)` \| ([a-z ]+) \|", settings_reference.page(), re.MULTILINE)
    empty = tmp_path / "empty.toml"
    empty.write_text("")
    for name, variable, kind in rows:
        default = getattr(Settings.load(empty, {}), name)
        value = "${env:X}" if name.endswith("_password") else values.get(kind, "other")
        if kind == "true or false":
            value = str(not default).lower()
        assert getattr(Settings.load(empty, {variable: value}), name) != default, name
