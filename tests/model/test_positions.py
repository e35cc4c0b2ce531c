"""GTID sets of MySQL, with tags and without."""

from __future__ import annotations

import numpy as np
import pytest

from cdc_platform.errors import BadInput
from cdc_platform.model.positions import MySqlPosition, mysql_stream, mysql_transaction

ONE, OTHER = "24bc7850-2c16-11e6-a073-0242ac110002", "3e11fa47-71ca-11e1-9e33-c80aa9429562"


def test_a_set_is_read_and_written() -> None:
    found = MySqlPosition.parse(f"{ONE}:1-3:5,\n{OTHER.upper()}:7:4-6")
    assert found.sets == ((ONE, ((1, 3), (5, 5))), (OTHER, ((4, 7),)))
    assert MySqlPosition.parse(str(found)) == found
    assert MySqlPosition.parse("").sets == ()


def test_tagged_transactions_are_counted_apart() -> None:
    """From MySQL 8.3 on: `uuid:interval:tag:interval`."""
    found = MySqlPosition.parse(f"{ONE}:1-3:billing:1-2:5:jobs:1")
    assert found.sets == ((ONE, ((1, 3),)), (f"{ONE}:billing", ((1, 2), (5, 5))), (f"{ONE}:jobs", ((1, 1),)))
    assert MySqlPosition.parse(str(found)) == found
    assert found.covers(MySqlPosition.parse(f"{ONE}:billing:2"))
    assert not found.covers(MySqlPosition.parse(f"{ONE}:billing:3"))
    streams, numbers = zip(
        *map(mysql_transaction, [f"{ONE}:3", f"{ONE}:4", f"{ONE}:billing:5", f"{ONE}:jobs:2"]), strict=True
    )
    assert found.sees(np.array(streams, dtype=np.uint32), np.array(numbers, dtype=np.uint64)).tolist() == [
        True,
        False,
        True,
        False,
    ]


def test_streams_of_one_server_differ_by_tag() -> None:
    assert mysql_stream(ONE) == 0x24BC7850
    assert len({mysql_stream(source) for source in (ONE, OTHER, f"{ONE}:a", f"{ONE}:b")}) == 4


@pytest.mark.parametrize(
    "text", ["x", ONE, f"{ONE}:", f"{ONE}:tag", f"{ONE}:tag:", f"{ONE}:1:tag:a", "0-1-5", f"{ONE}:1-"]
)
def test_what_is_no_set_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="no MySQL GTID set"):
        MySqlPosition.parse(text)
