"""ZooKeeper over TLS, and under the ready ACL list of examples/acls: an agent reads, and writes only its own znode."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError
from kazoo.security import ACL, Id, Permissions, make_digest_acl_credential

from cdc_platform.clients.zookeeper.topology_store import ZooKeeperTopologyStore
from cdc_platform.errors import ZooKeeperUnavailable
from cdc_platform.local import artifacts, kafka
from cdc_platform.settings import default_cache_dir
from tests.control_plane.harness import free_port
from tests.reconciler.harness import cluster, dataset, shards
from tests.surface.packaging import ROOT
from tests.waiting import assert_eventually

pytestmark = pytest.mark.stack

PLATFORM, AGENT, OTHER = ("cdc", "one"), ("agent-0", "two"), ("agent-1", "three")
LIST = ROOT / "examples" / "acls" / "zookeeper.txt"
_LETTERS = {"c": Permissions.CREATE, "d": Permissions.DELETE, "r": Permissions.READ, "w": Permissions.WRITE}
_LETTERS["a"] = Permissions.ADMIN


def credential(login: tuple[str, str]) -> str:
    return str(make_digest_acl_credential(*login))


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A ZooKeeper that speaks TLS only, and the file with its authority."""
    home = tmp_path_factory.mktemp("zookeeper")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(home / "ca.pem")
    served = authority.issue_cert("127.0.0.1", "localhost")
    key = serialization.load_pem_private_key(served.private_key_pem.bytes(), password=None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (home / "server.pem").write_bytes(key + served.cert_chain_pems[0].bytes())
    port = free_port()
    programs = artifacts.provide(default_cache_dir())
    launch = kafka.zookeeper_launch(home, {"zookeeper": port}, programs, home / "log")
    config = home / "zoo.cfg"
    plain = re.sub("clientPort=[0-9]+\n|clientPortAddress=.*\n", "", config.read_text())
    config.write_text(
        f"{plain}secureClientPort={port}\nsecureClientPortAddress=127.0.0.1\nssl.clientAuth=none\n"
        "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n"
        f"ssl.keyStore.location={home / 'server.pem'}\nssl.keyStore.type=PEM\n"
        f"ssl.trustStore.location={home / 'ca.pem'}\nssl.trustStore.type=PEM\n"
    )
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(launch.argv, cwd=launch.cwd, env=dict(launch.env), stdout=log, stderr=log)
    try:
        assert_eventually(lambda: kafka.listens(port), "ZooKeeper listens")
        yield f"127.0.0.1:{port}", home / "ca.pem"
    finally:
        process.kill()
        process.wait()


def store(secured: tuple[str, Path], login: tuple[str, str], *readers: tuple[str, str]) -> ZooKeeperTopologyStore:
    hosts, ca = secured
    ids = [credential(one) for one in readers]
    return ZooKeeperTopologyStore(hosts, timeout=20.0, auth=login, readers=ids, ca=str(ca))


def client(secured: tuple[str, Path], login: tuple[str, str]) -> KazooClient:
    hosts, ca = secured
    made = KazooClient(hosts, auth_data=[("digest", ":".join(login))], use_ssl=True, ca=str(ca), check_hostname=True)
    made.start(timeout=30)
    return made


def apply_list(admin: KazooClient) -> None:
    """As zkCli would."""
    names = {"PLATFORM": [credential(PLATFORM)], "AGENT": [credential(AGENT), credential(OTHER)]}
    for line in LIST.read_text().splitlines():
        if line.startswith("#"):
            continue
        *_, path, entries = line.split()
        acl = []
        for entry in entries.split(","):
            scheme, name, letters = entry.split(":")
            acl += [ACL(sum(_LETTERS[letter] for letter in letters), Id(scheme, one)) for one in names[name]]
        for each in tree(admin, path) if "-R" in line else [path]:
            admin.set_acls(each, acl)


def tree(admin: KazooClient, path: str) -> Iterator[str]:
    yield path
    for child in admin.get_children(path):
        yield from tree(admin, f"{path}/{child}")


def test_agents_read_and_write_only_their_own_znode(secured: tuple[str, Path]) -> None:
    platform = store(secured, PLATFORM, AGENT, OTHER)
    agent, other = store(secured, AGENT, PLATFORM), store(secured, OTHER, PLATFORM)
    platform.put_cluster(cluster("east"))
    platform.put_dataset(dataset("pins", ("east",)))
    (shard,) = shards("pins", 1)
    platform.put_shard(shard)
    admin = client(secured, PLATFORM)
    stolen = client(secured, AGENT)
    try:
        for again in (False, True):
            # What the platform makes is as the list says, and so is what the list was applied to.
            if again:
                agent.close()
                other.close()
                apply_list(admin)
                platform.put_shard(shards("pins", 2)[1])
            with platform.lock(owner="test"):
                agent.register_agent("w0:8083", {"worker": "w0:8083"})
                other.register_agent("w1:8083", {"worker": "w1:8083"})
            assert set(platform.agents()) == {"w0:8083", "w1:8083"}
            assert agent.load().datasets["pins"].name == "pins"
            for path in tree(admin, "/cdc"):
                if path == "/cdc/agents/w0:8083":
                    # Its own.
                    continue
                if path != "/cdc/agents/w1:8083":
                    stolen.get(path)
                acts: tuple[Callable[[], object], ...] = (
                    partial(stolen.set, path, b"x"),
                    partial(stolen.set_acls, path, [ACL(31, Id("world", "anyone"))]),
                    partial(stolen.delete, path, recursive=True),
                )
                for act in acts:
                    with pytest.raises(NoAuthError):
                        act()
                if path != "/cdc/agents":
                    with pytest.raises(NoAuthError):
                        stolen.create(f"{path}/x", b"")
            assert admin.exists("/cdc/agents/w1:8083")
    finally:
        for one in (admin, stolen):
            one.stop()
            one.close()
        for each in (platform, agent, other):
            each.close()


def test_an_agent_waits_for_the_znode_of_the_one_before_it(secured: tuple[str, Path]) -> None:
    platform, first, second = store(secured, PLATFORM, AGENT), store(secured, AGENT, PLATFORM), None
    try:
        platform.put_cluster(cluster("east"))
        with platform.lock(owner="test"):
            first.register_agent("w7:8083", {"worker": "one"})
        second = store(secured, AGENT, PLATFORM)
        gone = threading.Timer(1.0, first.close)
        gone.start()
        second.register_agent("w7:8083", {"worker": "two"})
        assert not gone.is_alive()
        assert platform.agents()["w7:8083"] == {"worker": "two"}
    finally:
        for each in (platform, second):
            if each is not None:
                each.close()


@pytest.mark.parametrize("wrong", ["authority", "plain"])
def test_nothing_is_said_to_a_zookeeper_that_does_not_prove_itself(
    secured: tuple[str, Path], tmp_path: Path, wrong: str
) -> None:
    hosts, _ = secured
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    ca = str(tmp_path / "other.pem") if wrong == "authority" else ""
    stranger = ZooKeeperTopologyStore(hosts, timeout=3.0, auth=PLATFORM, ca=ca)
    with pytest.raises(ZooKeeperUnavailable):
        stranger.load()
    stranger.close()
