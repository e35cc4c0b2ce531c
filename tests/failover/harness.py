"""Connectors that follow the leader files of the stack's own agents."""

from __future__ import annotations

from cdc_platform.model.topology import Shard
from tests.connectors.harness import Harness as ConnectorHarness


class Harness(ConnectorHarness):
    """Connectors whose leader files the stack's own agents write."""

    def write_leader(self, shard: Shard) -> None:
        """Nothing: the agents do it."""
