"""docs/hazards.md is made of the data that the checks go by."""

from __future__ import annotations

from pathlib import Path

from cdc_platform.planning.doctor.kinds import AILMENTS, Ailment, table
from cdc_platform.planning.health.source_hazard_kinds import KINDS, OTHERS, HazardKind

PAGE = Path(__file__).parents[2] / "docs" / "hazards.md"


def test_the_table_is_that_of_the_checks() -> None:
    """After a change: copy the lines of `table()` into the page."""
    assert PAGE.read_text().endswith("\n".join(table()) + "\n")


def test_each_kind_is_described_and_what_nothing_tells_says_so() -> None:
    assert KINDS.keys() == set(HazardKind) and AILMENTS.keys() == set(Ailment)
    assert not {str(kind) for kind in Ailment} & {str(kind) for kind in HazardKind}
    silent = [row for row in OTHERS if row.channel.startswith("none")]
    assert {"sql_log_bin=0", "binlog_format=STATEMENT"} <= {
        word.strip("`") for row in silent for word in row.done.split()
    }
