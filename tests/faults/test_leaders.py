"""Leaders that move: 100 shards at once, and real promotions of every engine."""

from __future__ import annotations

import pytest

from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Engine
from tests.engines import EACH_BINLOG
from tests.faults.conftest import MakeScenario
from tests.faults.far_proxy import FarProxy
from tests.local import promotion

pytestmark = [pytest.mark.stack, pytest.mark.slow]


def test_faults_leaders_of_100_shards_move_at_once(assert_recovery: MakeScenario, stack: Stack) -> None:
    """The old host refuses; the new one is the same server behind another address."""
    name = "100 shards: the old leader refuses, all move at once"
    primary = stack.mariadb_primary
    with (
        FarProxy((primary.host, primary.port)) as old,
        assert_recovery(name, count=100, pause=0.5, through=old) as run,
    ):
        old.cut()
        run.hold(1)
        run.move(primary)
        run.over()


@EACH_BINLOG
def test_faults_primary_killed_and_replica_promoted(assert_recovery: MakeScenario, engine: Engine) -> None:
    with assert_recovery(f"{engine}: primary killed, replica promoted", engine=engine) as run:
        stack = run.harness.stack
        stack.kill(stack.servers(engine)[0])
        promoted = promotion.promote(stack, engine, timeout=120)
        run.move(promoted.primary(engine))
        run.over()
        run.recovered()
        promotion.rejoin(promoted)


def test_faults_postgres_standby_promoted(assert_recovery: MakeScenario) -> None:
    with assert_recovery("Postgres: standby promoted", engine=Engine.POSTGRES) as run:
        stack = run.harness.stack
        with run.writers.still():
            promoted = promotion.promote_postgres_standby(stack, timeout=180)
        run.move(promoted.postgres_primary)
        run.over()
        run.recovered()
        promotion.rejoin(promoted)
