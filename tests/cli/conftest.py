"""A real ZooKeeper, for commands that change one."""

from tests.clients.zookeeper.conftest import raw, root, zookeeper

__all__ = ["raw", "root", "zookeeper"]
