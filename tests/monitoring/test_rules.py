"""The Prometheus rules ask for what the exporter really says, by labels and values that it really has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from cdc_platform.monitoring.exporter import registry
from cdc_platform.planning.health.source_hazard_kinds import KINDS
from tests.surface.documents import store

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "cdc-rules.yml"


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_each_metric_and_label_of_a_rule_is_the_exporters() -> None:
    labels = {one.name: set(one.labels) for family in registry(store()).collect() for one in family.samples}
    for rule in rules():
        (metric,) = set(re.findall(r"cdc_\w+", rule["expr"]))
        used = re.findall(r"(\w+)[=!]", rule["expr"].partition("{")[2].partition("}")[0])
        used += re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])
        used += [name.strip() for by in re.findall(r"by \((.*?)\)", rule["expr"]) for name in by.split(",")]
        assert set(used) <= labels[metric], rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical")


def test_hazards_are_as_bad_in_the_rules_as_in_the_alerts() -> None:
    by_alert = {rule["alert"]: rule["expr"] for rule in rules()}
    lost = {str(kind) for kind, facts in KINDS.items() if facts.loses}
    quiet = {str(kind) for kind, facts in KINDS.items() if not facts.alerts}
    assert set(re.findall(r'kind=~"(.*?)"', by_alert["CdcChangesLost"])[0].split("|")) == lost
    assert set(re.findall(r'kind!~"(.*?)"', by_alert["CdcSourceHazard"])[0].split("|")) == lost | quiet
