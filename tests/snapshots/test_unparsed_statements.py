"""Which statements a shard may pass over: those that name no captured table, and once."""

from __future__ import annotations

import pytest

from cdc_platform.connectors.engines import ddl_filter
from cdc_platform.errors import BadInput
from cdc_platform.model.observed import ObservedState
from cdc_platform.model.topology import Dataset, Shard
from cdc_platform.snapshots.unparsed_statements import skips, stopped_shards
from tests.planning.worlds import cluster, config_of, connector, dataset, picture, topology

PINS = dataset()


def _failed(statement: str) -> tuple[ObservedState, Dataset, Shard]:
    desired = topology([(PINS, 2)])
    trace = (
        "Caused by: io.debezium.text.ParsingException: DDL statement couldn't be parsed. Please open a GitHub issue at"
        f" https://github.com/debezium/dbz/issues with the statement '{statement}'\nno viable alternative at input"
    )
    shard, other = (shard for _, shard in desired.all_shards())
    shards = {
        shard.name: connector(shard.name, config_of(PINS, shard, cluster()), task="FAILED", trace=trace),
        other.name: connector(other.name, config_of(PINS, other, cluster())),
    }
    observed = picture(desired, {"main": shards})
    assert stopped_shards(observed, (shard, other)) == [shard]
    with pytest.raises(BadInput, match="has not failed at a statement"):
        skips(observed, PINS, [other], force=True)
    return observed, PINS, shard


@pytest.mark.parametrize(
    "statement", ["ALTER TABLE mypins MODIFY i INET6", "ALTER TABLE other.pins\n ADD 'x'", "ALTER TABLE `o-t`.`pins` X"]
)
def test_a_statement_of_no_captured_table_is_passed_over_exactly_and_once(statement: str) -> None:
    observed, own, shard = _failed(statement)
    [skip] = skips(observed, own, [shard], force=False)
    assert skip.statement == statement
    pattern = skip.shard.connector[ddl_filter.OPTION]
    assert ddl_filter.is_exact(pattern) and ddl_filter.matches(pattern, statement)
    with pytest.raises(BadInput, match="passes over that statement already"):
        skips(observed, own, [skip.shard], force=False)


@pytest.mark.parametrize(
    "statement", ["ALTER TABLE `pins` X", "alter table PINS x", "RENAME TABLE a TO {database}.pins"]
)
def test_a_statement_that_may_change_a_captured_table_needs_a_word(statement: str) -> None:
    database = next(shard.database for _, shard in topology([(PINS, 1)]).all_shards())
    observed, own, shard = _failed(statement.format(database=database))
    with pytest.raises(BadInput, match="may change the captured table pins"):
        skips(observed, own, [shard], force=False)
    assert len(skips(observed, own, [shard], force=True)) == 1
