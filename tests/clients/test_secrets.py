"""References resolve as they do on a Connect worker, and values stay out of sight."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_platform.clients.secrets import Secret, is_reference, parse_properties, resolve, resolve_all
from cdc_platform.errors import SecretUnresolved

# What java.util.Properties (JDK 17) makes of it.
PROPERTIES = (
    "# comment\n! comment\n a = b \nk\\:1:v\\\n   w\nx\n\ny z=1\nempty=\n"
    "uni=\\u00e9\\ud83d\\ude00\nbs=a\\\\\ntab=a\\tb\\q\n#no \\\nq=1\r\nlast : a=b:c"
)
MEANT = {
    "a": "b ",
    "k:1": "vw",
    "x": "",
    "y": "z=1",
    "empty": "",
    "uni": "é😀",
    "bs": "a\\",
    "tab": "a\tbq",
    "q": "1",
    "last": "a=b:c",
}


def test_properties_are_read_as_java_reads_them() -> None:
    assert parse_properties(PROPERTIES) == MEANT


@given(st.dictionaries(st.text(min_size=1), st.text()))
def test_properties_written_with_escapes_come_back(values: dict[str, str]) -> None:
    def escaped(text: str) -> str:
        units = text.encode("utf-16-be", "surrogatepass")
        return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))

    text = "\n".join(f"{escaped(key)}={escaped(value)}" for key, value in values.items())
    assert parse_properties(text) == values


@given(st.text())
def test_properties_never_fail_but_for_a_bad_escape(text: str) -> None:
    try:
        parse_properties(text)
    except ValueError as error:
        assert "uXXXX" in str(error)


def test_references_are_resolved_anywhere_in_a_value(tmp_path: Path) -> None:
    file = tmp_path / "pins.properties"
    file.write_text("user=reader\npassword=p\\=w\n", encoding="utf-8")
    text = f"${{file:{file}:user}}/${{file:{file}:password}}@${{env:ZONE}}/${{vault:x}}"
    assert resolve(text, env={"ZONE": "az-a"}) == "reader/p=w@az-a/${vault:x}"
    assert is_reference(text) and not is_reference("${vault:x} plain $ {file:x}")
    file.write_text("user=other\npassword=p\n", encoding="utf-8")
    assert resolve(f"${{file:{file}:user}}") == "other"
    assert resolve_all({"a": "plain", "b": "${env:B}"}, env={"B": "1"}) == {"a": "plain", "b": "1"}


@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        ("${env:NOT_SET}", "not set"),
        ("${file:/nowhere/at.all:key}", "No such file"),
        ("${file:/nowhere}", "no file reference"),
        ("${file::key}", "no file reference"),
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
