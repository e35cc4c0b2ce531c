"""What sources say every few minutes: asked gently, recorded, planned from, alerted and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from prometheus_client import generate_latest

from cdc_platform.alerting.conditions import recorded_conditions
from cdc_platform.clients.platform import Platform
from cdc_platform.clients.sources.source_facts import Answers
from cdc_platform.connectors.identity import Identity
from cdc_platform.connectors.tables import INCLUDE_LIST
from cdc_platform.errors import SourceUnavailable
from cdc_platform.model.alert_messages import Severity
from cdc_platform.model.source_facts import LogFile, RetainedLog, SourceFacts, SourceTable, Unfit
from cdc_platform.model.source_log import SourceLog, WhenFull
from cdc_platform.model.topology import Dataset, Engine, Shard, Table, Topology
from cdc_platform.monitoring.exporter import registry
from cdc_platform.planning.actions import CreateConnector, GiveUpSlot, PublishTables, ResumeConnector, UpdateConnector
from cdc_platform.planning.doctor.examination import Lack
from cdc_platform.planning.health.source_hazard_kinds import HazardKind
from cdc_platform.planning.health.source_hazards import SourceRecord
from cdc_platform.reconciler import run_pass as reconciler
from cdc_platform.reconciler.report import PassReport
from cdc_platform.reconciler.source_round import ROUND, of_dataset, when_due
from cdc_platform.reconciler.state_records import read_memory
from cdc_platform.testing.state_topic import FakeStateStore
from cdc_platform.verification.continuity.breaks import BreakKind, unproven_of
from cdc_platform.verification.continuity.ledger import breaks_on_record
from tests.reconciler.doctor.fakes import FakeExaminer
from tests.reconciler.harness import Harness, cluster, dataset, shards
from tests.reconciler.test_publishing import Sources

ORDERS = dataset("o", ("main",), engine=Engine.POSTGRES, tables=(Table(name="t"), Table(name="w")))
WHOLE = SourceFacts(tables={"t": SourceTable(number=1), "w": SourceTable(number=2)})
LACKS_T = replace(WHOLE, tables={**WHOLE.tables, "t": SourceTable(number=1, published=False)})
MARK = {"mode": "incremental", "run": "r", "position": "1", "offset": {}, "since": "2030-01-01T00:00:00+00:00"}


@dataclass
class Facts:
    """Servers that say this of their shards; those that are not in `said` do not answer. `asked` are the questions."""

    said: dict[str, SourceFacts]
    asked: list[Sequence[str]] = field(default_factory=list)

    def read(self, dataset: Dataset, shards: Sequence[tuple[Shard, Identity]]) -> Answers:
        assert len({shard.leader for shard, _ in shards}) == 1
        self.asked.append([shard.name for shard, _ in shards])
        return {shard.name: self.said.get(shard.name, SourceUnavailable("away.")) for shard, _ in shards}


class World(Harness):
    """Two captured shards of one dataset, whose sources say that all is well."""

    def __init__(self, count: int = 2) -> None:
        super().__init__("main")
        self.put(Topology(datasets={"o": ORDERS}, shards={"o": shards("o", count)}, clusters={"main": cluster("main")}))
        self.facts = Facts({f"o.{n:05d}": WHOLE for n in range(count)})
        self.sources = Sources()
        for _ in range(2):
            self.go()

    def platform(self) -> Platform:
        return replace(self.control_plane(), facts=self.facts, sources=self.sources)  # type: ignore[arg-type]

    def go(self, **more: Any) -> PassReport:
        return reconciler.reconcile(self.platform(), owner="test", **{"asked": of_dataset(None), **more})

    def write(self, records: Mapping[str, Any]) -> None:
        store = FakeStateStore(self.topic)
        store.claim(10_000)
        store.write(records)
        self.topic.generation = None

    def record(self, shard: str = "o.00000") -> SourceRecord | None:
        return read_memory(self.records()).of(SourceRecord).get(shard)


def actions(report: PassReport) -> list[type]:
    return [type(action) for action in report.plan.actions]


def test_a_table_that_left_its_publication_is_published_by_the_pass_that_finds_it_and_told() -> None:
    world = World()
    world.write({f"watermark/o/{table}/00000": {**MARK, "complete": MARK["since"]} for table in ("t", "w")})
    world.facts.said["o.00000"] = LACKS_T
    report = world.go()
    assert actions(report) == [PublishTables] and report.failed == ()
    assert world.sources.asked[-1] == ("00000", ("t", "w"))
    assert [(down.shard, down.state) for down in report.health["o"].down] == [("o.00000", "INCOMPLETE")]
    assert any("the publication lacks public.t" in finding.text for finding in report.plan.findings)
    records = world.records()
    assert records["watermark/o/t/00000"]["complete"] is None and records["watermark/o/t/00000"]["hole"]["until"]
    assert records["watermark/o/w/00000"]["complete"] == MARK["since"]
    text = generate_latest(registry(FakeStateStore(world.topic))).decode()
    assert 'cdc_source_hazards{dataset="o",kind="unpublished-table"} 1.0' in text and "cdc_sources_asked 2.0" in text

    # Done once: the next pass waits for what the source says.
    assert actions(world.go(asked=when_due)) == []
    world.facts.said["o.00000"] = WHOLE
    assert world.go().health["o"].down == ()
    record = world.record()
    assert record is not None and record.hazards == () and [gap.table for gap in record.gaps] == ["t"]


def test_a_publication_that_withholds_rows_is_mended_by_the_pass_that_finds_it() -> None:
    world = World()
    withheld = {**WHOLE.tables, "t": SourceTable(number=1, withheld="rows")}
    world.facts.said["o.00000"] = replace(WHOLE, tables=withheld)
    report = world.go()
    assert actions(report) == [PublishTables] and report.failed == ()
    assert "withholds changes of public.t (rows)" in report.health["o"].down[0].reason
    assert breaks_on_record(world.records(), "o", "t")["00000"]


def test_lost_changes_are_a_break_of_the_ledger_until_a_later_proof() -> None:
    world = World()
    world.facts.said["o.00000"] = LACKS_T
    world.go()
    during = datetime.now(UTC)
    world.facts.said["o.00000"] = WHOLE
    world.go()
    (found,) = breaks_on_record(world.records(), "o", "t")["00000"]
    assert found.kind is BreakKind.NOT_CAPTURED and "public.t" in found.sentence()
    assert unproven_of([found], during) and not unproven_of([found], datetime.now(UTC) + timedelta(seconds=1))
    assert breaks_on_record(world.records(), "o", "w") == {}


def test_a_table_that_took_anothers_name_is_a_break_also_where_all_tables_are_published() -> None:
    world = World()
    world.facts.said["o.00000"] = replace(WHOLE, tables={"t": SourceTable(number=7), "w": SourceTable(number=2)})
    assert actions(world.go()) == []
    (found,) = breaks_on_record(world.records(), "o", "t")["00000"]
    assert "another table took the name t" in found.range


def test_what_a_pass_may_not_publish_is_named_with_its_cure_and_not_tried() -> None:
    world = World()
    world.facts.said["o.00000"] = replace(LACKS_T, unpublishable="The connector's user must own public.t.")
    report = world.go()
    assert actions(report) == []
    assert "must own public.t" in report.health["o"].down[0].reason


def test_a_failed_publish_is_tried_again() -> None:
    world = World()
    world.facts.said["o.00000"] = LACKS_T
    world.sources.refused = {"00000": "t"}
    assert [outcome.action.kind.verb for outcome in world.go().failed] == ["publish tables"]
    world.sources.refused = {}
    assert actions(world.go(asked=when_due)) == [PublishTables]


def test_sources_are_asked_by_server_and_once_in_a_round() -> None:
    world = World(6)
    world.facts.asked.clear()
    world.go()
    assert sorted(map(len, world.facts.asked)) == [2, 2, 2]  # three servers
    world.go(asked=when_due)
    assert len(world.facts.asked) == 3
    asked = world.records()["sources/last"]["at"]
    world.write({"sources/last": {**world.records()["sources/last"], "at": str(datetime.fromisoformat(asked) - ROUND)}})
    world.go(asked=when_due)
    assert len(world.facts.asked) == 6


def test_a_source_that_does_not_answer_keeps_what_was_found() -> None:
    world = World()
    world.facts.said["o.00000"] = replace(LACKS_T, unpublishable="no.")
    world.go()
    before = world.record()
    del world.facts.said["o.00000"]
    assert world.go().health["o"].down[0].state == "INCOMPLETE"
    assert world.record() == before and world.records()["sources/last"]["unanswered"] == 1


def test_a_shard_that_never_ran_has_no_gap_and_lacks_no_publication() -> None:
    world = World(1)
    world.put(Topology(datasets={"o": ORDERS}, shards={"o": shards("o", 2)}, clusters={"main": cluster("main")}))
    world.facts.said["o.00001"] = replace(LACKS_T, publication=False)
    report = world.go()
    assert CreateConnector in actions(report) and PublishTables not in actions(report)
    assert world.record("o.00001") is None


def test_a_hazard_of_a_shard_that_never_ran_is_recorded() -> None:
    world = World(1)
    world.put(Topology(datasets={"o": ORDERS}, shards={"o": shards("o", 2)}, clusters={"main": cluster("main")}))
    world.facts.said["o.00001"] = replace(WHOLE, tables={"t": SourceTable(unreadable=("it is odd",))})
    world.go()
    record = world.record("o.00001")
    assert record is not None and HazardKind.LEFT_OUT in {hazard.kind for hazard in record.hazards}


UNFIT = SourceTable(number=2, unfit=Unfit(why="it has no primary key", cure="ALTER TABLE w REPLICA IDENTITY FULL"))


def configs(report: PassReport) -> dict[str, str]:
    """Shard to the tables that the report's plan has its connector capture."""
    changed = [action for action in report.plan.actions if isinstance(action, CreateConnector | UpdateConnector)]
    return {
        action.name: action.config[INCLUDE_LIST].replace("(?-i:public\\.", "").replace(")", "") for action in changed
    }


def test_an_unfit_table_is_left_out_of_a_new_shard_and_captured_once_it_is_cured() -> None:
    world = World(1)
    world.put(Topology(datasets={"o": ORDERS}, shards={"o": shards("o", 2)}, clusters={"main": cluster("main")}))
    world.facts.said["o.00001"] = replace(WHOLE, tables={**WHOLE.tables, "w": UNFIT})
    report = world.go(asked=when_due)  # the round is not due: a shard without a connector is asked all the same
    assert configs(report) == {"o.00001": "t"} and world.facts.asked[-1] == ["o.00001"]
    assert any("public.w is not captured: it has no primary key" in finding.text for finding in report.plan.findings)
    assert world.go().plan.actions == ()
    (hazard,) = world.record("o.00001").hazards  # type: ignore[union-attr]
    assert (hazard.kind, hazard.table) == (HazardKind.LEFT_OUT, "w")
    world.facts.said["o.00001"] = WHOLE
    assert configs(world.go()) == {"o.00001": "t,w"}
    record = world.record("o.00001")
    assert record is not None and not record.left_out and [gap.table for gap in record.gaps] == ["w"]


def test_a_shard_that_stays_new_puts_off_no_round_of_the_others() -> None:
    world = World()
    found = shards("o", 3)
    world.put(Topology(datasets={"o": ORDERS}, shards={"o": found}, clusters={"main": cluster("main")}))
    world.sources.refused = {"00002": "t"}  # it gets no connector
    before = world.records()["sources/last"]
    world.go(asked=when_due)
    assert world.facts.asked[-1] == ["o.00002"]
    assert world.records()["sources/last"] == before
    past = datetime.fromisoformat(before["at"]) - ROUND
    world.write({"sources/last": {**before, "at": str(past)}})
    world.facts.asked.clear()
    world.go(asked=when_due)
    assert sorted(name for group in world.facts.asked for name in group) == [shard.name for shard in found]


def test_a_new_shard_is_asked_once_for_what_is_left_out_and_for_what_the_doctor_says() -> None:
    world = World(1)
    world.put(Topology(datasets={"o": ORDERS}, shards={"o": shards("o", 3)}, clusters={"main": cluster("main")}))
    lacks = Lack(what="it has no primary key", cure="ALTER TABLE w ADD PRIMARY KEY", table="w")
    server = Lack(what="wal_level is replica", cure="ALTER SYSTEM SET wal_level = logical")
    examiner = FakeExaminer(
        {
            "o.00001": lambda seen: replace(seen, unfit=(lacks,)),
            "o.00002": lambda seen: replace(seen, server=replace(seen.server, wrong_settings=(server,))),
        }
    )
    world.facts.asked.clear()
    platform = replace(world.platform(), examiner=examiner)
    report = reconciler.reconcile(platform, owner="test", asked=of_dataset(None))
    assert sorted(examiner.asked) == ["o.00001", "o.00002"] and world.facts.asked == [["o.00000"]]
    assert configs(report) == {"o.00001": "t"}
    assert any("public.w is not captured: it has no primary key" in finding.text for finding in report.plan.findings)
    assert ["wal_level is replica" in refusal.reason for refusal in report.plan.refusals] == [True]
    # Where it is, is known, too: two shards must not read one database.
    found = world.record("o.00001")
    assert found is not None and found.place == f"{shards('o', 3)[1].leader}/{shards('o', 3)[1].database}"
    # Nor is it by a pass between two rounds.
    examiner.asked.clear()
    reconciler.reconcile(platform, owner="test", asked=when_due)
    assert examiner.asked == ["o.00002"] and world.facts.asked == [["o.00000"]]


def test_a_table_that_is_captured_already_stays_so_when_it_becomes_unfit() -> None:
    world = World()
    world.facts.said["o.00000"] = replace(WHOLE, tables={**WHOLE.tables, "w": UNFIT})
    report = world.go()
    assert report.plan.actions == ()
    record = world.record()
    assert record is not None and not record.left_out and [h.kind for h in record.hazards] == [HazardKind.UNFIT]


def test_a_shard_with_no_fit_table_at_all_keeps_them_and_is_refused_as_a_whole() -> None:
    world = World(1)
    world.put(Topology(datasets={"o": ORDERS}, shards={"o": shards("o", 2)}, clusters={"main": cluster("main")}))
    world.facts.said["o.00001"] = SourceFacts(tables={"t": UNFIT, "w": UNFIT})
    assert configs(world.go()) == {"o.00001": "t,w"}


def test_a_slot_is_given_up_before_it_is_full_where_the_topology_says_so() -> None:
    world = World()
    log = RetainedLog(bytes=95 << 20, written=1 << 40, state="extended")
    world.facts.said["o.00000"] = replace(WHOLE, log=log)
    assert actions(world.go()) == []  # by default nothing is given up, nor is a bound known
    guarded = replace(ORDERS, source_log=SourceLog(full_bytes=100 << 20, when_full=WhenFull.GIVE_UP_SLOT))
    world.put(Topology(datasets={"o": guarded}))
    report = world.go()
    assert actions(report) == [GiveUpSlot] and not report.failed and world.sources.dropped == ["00000"]
    assert "95 MiB" in report.outcomes[0].sentence() and "is lost" in report.outcomes[0].sentence()
    (found,) = breaks_on_record(world.records(), "o", "t")["00000"]
    assert "given up" in found.range and breaks_on_record(world.records(), "o", "w")["00000"]
    world.facts.said["o.00000"] = WHOLE
    assert actions(world.go()) == [ResumeConnector]
    assert world.records()["sources/last"]["logs"] == {}


def test_a_slot_that_is_gone_is_a_loss_that_is_told_and_a_break_of_the_ledger() -> None:
    world = World()
    world.facts.said["o.00000"] = replace(WHOLE, slotless=True)
    report = world.go()
    assert [(down.shard, down.state) for down in report.health["o"].down] == [("o.00000", "INCOMPLETE")]
    assert "no slot" in report.health["o"].down[0].reason and "--again" in report.health["o"].down[0].reason
    assert {name for name in ("t", "w") if breaks_on_record(world.records(), "o", name)} == {"t", "w"}
    world.facts.said["o.00000"] = WHOLE
    assert world.go().health["o"].down == ()
    assert breaks_on_record(world.records(), "o", "t")["00000"]  # until a proof


def test_binlogs_that_were_purged_before_the_connector_read_them_are_told() -> None:
    world = World()
    binlog = replace(ORDERS, engine=Engine.MARIADB, tables=(Table(name="t"), Table(name="w")))
    world.put(Topology(datasets={"o": binlog}))
    log = RetainedLog(bytes=1 << 20, written=1 << 30, begins=(LogFile("b.000003", "0-1-50"),))
    world.facts.said = {name: replace(WHOLE, log=log) for name in world.facts.said}
    world.go()
    for name, gtids in (("o.00000", "0-1-49"), ("o.00001", "0-1-50")):
        world.connect["main"].stop(name)
        world.connect["main"].alter_offsets(name, [{"partition": {"server": name}, "offset": {"gtids": gtids}}])
    (down,) = world.go().health["o"].down
    assert (down.shard, down.state) == ("o.00000", "INCOMPLETE") and "b.000003" in down.reason


def test_hazards_are_alerted_by_how_bad_they_are() -> None:
    world = World()
    said = replace(LACKS_T, tables={**LACKS_T.tables, "w": SourceTable(cascades=("k",), unreadable=("it is odd",))})
    world.facts.said["o.00000"] = said
    world.go()
    topology = world.control_plane().topology.load()
    found = recorded_conditions(world.records(), topology, world.settings, datetime.now(UTC), timedelta())
    by_kind = {key.split("/")[1]: condition for key, condition in found.items() if key.startswith("source/")}
    assert by_kind[str(HazardKind.UNPUBLISHED)].severity is Severity.CRITICAL
    assert by_kind[str(HazardKind.UNREADABLE)].severity is Severity.WARNING
    assert str(HazardKind.CASCADE) not in by_kind
