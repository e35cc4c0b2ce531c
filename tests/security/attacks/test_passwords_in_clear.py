"""A server at a leader's address asks for the password in clear, on a real socket."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cdc_platform.clients.sources.leader_servers import LeaderServers
from cdc_platform.clients.sources.mariadb import MariaDbSource
from cdc_platform.clients.sources.postgres import PostgresSource
from cdc_platform.errors import CdcError, SourceRejected
from cdc_platform.model.topology import Engine
from tests.connectors.cases import ORDERS, ORDERS_2, PINS, PINS_7
from tests.own_secrets import write_login
from tests.security.attacks.hostile import Hostile, mysql, postgres

PASSWORD = "hunter2-of-the-source"


@pytest.mark.parametrize("plugin", [b"mysql_clear_password", b"dialog"])
@pytest.mark.parametrize("engine", [Engine.MARIADB, Engine.MYSQL], ids=str)
def test_a_mysql_server_gets_no_password_in_clear(tmp_path: Path, plugin: bytes, engine: Engine) -> None:
    hostile = Hostile(mysql(plugin))
    dataset = replace(PINS, engine=engine, credentials=write_login(tmp_path, "pins", "source", "cdc", PASSWORD))
    servers = LeaderServers(secrets_dirs=[str(tmp_path)])
    with pytest.raises(SourceRejected, match="in clear"):
        servers.view(dataset, PINS_7, hostile.address)
    source = MariaDbSource(hostile.address, user="cdc", password=PASSWORD, database="d", table="t", engine=engine)
    with pytest.raises(CdcError):
        source.position()
    hostile.close()
    assert b"cdc" in hostile.received
    assert PASSWORD.encode() not in hostile.received


def test_a_postgres_server_gets_no_password_in_clear(tmp_path: Path) -> None:
    hostile = Hostile(postgres)
    dataset = replace(ORDERS, credentials=write_login(tmp_path, "orders", "source", "cdc", PASSWORD))
    servers = LeaderServers(secrets_dirs=[str(tmp_path)])
    with pytest.raises(CdcError):
        servers.view(dataset, ORDERS_2, hostile.address)
    source = PostgresSource(hostile.address, user="cdc", password=PASSWORD, database="d", schema="public", table="t")
    with pytest.raises(CdcError):
        source.position()
    hostile.close()
    assert b"cdc" in hostile.received
    assert PASSWORD.encode() not in hostile.received
