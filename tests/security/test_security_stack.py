"""The platform's main work on a stack with TLS, passwords and ACLs everywhere; who has none is refused by name."""

from __future__ import annotations

import base64
import stat
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import httpx
import psutil
import pytest
from confluent_kafka import Consumer, TopicPartition
from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError

from cdc_platform.clients.connect.client import ConnectClient
from cdc_platform.clients.kafka.admin import KafkaAdmin
from cdc_platform.clients.kafka.quotas import ClientQuotas
from cdc_platform.clients.zookeeper.topology_store import ZooKeeperTopologyStore
from cdc_platform.connectors.java_properties import parse
from cdc_platform.defs import CdcPlatformResource
from cdc_platform.errors import ConnectUnavailable, KafkaUnavailable, ZooKeeperUnavailable
from cdc_platform.local.stack import Stack
from tests.defs.code_location import CodeLocation
from tests.messages import headers_of
from tests.security.conftest import SecurePlatform

pytestmark = [pytest.mark.stack, pytest.mark.slow]


def test_plan_apply_status_and_proof_over_secure_connections(secure: SecurePlatform) -> None:
    assert secure.cli("plan").exit_code == 2, secure.outputs[-1]

    def applied() -> bool:
        assert secure.cli("apply").exit_code in (0, 2), secure.outputs[-1]
        return secure.cli("plan").exit_code == 0

    secure.assert_eventually(applied, "nothing is left to do")
    secure.assert_eventually(lambda: secure.cli("status").exit_code == 0, "every shard is up")
    for dataset, shard in secure.shards:
        secure.write(dataset, shard, "UPDATE notes SET text = 'changed' WHERE id < 5", "DELETE FROM notes WHERE id = 9")
        secure.assert_eventually(
            lambda name=dataset.name: secure.cli("verify", name, "notes", "--json").exit_code == 0,  # type: ignore[misc]
            f"{dataset.name} is proven",
        )


def test_signals_and_schema_history_are_read_over_secure_connections(secure: SecurePlatform) -> None:
    dataset, shard = secure.shards[0]
    done = secure.cli("backfill", dataset.name, "--table", "notes")
    assert done.exit_code == 0, secure.outputs[-1]
    config = secure.stack.rest().get(f"{secure.stack.connect_urls[0]}/connectors/{shard.name}/config").json()
    for option in ("schema.history.internal.producer", "schema.history.internal.consumer", "signal.consumer"):
        assert config[f"{option}.security.protocol"] == "SASL_SSL"
        assert "${file:" in config[f"{option}.sasl.jaas.config"]


def test_quotas_and_agents_work_over_secure_connections(secure: SecurePlatform) -> None:
    rates = ClientQuotas(secure.stack.settings().kafka)
    rates.set_rates({"security-test": 1000})
    assert rates.rates()["security-test"] == 1000
    rates.set_rates({"security-test": None})
    rates.close()
    dataset, shard = secure.shards[0]
    checked = secure.cli(
        "topology", "set-leader", dataset.name, shard.id, f"localhost:{shard.leader.port}", "--dry-run"
    )
    assert "are one server" in checked.output and checked.exit_code == 0, checked.output
    moved = secure.cli("topology", "set-leader", dataset.name, shard.id, f"localhost:{shard.leader.port}")
    assert f"{len(secure.stack.workers)} agents follow" in moved.output
    secure.write(dataset, shard, "INSERT INTO notes VALUES (1000, 'after the move')")
    secure.assert_eventually(
        lambda: secure.cli("verify", dataset.name, "notes").exit_code == 0, "proven after the move"
    )


def test_a_pass_in_dagster_over_secure_connections(secure: SecurePlatform) -> None:
    home = secure.home / "dagster_home"
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").write_text((Path(__file__).parents[2] / "dagster_home/dagster.yaml").read_text())
    with dg.DagsterInstance.from_config(str(home)) as instance:
        control = CodeLocation(CdcPlatformResource(config_file=str(secure.stack.settings_file)), instance)
        assert control.run().success


# Without credentials


def test_kafka_refuses_clients_without_or_with_wrong_passwords(secure_stack: Stack) -> None:
    right = dict(secure_stack.settings().kafka)
    plain = {"bootstrap.servers": right["bootstrap.servers"]}
    for config in (plain, {**right, "sasl.password": "wrong"}, {**right, "ssl.ca.location": _system_ca()}):
        with pytest.raises(KafkaUnavailable) as refused:
            KafkaAdmin(config, timeout=5.0).topics([])
        assert "wrong" not in str(refused.value)


def _system_ca() -> str:
    import certifi

    return certifi.where()


def test_zookeeper_refuses_strangers_on_every_znode_of_ours(secure: SecurePlatform) -> None:
    stack = secure.stack
    stranger = ZooKeeperTopologyStore(str(stack.zookeeper), timeout=5.0)
    with pytest.raises(ZooKeeperUnavailable, match="access refused"):
        stranger.load()
    stranger.close()
    wrong = ZooKeeperTopologyStore(str(stack.zookeeper), timeout=5.0, auth=("cdc", "guess"))
    with pytest.raises(ZooKeeperUnavailable, match="access refused"):
        wrong.load()
    wrong.close()
    with zookeeper(stack) as client:
        paths = list(tree(client, "/cdc"))
        assert any(path.startswith("/cdc/agents/") for path in paths)
        assert "/cdc/control/lock" in paths
        for path in paths:
            acls, _ = client.get_acls(path)
            assert [(acl.id.scheme, acl.id.id.split(":")[0], acl.perms) for acl in acls] == [("digest", "cdc", 31)], (
                path
            )
    open_client = KazooClient(hosts=str(stack.zookeeper))
    open_client.start()
    for path in paths:
        with pytest.raises(NoAuthError):
            open_client.get(path)
    open_client.stop()
    open_client.close()


def test_connect_refuses_strangers(secure_stack: Stack) -> None:
    security = secure_stack.security
    assert security is not None
    url = secure_stack.connect_urls[0]
    assert httpx.get(f"{url}/connectors", verify=security.trust()).status_code == 401
    user, _ = security.rest_auth()
    assert httpx.get(f"{url}/connectors", verify=security.trust(), auth=(user, "guess")).status_code == 401
    for options in ({"verify": security.trust()}, {"verify": security.trust(), "auth": (user, "guess")}, {}):
        client = ConnectClient("local", secure_stack.connect_urls, timeout=5.0, **options)
        with pytest.raises(ConnectUnavailable) as refused:
            client.connectors()
        assert "guess" not in str(refused.value)
        client.close()


def test_requests_that_workers_hand_on_to_each_other_are_let_in(secure: SecurePlatform) -> None:
    # A restart is the leader's to do: whichever worker is asked, it comes through.
    _, shard = secure.shards[0]
    with secure.stack.rest() as client:
        for url in secure.stack.connect_urls:
            answer = client.post(f"{url}/connectors/{shard.name}/tasks/0/restart")
            assert answer.status_code == 204, answer.text


# Secrets


@pytest.fixture
def found_secrets(secure_stack: Stack) -> dict[str, str]:
    """Every password of the stack, by the file that holds it."""
    found = {}
    for path in secure_stack.secrets_dir.glob("*.properties"):
        values = parse(path.read_text())
        if "password" in values:
            found[path.name] = values["password"]
    assert len(found) >= 12
    assert all(len(value) >= 16 for value in found.values())
    return found


def forms(secret: str) -> Iterator[bytes]:
    """The secret itself, and in the spelling of basic authentication."""
    yield secret.encode()
    yield base64.b64encode(f"cdc:{secret}".encode())


def leaks(text: bytes, secrets: dict[str, str]) -> list[str]:
    return [name for name, secret in secrets.items() if any(form in text for form in forms(secret))]


def test_no_secret_is_written_anywhere(secure: SecurePlatform, found_secrets: dict[str, str]) -> None:
    stack = secure.stack
    for command in (
        ("topology", "export"),
        ("topology", "show", "--json"),
        ("plan", "--json"),
        ("status", "--json"),
        ("status", secure.shards[0][0].name, "00000", "--json"),
        ("stack", "status", "--dir", str(stack.directory), "--json"),
    ):
        assert secure.cli(*command).exit_code in (0, 2), secure.outputs[-1]
    looked = 0
    for output in secure.outputs:
        assert leaks(output.encode(), found_secrets) == [], output[:200]
        looked += 1

    with zookeeper(stack) as client:
        for path in tree(client, "/"):
            if not path.startswith("/zookeeper"):
                assert leaks(client.get(path)[0] or b"", found_secrets) == [], path
                looked += 1

    with stack.rest() as rest:
        for url in stack.connect_urls:
            for what in ("/connectors?expand=info&expand=status", "/connector-plugins", "/admin/loggers"):
                answer = rest.get(url + what)
                assert answer.status_code == 200
                assert leaks(answer.content, found_secrets) == [], what
        for name in rest.get(f"{stack.connect_urls[0]}/connectors").json():
            for part in ("", "/tasks", "/config", "/status", "/offsets"):
                assert leaks(rest.get(f"{stack.connect_urls[0]}/connectors/{name}{part}").content, found_secrets) == []

    topics = list(records(stack))
    assert {"cdc-connect-local-configs", "cdc.platform.state"} <= {topic for topic, _ in topics}
    for topic, record in topics:
        assert leaks(record, found_secrets) == [], topic
    looked += len(topics)

    for file in written_files(secure):
        assert leaks(file.read_bytes(), found_secrets) == [], file
        looked += 1
    print(f"{looked} outputs, znodes, records and files looked at")

    for process in map(psutil.Process, (one.pid for one in stack.running().values())):
        shown = "\n".join([*process.cmdline(), *process.environ().values()])
        assert leaks(shown.encode(), found_secrets) == [], process.name()


def test_the_search_finds_what_is_there(secure: SecurePlatform, found_secrets: dict[str, str]) -> None:
    login = secure.stack.security
    assert login is not None
    user, password = login.rest_auth()
    assert leaks(f"x {password} y".encode(), found_secrets) == ["connect.properties"]
    assert leaks(base64.b64encode(f"{user}:{password}".encode()), found_secrets) == ["connect.properties"]


def test_secrets_lie_in_files_of_one_user(secure_stack: Stack, found_secrets: dict[str, str]) -> None:
    assert stat.S_IMODE(secure_stack.secrets_dir.stat().st_mode) == 0o700
    for path in secure_stack.secrets_dir.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    # Brokers and databases want theirs in their own files.
    for path in secure_stack.directory.rglob("*"):
        inside = path.relative_to(secure_stack.directory).parts
        ours = inside[0] in ("kafka", "workers", "zookeeper") and "data" not in inside[1:2]
        if ours and path.is_file() and leaks(path.read_bytes(), found_secrets):
            assert inside == ("kafka", "server.properties"), path
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_every_service_listens_on_loopback_only(secure_stack: Stack) -> None:
    seen = 0
    for name, one in secure_stack.running().items():
        process = psutil.Process(one.pid)
        for each in (process, *process.children(recursive=True)):
            for connection in each.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN:
                    seen += 1
                    assert connection.laddr.ip in ("127.0.0.1", "::1", "::ffff:127.0.0.1"), (name, connection.laddr)
    assert seen >= 8


def test_settings_refuse_secrets_in_plain_text(secure_stack: Stack, tmp_path: Path) -> None:
    from cdc_platform.errors import SettingsError
    from cdc_platform.settings import Settings

    text = secure_stack.settings_file.read_text()
    assert "${file:" in text
    for line in text.splitlines():
        if "password" not in line:
            continue
        name = line.split("=")[0].strip()
        changed = tmp_path / "changed.toml"
        changed.write_text(text.replace(line, f'{name} = "hunter2 password"'))
        with pytest.raises(SettingsError, match="must be a reference to a secret") as refused:
            Settings.load(changed, env={})
        assert "hunter2" not in str(refused.value)


class zookeeper:
    """A client with the platform's password."""

    def __init__(self, stack: Stack) -> None:
        assert stack.security is not None
        auth = ":".join(stack.security.zookeeper_auth())
        self._client = KazooClient(hosts=str(stack.zookeeper), auth_data=[("digest", auth)])

    def __enter__(self) -> KazooClient:
        self._client.start()
        return self._client

    def __exit__(self, *exc: object) -> None:
        self._client.stop()
        self._client.close()


def tree(client: KazooClient, path: str) -> Iterator[str]:
    yield path
    for child in client.get_children(path):
        yield from tree(client, f"{path.rstrip('/')}/{child}")


def records(stack: Stack) -> Iterator[tuple[str, bytes]]:
    """Every record of every topic: key, value and headers."""
    consumer = Consumer({**stack.kafka_client, "group.id": "security-test", "enable.partition.eof": True})
    parts = [
        TopicPartition(topic, number, 0)
        for topic, found in consumer.list_topics(timeout=20).topics.items()
        for number in found.partitions
    ]
    consumer.assign(parts)
    ended = 0
    while ended < len(parts):
        message = consumer.poll(30.0)
        assert message is not None, "nothing came for 30 s"
        error = message.error()
        if error is not None:
            assert error.name() == "_PARTITION_EOF", error
            ended += 1
            continue
        headers = "".join(name + value for name, value in headers_of(message).items()).encode()
        yield str(message.topic()), (message.key() or b"") + b"\n" + (message.value() or b"") + b"\n" + headers
    consumer.close()


def written_files(secure: SecurePlatform) -> Iterator[Path]:
    """Logs, caches, state, generated configuration, Dagster's storage, audit; not the servers' own data."""
    stack = secure.stack
    places = [stack.directory / "logs", stack.directory / "workers", stack.directory / "cache", secure.home]
    files = [stack.settings_file, stack.directory / "stack.json"]
    files += [path for place in places for path in place.rglob("*") if path.is_file()]
    # The broker's log directory holds the topics as they lie on disk.
    files += [path for path in (stack.directory / "kafka" / "data").rglob("*.log") if path.is_file()]
    assert any(path.suffix == ".db" for path in files) or any("sqlite" in str(path) for path in files)
    yield from (replaced for replaced in files if replaced.exists())
