"""Dagster with daemon and pages over a platform in memory, and a browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import dagster as dg
import pytest

from cdc_platform.defs.partitions import sync_partitions
from cdc_platform.settings import Settings
from tests.browser.chromium import Page, browser, program
from tests.browser.location import DIRECTORY_ENV, WORLD, made, wanted
from tests.control_plane.harness import free_port
from tests.defs.code_location import CodeLocation
from tests.defs.harness import Harness, HarnessResource
from tests.snapshots.dagster_outside import OutsideDagster
from tests.waiting import assert_eventually

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
# `make screenshots` sets it: then pictures go into the documents, otherwise beside the test's files.
SCREENSHOTS_ENV = "CDC_SCREENSHOTS"


@dataclass(frozen=True, kw_only=True)
class Pages:
    """Dagster's pages in a browser, and the platform behind them as this process has it."""

    page: Page
    url: str
    harness: Harness
    control: CodeLocation
    images: Path

    def asset(self, *path: str, view: str = "overview") -> None:
        """Open the page of an asset."""
        self.page.open(f"{self.url}/assets/{'/'.join(path)}?view={view}")

    def picture(self, name: str) -> None:
        """Keep what is shown."""
        self.page.picture(self.images / f"{name}.png")


@pytest.fixture(autouse=True)
def has_chromium() -> None:
    """Without Chromium these tests are skipped; in CI they fail."""
    if program() is None:
        reason = "there is no Chromium here: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[Pages]:
    with opened(tmp_path) as found:
        yield found


@contextmanager
def opened(directory: Path) -> Iterator[Pages]:
    """Started, and ended with all its processes."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    outside = OutsideDagster(
        home=directory / "home",
        settings=Settings(),
        code=("-m", "tests.browser.location"),
        environment={
            DIRECTORY_ENV: str(directory),
            "CDC_BROWSER_URL": url,
            "PYTHONPATH": str(ROOT),
            # Sensors would compare a platform of their own with Dagster's events.
            "DAGSTER_IS_DEV_CLI": "1",
        },
    )
    outside.webserver(port)
    outside.daemon()
    try:
        with dg.DagsterInstance.from_config(str(directory / "home")) as instance:
            harness = made(directory)
            control = CodeLocation(HarnessResource(config_file=WORLD), instance)
            sync_partitions(instance, wanted(), platform="cdc", may_delete=False)
            assert_eventually(lambda: answers(url), "Dagster's pages answer", 180)
            with browser(directory / "profile") as page:
                yield Pages(
                    page=page,
                    url=url,
                    harness=harness,
                    control=control,
                    images=IMAGES if os.environ.get(SCREENSHOTS_ENV) else directory / "images",
                )
    finally:
        outside.end()


def answers(url: str) -> bool:
    try:
        with urlopen(f"{url}/server_info", timeout=10) as answer:
            return bool(answer.status == 200)
    except (URLError, TimeoutError, ConnectionError):
        return False
