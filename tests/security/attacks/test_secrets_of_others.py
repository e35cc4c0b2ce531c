"""A dataset's author names secrets of the platform, of its workers and of other datasets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cdc_platform.clients.secrets import resolve_credentials
from cdc_platform.clients.sources.leader_servers import LeaderServers
from cdc_platform.clients.sources.logs import RealSourceLogs
from cdc_platform.clients.sources.open_source import open_source
from cdc_platform.connectors.config import problems
from cdc_platform.connectors.overrides import check_dataset
from cdc_platform.errors import OverrideRefused, SecretUnresolved, SettingsError
from cdc_platform.model.topology import Credentials, Dataset, Engine, Shard
from cdc_platform.settings import Settings
from tests.connectors.cases import ORDERS, ORDERS_2, PINS, PINS_7, TOPOLOGY
from tests.own_secrets import SECRETS_DIRS

FOREIGN = [
    "${file:%s/zookeeper.properties:password}",
    "${file:%s/orders/source.properties:password}",
    "${file:%s/pins/../orders/source.properties:password}",
    "${file:%s/pins/./../zookeeper.properties:password}",
    "${file:%s/pinsx/source.properties:password}",
    "${file:%s/pins/link.properties:password}",
    "${file:/etc/passwd:root}",
    "${env:CDC_CONNECT_PASSWORD}",
    "${env:HOME}",
    "${env:WORKER}",
    "x${env:CDC_CONNECT_PASSWORD}",
    "${file:%s/pins/source.properties:password}${env:CDC_CONNECT_PASSWORD}",
    "${directory:/etc:passwd}",
]


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "secrets"
    for path in ("zookeeper", "orders/source", "pins/source", "pinsx/source"):
        file = root / f"{path}.properties"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"user=u\npassword=secret of {path}\n")
    (root / "pins/link.properties").symlink_to(root / "zookeeper.properties")
    monkeypatch.setenv("CDC_CONNECT_PASSWORD", "secret of the platform")
    return root


def as_user(reference: str, secrets: Path) -> Dataset:
    """The user's name goes over the wire in clear, before the server has proven anything."""
    own = f"${{file:{secrets}/pins/source.properties:password}}"
    return replace(PINS, credentials=Credentials(user=reference.replace("%s", str(secrets)), password=own))


@pytest.mark.parametrize("reference", FOREIGN)
def test_the_control_plane_resolves_no_secret_of_others(secrets: Path, reference: str) -> None:
    with pytest.raises(SecretUnresolved) as caught:
        resolve_credentials(as_user(reference, secrets), [str(secrets)])
    assert "secret of" not in str(caught.value)


@pytest.mark.parametrize("reference", [text for text in FOREIGN if "link" not in text])
def test_no_connector_is_planned_that_names_a_secret_of_others(secrets: Path, reference: str) -> None:
    own = Settings(secrets_dirs=(str(secrets),))
    with pytest.raises(OverrideRefused) as caught:
        check_dataset(as_user(reference, secrets), own)
    assert caught.value.field == "credentials.user"
    option = "database.ssl.truststore.password"
    hostile = {option: reference.replace("%s", str(secrets))}
    dataset = replace(as_user("${file:%s/pins/source.properties:user}", secrets), connector=hostile)
    with pytest.raises(OverrideRefused):
        check_dataset(dataset, own)


def test_a_dataset_s_own_secrets_resolve(secrets: Path) -> None:
    dataset = as_user("${file:%s/pins/source.properties:user}", secrets)
    assert resolve_credentials(dataset, [str(secrets)]) == ("u", "secret of pins/source")
    check_dataset(dataset, Settings(secrets_dirs=("/elsewhere", str(secrets))))


def test_without_the_setting_nothing_resolves_and_the_move_is_told(secrets: Path) -> None:
    dataset = as_user("${file:%s/pins/source.properties:user}", secrets)
    with pytest.raises(SecretUnresolved, match="secrets_dirs") as caught:
        resolve_credentials(dataset, [])
    assert "/etc/cdc-platform/secrets/pins/" in str(caught.value)
    with pytest.raises(OverrideRefused, match="secrets_dirs"):
        check_dataset(dataset, Settings())


def test_an_older_layout_is_refused_by_name_with_the_move(secrets: Path) -> None:
    with pytest.raises(OverrideRefused) as caught:
        check_dataset(as_user("${file:%s/mariadb.properties:user}", secrets), Settings(secrets_dirs=(str(secrets),)))
    assert f"Move it to {secrets}/pins/mariadb.properties" in str(caught.value)
    assert f"${{file:{secrets}/pins/mariadb.properties:user}}" in str(caught.value)


@pytest.mark.parametrize(("dataset", "shard"), [(PINS, PINS_7), (ORDERS, ORDERS_2)], ids=["mariadb", "postgres"])
def test_every_caller_refuses_before_it_connects(dataset: Dataset, shard: Shard) -> None:
    stolen = "${env:CDC_CONNECT_PASSWORD}"
    hostile = replace(dataset, credentials=Credentials(user=stolen, password=stolen))
    dirs = ("/run/secrets",)
    with pytest.raises(SecretUnresolved):
        LeaderServers(secrets_dirs=dirs).view(hostile, shard, shard.leader)
    with pytest.raises(SecretUnresolved):
        LeaderServers(secrets_dirs=dirs).missing_rights(hostile, shard, shard.leader)
    with pytest.raises(SecretUnresolved):
        RealSourceLogs(secrets_dirs=dirs).check(hostile, shard)
    with pytest.raises(SecretUnresolved):
        open_source(hostile, shard, hostile.tables[0], timeout=1.0, secrets_dirs=dirs)


def test_one_bad_dataset_is_a_problem_of_its_own_only() -> None:
    hostile = replace(PINS, credentials=Credentials(user="${env:HOME}", password="${env:HOME}"))
    topology = replace(TOPOLOGY, datasets={**TOPOLOGY.datasets, "pins": hostile})
    own = Settings(secrets_dirs=SECRETS_DIRS, permitted_topics=("*",))
    assert [(p.kind, p.name) for p in problems(topology, own)] == [("dataset", "pins")]
    assert Engine.MARIADB is hostile.engine


@pytest.mark.parametrize(
    "text",
    [
        'zookeeper_password = "${file:/etc/s/zookeeper.properties:password}"',
        'connect_password = "${file:/etc/s/pins/connect.properties:password}"',
        'connect_password = "${file:/etc/x/../s/connect.properties:password}"',
        '[alerts.a]\nurl = "${file:/etc/s/alerts.properties:url}"',
        '[worker_kafka]\n"sasl.jaas.config" = \'x password="${file:/etc/s/worker.properties:p}";\'',
    ],
)
def test_the_platform_s_own_secrets_do_not_lie_among_those_of_datasets(tmp_path: Path, text: str) -> None:
    file = tmp_path / "cdc-platform.toml"
    file.write_text(f'secrets_dirs = ["/etc/s/"]\n{text}\n')
    with pytest.raises(SettingsError, match="secrets of datasets"):
        Settings.load(file, env={})
