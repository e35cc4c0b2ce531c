"""What stands around assets: source tables, links, groups, advice and the Launchpad of repair."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import dagster as dg
import pytest

from cdc_platform.defs import CdcPlatformComponent, build_cdc_jobs
from cdc_platform.defs.check_suites import DEFAULT
from cdc_platform.defs.checks import Judged, judge_table
from cdc_platform.defs.launchpad_links import CodePlace, repair_link
from cdc_platform.defs.metadata import health_report, table_sentence
from cdc_platform.defs.names import Names
from cdc_platform.defs.translator import group_of, table_props
from cdc_platform.errors import BadInput
from cdc_platform.model.observed import TopicExtent
from cdc_platform.planning.plan import Plan
from cdc_platform.reconciler.report import DatasetHealth, PassReport, ShardDown
from cdc_platform.verification.audit_frame import AuditFrame
from cdc_platform.verification.proof.verdicts import Verdict
from tests.defs.harness import Harness, HarnessResource, topology
from tests.defs.test_check_suites import verdict

PINS = dg.AssetKey(["cdc", "pins", "pins"])
PLACE = CodePlace("http://dagster:3000", "__repository__", "my location")


def spec_of(resource: HarnessResource, **attributes: Any) -> dg.AssetSpec:
    defs = dg.build_defs_for_component(CdcPlatformComponent(platform=resource, **attributes))
    dg.Definitions.validate_loadable(defs)
    return next(spec for spec in defs.resolve_all_asset_specs() if spec.key == PINS)


def test_a_source_table_stands_upstream_of_its_topic_beside_the_shards(resource: HarnessResource) -> None:
    spec = spec_of(resource, sources="mariadb/{dataset}/{table}")
    assert {dep.asset_key.to_user_string() for dep in spec.deps} == {"mariadb/pins/pins", "cdc/pins/shards"}
    assert {dep.asset_key.to_user_string() for dep in spec_of(resource).deps} == {"cdc/pins/shards"}


def test_links_are_filled_in_for_each_table(resource: HarnessResource) -> None:
    spec = spec_of(resource, links={"kafka_ui": "https://akhq/topic/{topic}", "runbook": "https://wiki/cdc"})
    assert spec.metadata["kafka_ui"] == dg.MetadataValue.url("https://akhq/topic/cdc.pins.pins")
    assert spec.metadata["runbook"] == dg.MetadataValue.url("https://wiki/cdc")


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({"sources": "db/{dataset_name}"}, "sources: {dataset_name} is not known"),
        ({"links": {"ui": "https://x/{topik}"}}, "links.ui: {topik} is not known"),
        ({"sources": "db/{"}, "is not a pattern"),
        ({"sources": "db/{}"}, "is not a pattern"),
        ({"sources": "db/{table.nothing}"}, "is not a pattern"),
    ],
)
def test_a_wrong_pattern_is_one_clear_error(resource: HarnessResource, attributes: dict[str, Any], text: str) -> None:
    with pytest.raises(BadInput) as caught:
        spec_of(resource, **attributes)
    assert text in str(caught.value)


def test_groups_are_below_the_platform_where_dagster_takes_that(monkeypatch: pytest.MonkeyPatch) -> None:
    group_of.cache_clear()
    assert group_of("cdc", "pins") in ("cdc/pins", "pins")
    group_of.cache_clear()

    def refused(*_: object, **__: object) -> None:
        raise dg.DagsterInvalidDefinitionError("no slash")

    monkeypatch.setattr(dg, "AssetSpec", refused)
    assert group_of("cdc", "pins") == "pins"
    group_of.cache_clear()


def linked(text: str) -> tuple[str, dict[str, Any]]:
    """The path of a Markdown link and the config that it opens with."""
    address = urlsplit(text.partition("](")[2].rstrip(")"))
    return unquote(address.path), json.loads(parse_qs(address.query)["config"][0])


def test_the_link_opens_repair_with_a_config_that_the_job_takes() -> None:
    path, config = linked(repair_link(PLACE, Names("cdc"), "pins", "boards", ["00001"]))
    assert path == "/locations/__repository__@my location/jobs/cdc_repair/playground/setup"
    assert config["ops"]["plan_repair"]["config"]["shards"] == ["00001"]
    assert config["ops"]["plan_repair"]["config"]["apply"] is False
    assert dg.validate_run_config(build_cdc_jobs().repair, config)


def test_a_long_list_of_shards_is_left_to_the_job() -> None:
    text = repair_link(PLACE, Names("eu"), "pins", "pins", [f"{n:05d}" for n in range(1000)])
    path, config = linked(text)
    assert path.endswith("/jobs/eu_repair/playground/setup") and len(text) < 1000
    assert config["ops"]["eu_plan_repair"]["config"]["shards"] == []


def test_a_run_that_no_code_location_launched_has_no_link() -> None:
    assert CodePlace.of(SimpleNamespace(remote_job_origin=None), "") is None  # type: ignore[arg-type]


def judged(harness: Harness) -> dict[str, dg.AssetCheckResult]:
    props = next(one for one in table_props(topology(), platform="cdc") if one.table == "pins")
    with harness.platform() as clients:
        table = Judged(PINS, props, DEFAULT.of(["complete", "shard_count"]), place=PLACE)
        found = judge_table(clients, clients.topology.load(), table, "run", print)
        return {str(one.check_name): one for one in found}


def test_advice_is_filled_in_and_only_on_a_check_that_fails(harness: Harness) -> None:
    now = datetime.now(UTC)
    frame = AuditFrame(harness.settings.audit_dir)
    frame.write([verdict("00000", Verdict.MISMATCHED), verdict("00001"), verdict("00002")])
    found = judged(harness)
    failing, passing = found["complete"].metadata or {}, found["shard_count"].metadata or {}
    assert "repair pins --table pins`" in str(failing["advice"])
    assert linked(str(failing["repair"].value))[1]["ops"]["plan_repair"]["config"]["shards"] == ["00000"]
    assert not {"advice", "repair", "owner", "heat_map"} & passing.keys()
    frame.write([verdict("00000", checked_at=now)])
    assert not {"advice", "repair"} & (judged(harness)["complete"].metadata or {}).keys()


def test_no_advice_of_the_default_suite_has_a_placeholder_left(harness: Harness) -> None:
    for item in DEFAULT.expectations:
        text = item.advice.replace("{dataset}", "pins").replace("{table}", "pins")
        assert "{" not in text and not {"DATASET", "TABLE", "RUN"} & set(text.split())


def health(*down: ShardDown) -> DatasetHealth:
    return DatasetHealth(dataset="pins", shards=3, up=3 - len(down), down=down)


DOWN = ShardDown(shard="pins.00001", state="FAILED", reason="Connect says FAILED")


def test_a_table_is_described_in_words() -> None:
    extent = TopicExtent(begin=0, end=12345, newest=None)
    assert table_sentence(health(DOWN), [1.0, 3.4], extent) == (
        "2 of 3 shards up (pins.00001 FAILED), at most 3 s behind the source, 12,345 events so far."
    )
    assert table_sentence(None, [], None) == "How its shards are is not known."


def report(*down: ShardDown) -> PassReport:
    return PassReport(
        generation=1, taken_at=datetime.now(UTC), plan=Plan(), outcomes=(), health={"pins": health(*down)},
        captured=(), number=1,
    )  # fmt: skip


def test_the_health_report_groups_troubles_by_cause() -> None:
    other = ShardDown(shard="pins.00002", state="FAILED", reason="Connect says FAILED")
    text = health_report(report(DOWN, other))
    assert text.startswith("**1 of 3 shards up** in 1 datasets.")
    assert "- 2 shards (pins.00001, pins.00002): Connect says FAILED" in text.replace("\\", "")
    assert "No trouble is known." in health_report(report())
