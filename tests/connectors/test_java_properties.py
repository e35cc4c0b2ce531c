"""Java properties are read as Java reads them, and written so that it reads the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_platform.connectors.java_properties import parse, render

TEXT = st.characters(codec="utf-8")

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
    assert parse(PROPERTIES) == MEANT


@given(st.dictionaries(st.text(TEXT, min_size=1), st.text(TEXT)))
def test_properties_written_with_escapes_come_back(values: dict[str, str]) -> None:
    def escaped(text: str) -> str:
        units = text.encode("utf-16-be")
        return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))

    text = "\n".join(f"{escaped(key)}={escaped(value)}" for key, value in values.items())
    assert parse(text) == values


@given(st.text())
def test_properties_never_fail_but_for_a_bad_escape(text: str) -> None:
    try:
        parse(text)
    except ValueError as error:
        assert "escape" in str(error) or "surrogates" in str(error)


def test_a_comment_sign_in_a_continued_line_is_text() -> None:
    # LineReader of the JDK: a comment begins only where a logical line does.
    assert parse("\\\n!a\tb\nc=d") == {"!a": "b", "c": "d"}


def test_half_a_character_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        parse("a=\\ud83d")


@given(st.dictionaries(st.text(TEXT, min_size=1), st.text(TEXT)))
def test_what_is_written_is_read_back(values: dict[str, str]) -> None:
    assert parse(render(values, dict.fromkeys(values, "why\nso"))) == values
