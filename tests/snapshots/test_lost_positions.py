"""`bootstrap --lost` takes the shards that cannot go on from their saved position, and no others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cdc_platform.errors import BadInput
from cdc_platform.planning.health.failures import CURES, Failure
from cdc_platform.snapshots.lost_positions import LOST, for_lost_shards, lost_shards
from cdc_platform.snapshots.request import Request, RunKind
from tests.planning.worlds import cluster, config_of, connector, dataset, picture, topology

TRACES = {
    0: "ERROR: replication slot cdc_1 does not exist",
    1: "Caused by: io.debezium.text.ParsingException: DDL statement couldn't be parsed.",
    2: "Error processing row in items, internal schema size 2, but row size 3 , restart connector",
    3: "NullPointerException: Cannot invoke com.github.shyiko.mysql.binlog.event.deserialization.ColumnType.ordinal()",
    4: "ERROR: all replication slots are in use",
    5: "Topic cdc.pins.Orders not present in metadata after 60000 ms.",
    6: "java.net.ConnectException: Connection refused",
}
ASKED = Request(kind=RunKind.BOOTSTRAP, dataset="pins")


def test_shards_that_must_be_read_again_are_taken_and_those_that_a_restart_cures_are_not() -> None:
    desired = topology([(dataset(), 8)])
    shards = {
        s.name: connector(s.name, config_of(d, s, cluster()), task="FAILED", trace=TRACES[int(s.id)])
        for d, s in desired.all_shards()
        if int(s.id) in TRACES
    }
    observed = picture(desired, {"main": shards})
    assert lost_shards(observed, "pins") == {
        "00000": Failure.SLOT_MISSING,
        "00001": Failure.DDL_UNPARSED,
        "00002": Failure.SCHEMA_MISMATCH,
        "00003": Failure.COLUMN_UNREADABLE,
    }
    taken = for_lost_shards(observed, ASKED)
    assert (taken.shards, taken.again) == (("00000", "00001", "00002", "00003"), True)
    with pytest.raises(BadInput, match="Leave out shards"):
        for_lost_shards(observed, replace(ASKED, shards=("00000",)))
    with pytest.raises(BadInput, match="no shard of pins"):
        for_lost_shards(picture(desired, {"main": {}}), ASKED)


def test_no_shard_is_taken_that_passes_restart_by_themselves() -> None:
    assert [failure for failure in LOST if CURES[failure].automatic] == []
