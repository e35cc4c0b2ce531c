"""References resolve as they do on a Connect worker, and values stay out of sight."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdc_platform.clients.secrets import Secret, resolve, resolve_all
from cdc_platform.errors import SecretUnresolved


def test_references_are_resolved_anywhere_in_a_value(tmp_path: Path) -> None:
    file = tmp_path / "pins.properties"
    file.write_text("user=reader\npassword=p\\=w\n", encoding="utf-8")
    text = f"${{file:{file}:user}}/${{file:{file}:password}}@${{env:ZONE}}/${{vault:x}}"
    assert resolve(text, env={"ZONE": "az-a"}) == "reader/p=w@az-a/${vault:x}"
    file.write_text("user=other\npassword=p\n", encoding="utf-8")
    assert resolve(f"${{file:{file}:user}}") == "other"
    assert resolve_all({"a": "plain", "b": "${env:B}"}, env={"B": "1"}) == {"a": "plain", "b": "1"}


@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        ("${env:NOT_SET}", "not set"),
        ("${file:/nowhere/at.all:key}", "No such file"),
        ("${file:/nowhere}", "not a valid reference"),
        ("${file::key}", "not a valid reference"),
        ("${file:relative:key}", "not a valid reference"),
        ("${file:/a:b:key}", "not a valid reference"),
        ("${env:}", "not a valid reference"),
        ("${env:A B}", "not a valid reference"),
        ("${file:FILE:none}", "no such key"),
        ("${file:BINARY:key}", "no properties file"),
        ("${file:ESCAPE:key}", "no properties file"),
    ],
)
def test_unresolved_names_the_reference_and_no_value(tmp_path: Path, reference: str, problem: str) -> None:
    (tmp_path / "f").write_text("key=hunter2\n")
    (tmp_path / "b").write_bytes(b"key=hunter2\xff\xfe")
    (tmp_path / "e").write_text("key=hunter2\\u12\n")
    for word, name in (("FILE", "f"), ("BINARY", "b"), ("ESCAPE", "e")):
        reference = reference.replace(word, str(tmp_path / name))
    with pytest.raises(SecretUnresolved) as caught:
        resolve(f"before hunter1 {reference}", env={})
    assert reference in str(caught.value)
    assert problem in str(caught.value)
    assert "Cure" in str(caught.value)
    assert "hunter" not in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_secret_hides_itself_but_for_those_who_take_it_as_text() -> None:
    secret = resolve("${env:P}", env={"P": "hunter2"})
    assert isinstance(secret, Secret)
    assert "hunter2" not in repr(secret) and "hunter2" not in repr({"password": secret}) + f"{secret!r}"
    assert secret == "hunter2" and f"{secret}" == "hunter2"
