"""A hostile author of a dataset, all the way from the file to the plan that a pass would apply.

CDC_TEST_AUTHORS=100000 has so many of them (`--hypothesis-seed=N` for others than the last time).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.security.attacks.hostile_authors import Author, assert_gets_nothing_of_others, authors

TRIES = int(os.environ.get("CDC_TEST_AUTHORS", "300"))
# Of those that are made at random, so many at least come all the way to a connector.
LEAST = 0.05
HONEST = {
    "engine": "mariadb",
    "tables": ["t"],
    "clusters": ["main"],
    "credentials": {
        "user": "${file:/run/secrets/pins/s.properties:u}",
        "password": "${file:/run/secrets/pins/s.properties:p}",
    },
    "connector": {"producer.override.linger.ms": "1"},
    "shards": {"00000": {"leader": "db-1:3306", "database": "pins"}},
}


@pytest.mark.timeout(120 + TRIES // 10)
def test_an_author_gets_nothing_of_others(tmp_path: Path) -> None:
    """No value that is not theirs, no class, no file, no config provider, no topic and no host of others."""
    file = tmp_path / "topology.yaml"
    outcomes: list[bool] = []

    @settings(
        max_examples=TRIES,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(author=authors)
    def attack(author: Author) -> None:
        outcomes.append(assert_gets_nothing_of_others(author, file))

    attack()
    assert sum(outcomes) >= LEAST * len(outcomes), f"{sum(outcomes)} of {len(outcomes)} came all the way"


def test_an_honest_author_comes_all_the_way(tmp_path: Path) -> None:
    assert assert_gets_nothing_of_others(Author(HONEST, "v = 1"), tmp_path / "topology.yaml")


@pytest.mark.parametrize(
    "change",
    [
        {"connector": {"producer.override.config.providers": "x"}},
        {"connector": {"driver.socketFactory": "org.evil.Klass"}},
        {"credentials": {"user": "${env:HOME}", "password": "${env:HOME}"}},
        {"topic_pattern": "payments{dataset}{table}"},
        {"topic_pattern": "shared.{dataset}.{table}"},
        {"shards": {"00000": {"leader": "evil.example:3306", "database": "pins"}}},
    ],
    ids=str,
)
def test_what_is_refused_costs_the_author_only(tmp_path: Path, change: dict[str, object]) -> None:
    assert not assert_gets_nothing_of_others(Author({**HONEST, **change}, "v = 1"), tmp_path / "topology.yaml")
