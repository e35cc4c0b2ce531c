"""The recorded releases, oldest first: one directory each, all of which are read for ever."""

from __future__ import annotations

from pathlib import Path

RELEASES = [
    Path(__file__).parent / name
    for name in (
        "fbb8d40",
        "proven-from-to",
        "form-2",
        "no-cursors",
        "row-counts",
        "raw-keys",
        "dataset-floors",
        "watched",
        "counting-on",
        "deliveries-6",
        "folds-7",
    )
]

# What is written now has the form of this one.
NEWEST = RELEASES[-1]
