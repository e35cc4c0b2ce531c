"""A rotated password of ZooKeeper reaches a session that is open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError
from kazoo.security import make_digest_acl

from cdc_platform.clients.secrets import login
from cdc_platform.clients.zookeeper.topology_store import ZooKeeperTopologyStore
from cdc_platform.local.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.plain]


def test_a_session_logs_in_again_with_a_rotated_password(
    stack: Stack, unique_name: Callable[[str], str], tmp_path: Path
) -> None:
    file = tmp_path / "zookeeper.properties"
    file.write_text("password=first\n")
    root = f"/{unique_name('rotate')}"
    admin = KazooClient(hosts=str(stack.zookeeper))
    admin.start()
    store = ZooKeeperTopologyStore(str(stack.zookeeper), root=root, auth=login("agent", f"${{file:{file}:password}}"))
    try:
        admin.create(root, b"", acl=[make_digest_acl("agent", "second", all=True)])
        assert store._session.client().connected
        with pytest.raises(NoAuthError):
            store._session.client().get_children(root)
        epoch = store._session.epoch
        file.write_text("password=second\n")
        store._session.renew_login()
        assert store._session.client().get_children(root) == []
        assert store._session.epoch == epoch, "the session stayed as it was"
    finally:
        store.close()
        admin.add_auth("digest", "agent:second")
        admin.delete(root)
        admin.stop()
        admin.close()
