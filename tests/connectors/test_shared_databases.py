"""Two shards of a dataset that read one database are refused, by whichever spelling the topology names it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cdc_platform.connectors.config import problems
from cdc_platform.connectors.shared_databases import SHARED_DATABASE, canonical
from cdc_platform.model.topology import Address, Dataset, Shard, Topology
from cdc_platform.planning.health.source_hazard_kinds import HazardKind
from tests.connectors.cases import EAST, PINS, PINS_7, PLAIN
from tests.own_secrets import own_secrets

OTHER = replace(PINS_7, id="00008", database="pins_00008")


def refused(*shards: Shard, dataset: Dataset = PINS) -> dict[str, str]:
    topology = Topology(datasets={dataset.name: dataset}, shards={dataset.name: shards}, clusters={"east": EAST})
    return {problem.name: problem.message for problem in problems(topology, PLAIN)}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("db-7.internal:3306", "db-7.internal:3306"),
        ("db-7.internal:3306", "DB-7.Internal:3306"),
        ("[fd00::7]:3306", "fd00:0:0::7:3306"),
        ("[fd00::7]:3306", "[FD00:0000::0007]:3306"),
        ("10.0.0.7:3306", "[::ffff:10.0.0.7]:3306"),
    ],
)
def test_one_database_by_two_spellings_is_refused_on_both_sides(one: str, other: str) -> None:
    pair = [replace(PINS_7, id=f"0000{at}", leader=Address.parse(text)) for at, text in enumerate((one, other))]
    found = refused(*pair, OTHER)
    assert found.keys() == {"pins.00000", "pins.00001"}
    assert "pins.00001" in found["pins.00000"] and "pins.00000" in found["pins.00001"]
    assert "database pins_00007 of " in found["pins.00000"] and "Cure: " in found["pins.00000"]


def test_a_replica_of_another_shard_holds_that_shards_database() -> None:
    follower = Address("db-9.internal", 3306)
    follows = replace(PINS_7, replicas=(follower,))
    assert refused(follows, replace(PINS_7, id="00009", leader=follower)).keys() == {"pins.00007", "pins.00009"}
    elsewhere = replace(PINS_7, id="00009", leader=Address("db-1.internal", 3306), replicas=(follower,))
    assert refused(follows, elsewhere).keys() == {"pins.00007", "pins.00009"}


def test_other_databases_servers_and_ports_are_no_collision() -> None:
    port = replace(PINS_7, id="00009", leader=Address(PINS_7.leader.host, 3307))
    server = replace(PINS_7, id="00010", leader=Address("db-8.internal", 3306))
    # As most servers file it, another database: whether this one does, only it can tell.
    case = replace(PINS_7, id="00011", database="PINS_00007")
    assert refused(PINS_7, OTHER, port, server, case) == {}
    twice = replace(PINS_7, replicas=(PINS_7.leader,))
    assert refused(twice, OTHER) == {}


def test_a_dataset_may_accept_it() -> None:
    assert str(HazardKind.SHARED_DATABASE) == SHARED_DATABASE
    accepting = replace(PINS, accepted_hazards=(SHARED_DATABASE,))
    assert refused(PINS_7, replace(PINS_7, id="00009"), dataset=accepting) == {}


def test_a_strangers_dataset_on_the_same_database_switches_nobody_off() -> None:
    stranger = replace(PINS, name="other", credentials=own_secrets("other"))
    topology = Topology(
        datasets={"pins": PINS, "other": stranger},
        shards={"pins": (PINS_7,), "other": (replace(PINS_7, dataset="other"),)},
        clusters={"east": EAST},
    )
    assert problems(topology, PLAIN) == ()


def test_a_canonical_address_is_its_own() -> None:
    for text in ("db-1:3306", "10.0.0.7:3306", "[fd00::7]:3306"):
        assert str(canonical(Address.parse(text))) == text
