"""An engine's module holds the engine's facts: all that is needed is there, and nowhere else is a class named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import cdc_platform
from cdc_platform.connectors.engines.registry import ENGINES, FIXED
from cdc_platform.model.topology import Engine, Limits
from cdc_platform.planning.health.liveness import LivenessPolicy

PACKAGE = Path(cdc_platform.__file__).parent


def test_every_engine_is_registered_once() -> None:
    assert set(ENGINES) == set(Engine)
    assert all(facts.engine is engine for engine, facts in ENGINES.items())
    assert len({facts.connector_class for facts in ENGINES.values()}) == len(Engine)
    assert len(FIXED) == len({fixed.option for fixed in FIXED})


def test_connector_classes_and_versions_of_plugins_stand_in_their_engines_module() -> None:
    word = re.compile(r"io\.debezium\.connector\.\w+\.\w+Connector\b|debezium-connector-\w+")
    named = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if word.search(path.read_text())}
    assert named == {f"connectors/engines/{engine}.py" for engine in Engine}


@pytest.mark.parametrize("engine", Engine)
def test_an_idle_shard_beats_well_within_the_silence_that_it_may_keep(engine: Engine) -> None:
    assert 2 * ENGINES[engine].idle_gap(Limits()) < LivenessPolicy().silence


@pytest.mark.parametrize("engine", [Engine.MARIADB, Engine.MYSQL])
def test_whole_rows_are_asked_of_a_binlog(engine: Engine) -> None:
    wanted = ENGINES[engine].server_variables
    assert wanted["binlog_row_image"] == "FULL" and wanted["binlog_format"] == "ROW"
    assert ("gtid_mode" in wanted) == (engine is Engine.MYSQL)
    assert wanted.get("log_bin_compress") == ("0" if engine is Engine.MARIADB else None)
