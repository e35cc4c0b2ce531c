"""What the doctor makes of what sources say, and what passes make of the doctor."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from cdc_platform.canonical.catalog import TableKind
from cdc_platform.errors import SourceUnavailable, TopologyError
from cdc_platform.model.source_facts import RetainedLog
from cdc_platform.model.topology import Engine, Table, Topology
from cdc_platform.planning.actions import CreateConnector
from cdc_platform.planning.doctor.examination import Examination, Lack
from cdc_platform.planning.doctor.kinds import Severity, check_accepted
from cdc_platform.planning.plan import Refusal
from cdc_platform.reconciler import run_pass as reconciler
from cdc_platform.reconciler.doctor import DoctorReport, examine, examine_chosen
from cdc_platform.reconciler.report import PassReport
from cdc_platform.reconciler.source_round import of_dataset
from cdc_platform.settings import Settings
from tests.reconciler.doctor.fakes import FakeExaminer
from tests.reconciler.harness import Harness, cluster, dataset, shards

PINS = dataset("pins", ("main",), tables=(Table(name="pins"), Table(name="boards")))
SETTINGS = Settings()

Change = Callable[[Examination], Examination]


def server(**fields: Any) -> Change:
    return lambda seen: replace(seen, server=replace(seen.server, **fields))


def settings(**values: str) -> Change:
    return lambda seen: replace(seen, server=replace(seen.server, settings={**seen.server.settings, **values}))


def role(**values: str) -> Change:
    return lambda seen: replace(seen, role_settings=values)


def of_pins(**fields: Any) -> Change:
    return lambda seen: replace(seen, tables={**seen.tables, "pins": replace(seen.tables["pins"], **fields)})


def unread(seen: Examination) -> Examination:
    """A user without the right to a table."""
    return replace(seen, rights=(Lack(what="SELECT on pins", cure="GRANT SELECT", table="pins"),))


def report(*changes: Change, engine: Engine = Engine.MARIADB, count: int = 3, **fields: Any) -> DoctorReport:
    """Of `count` shards, the first of which is changed."""

    def changed(seen: Examination) -> Examination:
        for change in changes:
            seen = change(seen)
        return seen

    own = replace(PINS, engine=engine, **fields)
    found = shards("pins", count)
    return examine(FakeExaminer({found[0].name: changed}), SETTINGS, [(own, shard) for shard in found])


def test_sound_sources_have_no_finding() -> None:
    for engine in Engine:
        found = report(engine=engine)
        assert found.is_healthy and found.findings == () and found.asked == 3


@pytest.mark.parametrize(
    ("change", "engine", "kind", "severity"),
    [
        (server(clock_s=-75.0), Engine.MARIADB, "clock", "warning"),
        (server(following=True), Engine.MYSQL, "leader-follows", "warning"),
        (server(following=True), Engine.POSTGRES, "leader-follows", "error"),
        (settings(max_slot_wal_keep_size="-1"), Engine.POSTGRES, "unbounded-log", "note"),
        (server(log=RetainedLog(bytes=9, written=9, seconds=3600)), Engine.MYSQL, "short-retention", "warning"),
        (server(log=RetainedLog(bytes=9, written=9, left=99)), Engine.MARIADB, "short-retention", "note"),
        (
            lambda seen: replace(seen, role_settings={"lock_timeout": "5s"}),
            Engine.POSTGRES,
            "session-limits",
            "warning",
        ),
        (
            lambda seen: replace(seen, role_settings={"default_transaction_read_only": "on"}),
            Engine.POSTGRES,
            "session-limits",
            "warning",
        ),
        (
            lambda seen: replace(seen, slot=RetainedLog(bytes=90, written=0, left=10)),
            Engine.POSTGRES,
            "log-filling",
            "warning",
        ),
        (lambda seen: replace(seen, encoding="SQL_ASCII"), Engine.POSTGRES, "unprovable-column", "warning"),
        (of_pins(kind=TableKind.FOREIGN), Engine.POSTGRES, "not-a-table", "warning"),
        (of_pins(kind=TableKind.PARTITIONED), Engine.POSTGRES, "partitioned-table", "warning"),
        (
            server(wrong_settings=(Lack(what="wal_level is replica", cure="c"),)),
            Engine.POSTGRES,
            "log-settings",
            "error",
        ),
    ],
)
def test_what_no_seeded_server_has_is_named_too(change: Change, engine: Engine, kind: str, severity: str) -> None:
    found = report(change, engine=engine)
    assert {(str(one.kind), str(one.severity)) for one in found.findings} == {(kind, severity)}
    assert found.is_healthy == (severity == "note")
    assert all(one.cure and "00000" in one.shards for one in found.findings)


def test_a_limit_of_zero_is_none() -> None:
    for value in ("0", "0ms", "0s"):
        assert report(role(statement_timeout=value), engine=Engine.POSTGRES).findings == ()


def test_without_compaction_a_table_without_key_is_a_warning() -> None:
    spec = replace(PINS.topics, config={"cleanup.policy": "delete"})
    for topics, severity in ((spec, Severity.WARNING), (PINS.topics, Severity.ERROR)):
        (found,) = report(of_pins(indexes=()), count=1, topics=topics).findings
        assert str(found.kind) == "no-key" and found.severity is severity and "ADD PRIMARY KEY" in found.cure


def test_equal_findings_are_one_and_the_topology_accepts_by_name_or_table() -> None:
    views = {f"pins.0000{n}": unread for n in range(3)}
    own = replace(PINS, accepted_hazards=("missing-right:boards", "clock"))
    pairs = [(own, shard) for shard in shards("pins", 4)]
    (found,) = examine(FakeExaminer(views), SETTINGS, pairs).findings
    assert found.shards == ("00000", "00001", "00002") and not found.accepted
    assert "3 shards" in found.sentence() and found.table == "pins"
    accepting = [(replace(own, accepted_hazards=("missing-right:pins",)), shard) for _, shard in pairs]
    accepted = examine(FakeExaminer(views), SETTINGS, accepting)
    assert accepted.is_healthy and [one.accepted for one in accepted.findings] == [True]


def test_what_is_accepted_must_exist() -> None:
    check_accepted(replace(PINS, accepted_hazards=("cascade", "no-key:pins")), "f")
    for wrong in ("casade", "no-key:pin"):
        with pytest.raises(TopologyError, match="is not a finding"):
            check_accepted(replace(PINS, accepted_hazards=(wrong,)), "f")


def test_only_the_tables_and_shards_that_are_named_are_told() -> None:
    topology = Topology(datasets={"pins": PINS}, shards={"pins": shards("pins", 4)}, clusters={})
    examiner = FakeExaminer({f"pins.0000{n}": unread for n in range(4)})
    assert examine_chosen(examiner, SETTINGS, topology, "pins", ["boards"]).findings == ()
    (found,) = examine_chosen(examiner, SETTINGS, topology, "pins", ["pins"], ["0-1"]).findings
    assert found.shards == ("00000", "00001")
    with pytest.raises(TopologyError, match="of a dataset"):
        examine_chosen(examiner, SETTINGS, topology, None, ["pins"])
    with pytest.raises(TopologyError, match="no table"):
        examine_chosen(examiner, SETTINGS, topology, "pins", ["pin"])


def test_who_does_not_answer_is_named_and_the_others_are_examined() -> None:
    away = SourceUnavailable("it is away.", where="db-1")
    examiner = FakeExaminer({"pins.00001": unread}, {"pins.00000": away})
    found = examine(examiner, SETTINGS, [(PINS, shard) for shard in shards("pins", 2)])
    assert found.unanswered == {"pins.00000": away} and [str(one.kind) for one in found.findings] == ["missing-right"]


def test_a_thousand_shards_take_a_tenth_of_a_minutes_share() -> None:
    found = shards("pins", 1_000)
    examiner = FakeExaminer({shard.name: unread for shard in found[::2]})
    began = time.process_time()
    done = examine(examiner, SETTINGS, [(PINS, shard) for shard in found])
    assert time.process_time() - began < 6, "10,000 in less than 60 s"
    assert done.asked == 1_000 and [len(one.shards) for one in done.findings] == [500]


class World(Harness):
    """Shards without connectors; what the doctor finds is asked for before one is created."""

    def __init__(self, examiner: FakeExaminer, count: int = 3, **fields: Any) -> None:
        super().__init__("main")
        self.examiner = examiner
        topology = Topology(
            datasets={"pins": replace(PINS, **fields)},
            shards={"pins": shards("pins", count)},
            clusters={"main": cluster("main")},
        )
        self.put(topology)

    def go(self) -> PassReport:
        platform = replace(self.control_plane(), examiner=self.examiner)
        return reconciler.reconcile(platform, owner="test", asked=of_dataset(None))


def created(found: PassReport) -> list[str]:
    return [one.name for one in found.plan.actions if isinstance(one, CreateConnector)]


def test_no_connector_is_created_over_an_error_and_the_plan_says_why() -> None:
    world = World(FakeExaminer({"pins.00001": unread, "pins.00002": server(clock_s=90.0)}))
    found = world.go()
    assert created(found) == ["pins.00000", "pins.00002"] and found.failed == ()
    (refusal,) = found.plan.refusals
    assert refusal == Refusal(scope="pins.00001", reason=refusal.reason)
    assert "missing-right: table pins: the user cdc lacks SELECT on pins (GRANT SELECT)" in refusal.reason
    assert any("clock" in one.text for one in found.plan.findings)
    assert world.running("pins.00001") == []
    # Once it is cured the next pass creates it; nobody else is asked again.
    world.examiner = FakeExaminer()
    assert created(world.go()) == ["pins.00001"] and world.examiner.asked == ["pins.00001"]


def test_a_table_that_is_left_out_costs_no_connector() -> None:
    def left_out(seen: Examination) -> Examination:
        return replace(seen, unfit=(Lack(what="it is not logged", cure="c", table="pins"),))

    found = World(FakeExaminer({"pins.00001": left_out})).go()
    assert len(created(found)) == 3 and found.plan.refusals == ()
    assert any("left-out-table" in one.text for one in found.plan.findings)


def test_an_accepted_error_is_on_record_and_creates() -> None:
    broken = FakeExaminer({"pins.00001": unread})
    found = World(broken, accepted_hazards=("missing-right:pins",)).go()
    assert len(created(found)) == 3 and found.plan.refusals == ()
    assert any("missing-right, accepted" in one.text for one in found.plan.findings)


def test_a_source_that_does_not_answer_is_connects_matter() -> None:
    found = World(FakeExaminer(silent={"pins.00000": SourceUnavailable("away.")})).go()
    assert len(created(found)) == 3 and found.plan.refusals == ()


def test_a_shard_that_was_captured_gets_its_connector_back_whatever_the_doctor_says() -> None:
    world = World(FakeExaminer())
    assert len(created(world.go())) == 3
    world.go()
    world.connect["main"].delete("pins.00000")
    world.examiner = FakeExaminer({"pins.00000": unread})
    found = world.go()
    assert created(found) == ["pins.00000"] and found.plan.refusals == () and world.examiner.asked == []


def test_shards_that_differ_and_share_are_told_beside_each_other() -> None:
    def narrow(seen: Examination) -> Examination:
        short = replace(seen.tables["pins"], columns=seen.tables["pins"].columns[:1])
        # Where the second shard is.
        there = replace(seen.server, identity="db-1:3306")
        return replace(seen, tables={**seen.tables, "pins": short}, database="pins_00001", server=there)

    found = report(narrow)
    kinds = {str(one.kind): one for one in found.findings}
    assert kinds.keys() == {"shards-differ", "shared-database"}
    assert kinds["shards-differ"].shards == ("00000",) and "column v is missing" in kinds["shards-differ"].text
    assert "ADD COLUMN `v` int" in kinds["shards-differ"].cure
    assert kinds["shared-database"].shards == ("00000", "00001")
