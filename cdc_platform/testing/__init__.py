"""In-memory fakes of the outside systems, for the tests of users too. Contract tests hold them to the real ones."""

from cdc_platform.testing.zookeeper import InMemoryTopologyStore, InMemoryZooKeeper

__all__ = ["InMemoryTopologyStore", "InMemoryZooKeeper"]
