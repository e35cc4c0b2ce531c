"""The Grafana dashboard and the Prometheus rules ask for what the exporter really serves: names and labels."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from cdc_platform.monitoring.exporter import registry
from tests.surface.documents import store

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "cdc-platform.json").read_text())
RULES = yaml.safe_load((DEPLOY / "prometheus" / "cdc-rules.yml").read_text())


@pytest.fixture(scope="module")
def served() -> dict[str, set[str]]:
    """Name of each sample that a scrape gives, with its labels."""
    found: dict[str, set[str]] = defaultdict(set)
    for family in text_string_to_metric_families(generate_latest(registry(store())).decode()):
        for sample in family.samples:
            found[sample.name] |= set(sample.labels)
    return found


def queries() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for group in RULES["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


@pytest.mark.parametrize(("title", "expression"), list(queries()), ids=lambda text: text[:40])
def test_each_query_asks_for_samples_and_labels_that_a_scrape_has(
    title: str, expression: str, served: dict[str, set[str]]
) -> None:
    asked = re.findall(r"\b(cdc_\w+)(?:\{([^}]*)\})?", expression)
    assert asked, title
    for name, matchers in asked:
        assert name in served, f"{title}: nothing serves {name}"
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        assert labels <= served[name], f"{title}: {name} has no {labels - served[name]}"
    for grouped in re.findall(r"\bby \(([^)]*)\)", expression):
        labels = {label.strip() for label in grouped.split(",")}
        assert labels <= set().union(*(served[name] for name, _ in asked)), title


def test_legends_name_labels_that_are_there(served: dict[str, set[str]]) -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            (name, *_) = re.findall(r"\b(cdc_\w+)", target["expr"])
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= served[name], panel["title"]


def test_panels_are_named_once_and_do_not_overlap() -> None:
    titles = [panel["title"] for panel in DASHBOARD["panels"]]
    assert len(set(titles)) == len(titles) == len({panel["id"] for panel in DASHBOARD["panels"]})
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells) and max(x for x, _ in cells) < 24
