import subprocess
import sys
from pathlib import Path

from cdc_platform.defs.check_suites import DEFAULT
from cdc_platform.planning.health.failures import Failure

ROOT = Path(__file__).parents[2]


def test_links_and_files_that_the_documents_name_exist() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "check_links.py"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_each_alert_has_its_heading_in_the_runbook() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    headings = {line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")}
    linked = {str(failure) for failure in Failure} | {"split-brain", "leader-not-fit", "no-pass"}
    linked |= {f"check-{expected.check.replace('_', '-')}" for expected in DEFAULT.expectations}
    assert linked - headings == set()
