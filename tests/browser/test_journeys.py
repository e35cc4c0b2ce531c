"""What a data engineer does in the browser: find what is down, and why; lineage; a Launchpad."""

from __future__ import annotations

import pytest

from tests.browser.conftest import Pages

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

TRACE = "org.apache.kafka.connect.errors.ConnectException: Access denied for user 'cdc'@'10.0.0.7'"
LOCATION = "__repository__@tests.browser.location"


def test_browser_what_is_down_is_found_and_a_launchpad_rehearses(pages: Pages) -> None:
    """One journey, so that Dagster starts once."""
    pages.control.quiet()
    pages.harness.connect.model.fail_task("pins.00007", TRACE)
    pages.control.pass_()

    # Which shard is down, and why.
    pages.asset("cdc", "pins", "shards", view="events")
    pages.page.assert_shows("59 of 60 shards up.", "shards_down", "pins.00007", "Connect says FAILED; authentication")
    pages.picture("shards")

    # What stands above the topic, and what below.
    pages.asset("cdc", "pins", "pins", view="lineage")
    pages.page.assert_shows("shards", "audit", "popular_pins", "sources")
    pages.picture("lineage")

    # The Launchpad opens filled in, and rehearses.
    pages.page.open(f"{pages.url}/locations/{LOCATION}/jobs/cdc_backfill/playground")
    pages.page.assert_shows("rehearse: true", "dataset: pins", "No errors")
    pages.picture("launchpad")
