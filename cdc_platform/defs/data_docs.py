"""Data Docs of Great Expectations: one page that says what was expected of a table and what was found.

The library's own pages load styles and scripts from a dozen hosts, and its site is rebuilt from all results
at each run. Here one result is rendered by the library, and what lies outside is taken out of the page.
"""

from __future__ import annotations

import copy
import importlib
import re
import tempfile
from pathlib import Path
from typing import Any

from cdc_platform.errors import BadInput
from cdc_platform.model.plain_text import for_html

_OUTSIDE = re.compile(
    r"<script\b[^>]*\bsrc=[\"']?https?://[^>]*>(?:\s*</script>)?"
    r"|<(?:link|img)\b[^>]*\b(?:href|src)=[\"']?https?://[^>]*>"
    r"|<a\b[^>]*\bhref=[\"']?https?://[^>]*>.*?</a>",
    re.IGNORECASE | re.DOTALL,
)
# Values are escaped before the library makes a page of them, which does not; and nothing of a page may run.
_POLICY = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
    "img-src data:; base-uri 'none'; form-action 'none'\">"
)
_STYLE = (
    "<style>body{font:14px sans-serif;margin:2em;max-width:80em}table{border-collapse:collapse}"
    "td,th{border:1px solid #ccc;padding:4px 8px;text-align:left;vertical-align:top}</style>"
)


def write_page(result: Any, place: Path) -> None:
    """Write what the library says of a validation result as a page that loads nothing from elsewhere.

    Raises:
        BadInput: the place cannot be written.
    """
    renderer: Any = importlib.import_module("great_expectations.render.renderer").ValidationResultsPageRenderer()
    view: Any = importlib.import_module("great_expectations.render.view").DefaultJinjaPageView()
    page = self_contained(str(view.render(renderer.render(escaped(result)))))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=place.parent, suffix=".new", delete=False) as fresh:
            fresh.write(page)
        written = Path(fresh.name)
        written.chmod(0o644)
        written.replace(place)
    except OSError as error:
        raise BadInput(
            f"no page could be written: {error}.", where=str(place), field="data_docs", cure="Name a directory of ours."
        ) from error


def escaped(result: Any) -> Any:
    """A copy of a validation result in which the values that were found are text of HTML."""
    made = copy.deepcopy(result)
    for one in made.results:
        one.result = _escaped(one.result)
        one.exception_info = _escaped(one.exception_info)
    return made


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return for_html(value)
    if isinstance(value, dict):
        return {_escaped(name): _escaped(each) for name, each in value.items()}
    return [_escaped(each) for each in value] if isinstance(value, list | tuple) else value


def self_contained(page: str) -> str:
    """The page without what it would load from, or link to, elsewhere; browsers run no script in it."""
    inside = _OUTSIDE.sub("", page).replace("</head>", f"{_STYLE}</head>", 1)
    # A policy holds for what comes after it, and the library writes nothing of a table's before this.
    return inside.replace("<head>", f"<head>{_POLICY}", 1) if "<head>" in inside else _POLICY + inside
