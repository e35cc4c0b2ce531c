"""The changelog keeps the form of keepachangelog.com, and rebasing has put no entry into two releases."""

import re
from collections import Counter
from pathlib import Path

TEXT = (Path(__file__).parents[2] / "CHANGELOG.md").read_text()
KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")


def test_no_entry_stands_twice() -> None:
    entries = Counter(re.findall(r"^- (?:.|\n(?!-|#|\n))+", TEXT, flags=re.MULTILINE))
    assert len(entries) > 20
    assert [entry for entry, count in entries.items() if count > 1] == []


def test_releases_and_kinds_are_headed_in_form_and_order() -> None:
    releases = re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]
    assert releases[0].startswith("[Unreleased]\n")
    for release in releases[1:]:
        assert re.match(r"\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}\n", release), release[:40]
    for release in releases:
        kinds = re.findall(r"^### (.+)$", release, flags=re.MULTILINE)
        assert kinds == [kind for kind in KINDS if kind in kinds]
