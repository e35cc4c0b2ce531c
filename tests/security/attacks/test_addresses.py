"""Logins go to known hosts, and with `source_ca` only to servers that prove who they are, on real sockets."""

from __future__ import annotations

import ssl
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from cdc_platform import wiring
from cdc_platform.clients.connect.client import ConnectClient
from cdc_platform.clients.connect.worker_metrics import WorkerMetrics
from cdc_platform.clients.sources.leader_servers import LeaderServers
from cdc_platform.clients.sources.logs import RealSourceLogs
from cdc_platform.clients.sources.open_source import open_source
from cdc_platform.clients.sources.source_rules import SourceRules
from cdc_platform.connectors.config import desired_config
from cdc_platform.connectors.overrides import check_dataset, check_shard
from cdc_platform.connectors.source_servers import is_permitted_host
from cdc_platform.errors import CdcError, ConnectUnavailable, LoginRefused, OverrideRefused, SettingsError
from cdc_platform.model.topology import Address, Dataset, Engine, Shard
from cdc_platform.settings import Settings
from tests.agent.harness import Harness as AgentHarness
from tests.connectors.cases import EAST, ORDERS, ORDERS_2, PINS, PINS_7, PLAIN
from tests.documents.test_edits import NEW, OLD, shard, topology
from tests.own_secrets import write_login
from tests.security.attacks.hostile import Hostile, message, mysql_tls, postgres_tls
from tests.waiting import assert_eventually

PASSWORD = "hunter2-of-the-source"
CASES = {Engine.MARIADB: (PINS, PINS_7), Engine.MYSQL: (replace(PINS, engine=Engine.MYSQL), PINS_7)} | {
    Engine.POSTGRES: (ORDERS, ORDERS_2)
}


def ask_all(engine: Engine, address: Address, tmp_path: Path, rules: SourceRules) -> list[CdcError]:
    """What each way to a source ends with."""
    dataset, one = CASES[engine]
    own = replace(dataset, credentials=write_login(tmp_path, dataset.name, "source", "cdc-user", PASSWORD))
    one = replace(one, leader=address, replicas=())
    dirs = [str(tmp_path)]
    ways: list[Callable[[], object]] = [
        lambda: LeaderServers(secrets_dirs=dirs, rules=rules).view(own, one, address),
        lambda: LeaderServers(secrets_dirs=dirs, rules=rules).missing_rights(own, one, address),
        lambda: RealSourceLogs(secrets_dirs=dirs, rules=rules).check(own, one),
        lambda: open_source(own, one, own.tables[0], timeout=2.0, secrets_dirs=dirs, rules=rules).inspect(),
    ]
    found = []
    for way in ways:
        with pytest.raises(CdcError) as caught:
            way()
        found.append(caught.value)
    return found


@pytest.mark.parametrize("engine", list(Engine), ids=str)
def test_nothing_is_sent_to_a_host_that_is_not_permitted(tmp_path: Path, engine: Engine) -> None:
    hostile = Hostile(lambda connection, more: None)
    found = ask_all(engine, hostile.address, tmp_path, SourceRules(hosts=("db-*", "10.0.*")))
    hostile.close()
    assert all(isinstance(error, LoginRefused) and error.field == "source_hosts" for error in found)
    assert hostile.accepted == 0


@pytest.mark.parametrize("proof", ["other authority", "other host", "no tls"])
@pytest.mark.parametrize("engine", list(Engine), ids=str)
def test_a_login_goes_to_no_server_that_does_not_prove_itself(tmp_path: Path, engine: Engine, proof: str) -> None:
    ours, others = trustme.CA(), trustme.CA()
    ca = tmp_path / "ca.pem"
    ours.cert_pem.write_to_path(ca)
    authority, name = (others, "127.0.0.1") if proof == "other authority" else (ours, "db.elsewhere.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    serve = postgres_tls if engine is Engine.POSTGRES else mysql_tls
    hostile = Hostile(serve(None if proof == "no tls" else context))
    found = ask_all(engine, hostile.address, tmp_path, SourceRules(ca=str(ca)))
    hostile.close()
    assert hostile.accepted >= 1
    assert all(isinstance(error, LoginRefused) for error in found), found
    assert b"cdc-user" not in hostile.received and b"cdc-user" not in hostile.decrypted
    assert PASSWORD.encode() not in hostile.received


@pytest.mark.parametrize("engine", list(Engine), ids=str)
def test_a_server_that_proves_itself_gets_the_login(tmp_path: Path, engine: Engine) -> None:
    ours = trustme.CA()
    ca = tmp_path / "ca.pem"
    ours.cert_pem.write_to_path(ca)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.issue_cert("127.0.0.1").configure_cert(context)
    serve = postgres_tls if engine is Engine.POSTGRES else mysql_tls
    hostile = Hostile(serve(context))
    ask_all(engine, hostile.address, tmp_path, SourceRules(ca=str(ca)))
    hostile.close()
    assert b"cdc-user" in hostile.decrypted and b"cdc-user" not in hostile.received


@pytest.mark.parametrize(("asks", "named"), [(5, "password hashed with MD5|hashed password"), (0, "did not complete")])
def test_a_postgres_server_must_ask_for_scram(tmp_path: Path, asks: int, named: str) -> None:
    def serve(connection: object, more: Callable[[], bytes]) -> None:
        data = more()
        while data[4:8] in (struct.pack(">I", 80877103), struct.pack(">I", 80877104)):
            connection.sendall(b"N")  # type: ignore[attr-defined]
            data = more()
        body = struct.pack(">I", asks) + (b"salt" if asks == 5 else b"")
        connection.sendall(message(b"R", body) + message(b"Z", b"I"))  # type: ignore[attr-defined]

    hostile = Hostile(serve)
    found = ask_all(Engine.POSTGRES, hostile.address, tmp_path, SourceRules())
    assert all(isinstance(error, LoginRefused) and "postgres_auth" in (error.cure or "") for error in found), found
    assert b"md5" not in hostile.received
    hostile.close()


def test_a_shard_elsewhere_is_left_alone() -> None:
    own = replace(PLAIN, source_hosts=("db-1", "*.ours.example"))
    for host in ("DB-1", "a.ours.example"):
        check_shard(PINS, replace(PINS_7, leader=Address(host, 1), replicas=(Address(host, 2),)), own)
    elsewhere = Address("ours.example.evil.example", 1)
    with pytest.raises(OverrideRefused, match="source_hosts") as caught:
        check_shard(PINS, replace(PINS_7, leader=elsewhere, replicas=()), own)
    assert caught.value.field == "leader"
    with pytest.raises(OverrideRefused, match="source_hosts") as caught:
        check_shard(PINS, replace(PINS_7, leader=Address("db-1", 1), replicas=(elsewhere,)), own)
    assert caught.value.field == "replicas"


@pytest.mark.parametrize(
    ("pattern", "permitted", "others"),
    [
        ("db-*", ["db-1", "DB-1", "db-"], ["db-1.evil.example", "xdb-1", "db"]),
        ("db-1.*", ["db-1.ours"], ["db-1.ours.evil.example"]),
        ("10.0.*", ["10.0.0.1", "10.0.255.255"], ["10.0.evil.example", "10.0.0.1.evil.example", "10.1.0.0"]),
        ("*.ours.example", ["a.ours.example", "a.b.ours.example"], ["ours.example", "a.ours.example.evil"]),
        ("db-*.ours.example", ["db-1.ours.example"], ["db-1.evil.example"]),
        ("[fd00::*]", ["[fd00::1]", "fd00::1"], ["f", "[fd01::1]", "fd00::1.evil.example"]),
        ("db-[12]", ["db-[12]"], ["db-1"]),
        ("*", ["anything.at.all"], []),
    ],
)
def test_a_pattern_names_no_host_of_a_stranger_s_domain(pattern: str, permitted: list[str], others: list[str]) -> None:
    assert all(is_permitted_host(host, [pattern]) for host in permitted)
    assert not any(is_permitted_host(host, [pattern]) for host in others)
    assert not is_permitted_host(permitted[0], [])


def test_an_agent_writes_no_file_of_a_leader_elsewhere(tmp_path: Path) -> None:
    harness = AgentHarness(tmp_path / "leaders")
    harness.hosts = (OLD.host,)
    harness.store.import_topology(topology(shard(0), shard(1)))
    harness.start()
    try:
        assert_eventually(harness.synced, "the first sync")
        harness.store.set_leader("pins", "00000", NEW)

        def is_reported() -> bool:
            report = harness.report()
            return report is not None and "pins.00000" in report.blocked

        assert_eventually(is_reported, "the report")
        kept = harness.files()["pins.00000"]
        assert kept is not None and kept.leader == OLD
    finally:
        harness.stop()


def test_connectors_verify_as_the_platform_does() -> None:
    own = replace(PLAIN, source_ca="/etc/ca.pem", source_truststore="/etc/trust.p12")

    def tls(dataset: Dataset, one: Shard) -> dict[str, str]:
        return {n: v for n, v in desired_config(dataset, one, EAST, own).items() if "ssl" in n and "database." in n}

    assert tls(*CASES[Engine.POSTGRES]) == {
        "database.sslmode": "verify-full", "database.sslrootcert": "/etc/ca.pem"
    }  # fmt: skip
    assert tls(*CASES[Engine.MARIADB]) == {
        "database.ssl.mode": "verify-full", "database.ssl.truststore": "/etc/trust.p12"
    }  # fmt: skip
    assert tls(*CASES[Engine.MYSQL])["database.ssl.mode"] == "verify_identity"
    for option, value in (("database.ssl.mode", "required"), ("database.sslmode", "require")):
        with pytest.raises(OverrideRefused, match="source_ca"):
            check_dataset(replace(PINS, connector={option: value}), own)


def test_connect_hosts_and_logins_are_the_operators(tmp_path: Path) -> None:
    file = tmp_path / "s.properties"
    file.write_text("a=one\nb=two\n")
    text = (
        f'connect_user = "u"\nconnect_password = "${{file:{file}:a}}"\nconnect_hosts = ["connect-*"]\n'
        f'[connect_logins.main]\nuser = "m"\npassword = "${{file:{file}:b}}"\n'
    )
    settings = tmp_path / "cdc-platform.toml"
    settings.write_text(text)
    found = Settings.load(settings, env={})
    with wiring.connect_client(found, "main", ["https://connect-1"]) as main:
        assert main._workers._login("https://connect-1") == ("m", "two")
    with wiring.connect_client(found, "other", ["https://connect-1"]) as other:
        assert other._workers._login("https://connect-1") == ("u", "one")
        # Rotated: the next request has the new one.
        file.write_text("a=three\nb=two\n")
        assert other._workers._login("https://connect-1") == ("u", "three")
    hostile = Hostile(lambda connection, more: None)
    with ConnectClient("main", [f"http://{hostile.address}"], timeout=1.0, hosts=("connect-*",)) as connect:
        with pytest.raises(ConnectUnavailable, match="connect_hosts"):
            connect.connectors()
        assert "connect_hosts" in connect.health()[0].message
    with pytest.raises(ConnectUnavailable, match="connect_hosts"):
        WorkerMetrics(hosts=("connect-*",)).read("w", f"http://{hostile.address}/metrics")
    hostile.close()
    assert hostile.accepted == 0
    settings.write_text(text.replace(f"${{file:{file}:b}}", "two"))
    with pytest.raises(SettingsError, match=r"connect_logins\.main\.password"):
        Settings.load(settings, env={})
