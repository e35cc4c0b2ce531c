"""Processes killed and paused: broker, ZooKeeper, agent, control plane."""

from __future__ import annotations

import signal

import pytest

from tests.faults.conftest import MakeScenario

pytestmark = [pytest.mark.stack, pytest.mark.slow]


def test_faults_broker_killed(a_scenario: MakeScenario) -> None:
    with a_scenario("broker: kill -9, back after 5 s") as run:
        run.site.stack.kill("kafka")
        run.hold(5)
        run.site.stack.start("kafka")
        run.over()


def test_faults_broker_paused(a_scenario: MakeScenario) -> None:
    with a_scenario("broker: paused for 20 s") as run:
        run.site.stack.kill("kafka", signal.SIGSTOP)
        run.hold(20)
        run.site.stack.kill("kafka", signal.SIGCONT)
        run.over()
