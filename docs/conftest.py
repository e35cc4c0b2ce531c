"""`pytest docs/` runs the tutorial from nothing to `proven`, and what of the README needs no demo; slow parts too.

The tests stand in tests/docs/, beside those of all other pages.
"""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
PAGES = [HERE.parent / "tests" / "docs" / name for name in ("test_tutorial.py", "test_readme.py")]


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    asked = [(config.invocation_params.dir / given.partition("::")[0]).resolve() for given in config.args]
    if asked != [HERE]:
        return
    config.args[:] = [str(page) for page in PAGES]
    if config.option.markexpr == "not slow":  # the project's default
        config.option.markexpr = ""
