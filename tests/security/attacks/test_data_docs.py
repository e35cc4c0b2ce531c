"""A database's text in a page of Data Docs: browsers run nothing of it and load nothing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cdc_platform.defs.data_docs import escaped, self_contained

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"


@pytest.mark.parametrize(
    "page",
    [f"<!DOCTYPE html><html><head></head><body>{HOSTILE}</body></html>", f"<p>{HOSTILE}</p>"],
    ids=["page", "part"],
)
def test_a_policy_stands_before_anything_that_strangers_wrote(page: str) -> None:
    found = self_contained(page)
    policy = found.index("Content-Security-Policy")
    assert policy < found.index("<script>")
    assert policy < found.index("onerror")
    content = found[policy : found.index(">", policy)]
    assert "default-src 'none'" in content
    # Scripts, in the page or elsewhere, are not allowed by any rule of their own.
    assert "script-src" not in content
    assert "unsafe-eval" not in content


def test_values_are_text_before_a_page_is_made_of_them() -> None:
    class One:
        result: object = {"partial_unexpected_list": [HOSTILE, 1], "counts": {HOSTILE: 2}, "observed_value": HOSTILE}
        exception_info: object = {"exception_message": HOSTILE}

    class Whole:
        results: Sequence[One] = ()

    whole = Whole()
    whole.results = [One()]
    found = escaped(whole).results[0]
    assert "<" not in str(found.result) and "<" not in str(found.exception_info)
    assert "&lt;script&gt;" in str(found.result)
    assert whole.results[0].result == One.result
