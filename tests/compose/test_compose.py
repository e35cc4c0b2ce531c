"""docker-compose.yml: valid, pinned, closed to the outside, and with the local stack's own settings.

No container engine is needed; `docker compose config` is asked where there is one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from cdc_platform.connectors.worker_properties import WORKER_ENV
from cdc_platform.documents import load_yaml
from cdc_platform.local import containers, kafka, mariadb, postgres, postgres_directories, workers
from cdc_platform.local.artifacts import Lock, Programs
from cdc_platform.local.stack_passwords import Login
from cdc_platform.model.topology import LEADER_DIR
from cdc_platform.settings import Settings

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
DEPLOY = ROOT / "deploy" / "compose"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
CONNECT = [f"connect-{number}" for number in range(containers.WORKERS)]


def mounts(service: str) -> dict[str, str]:
    """Target to source of a service's mounts."""
    pairs = (volume.split(":")[:2] for volume in SERVICES[service].get("volumes", ()))
    return {target: source for source, target in pairs}


def mounted(service: str, target: str) -> str:
    """The text of the file that a service sees at `target`."""
    return (ROOT / mounts(service)[target]).read_text()


def settings(text: str, separator: str) -> dict[str, str]:
    lines = (line for line in text.splitlines() if line and not line.startswith(("#", "[")))
    pairs = (line.partition(separator) for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}


def differing(one: dict[str, str], other: dict[str, str]) -> set[str]:
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


def test_the_compose_file_keeps_the_compose_specification() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_docker_compose_reads_it() -> None:
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "compose", "version"], capture_output=True).returncode != 0:
        pytest.skip("there is no `docker compose` here")
    done = subprocess.run([docker, "compose", "-f", str(FILE), "config", "-q"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", sorted(containers.rendered()))
def test_mounted_settings_are_the_generated_ones(name: str) -> None:
    found = (DEPLOY / name).read_text()
    assert found == containers.rendered()[name], "run `python -m cdc_platform.local.containers render`"


def test_the_broker_runs_with_the_local_stack_s_settings(tmp_path: Path) -> None:
    kafka.kafka_launch(
        tmp_path, {"kafka": 9092, "controller": 9093}, Programs(jars={"kafka": ()}, directories={}), tmp_path / "log"
    )
    local = settings((tmp_path / "server.properties").read_text(), "=")
    here = settings(mounted("kafka", "/etc/cdc-platform/server.properties"), "=")
    assert differing(local, here) == set(containers.BROKER)


def test_zookeeper_runs_with_the_local_stack_s_settings(tmp_path: Path) -> None:
    kafka.zookeeper_launch(
        tmp_path, {"zookeeper": 2181}, Programs(jars={"zookeeper": ()}, directories={}), tmp_path / "log"
    )
    local = settings((tmp_path / "zoo.cfg").read_text(), "=")
    here = settings(mounted("zookeeper", "/etc/cdc-platform/zoo.cfg"), "=")
    assert differing(local, here) == set(containers.ZOOKEEPER)


@pytest.mark.parametrize(("service", "primary"), [("mariadb-primary", True), ("mariadb-replica", False)])
def test_mariadb_runs_with_the_local_stack_s_settings(tmp_path: Path, service: str, primary: bool) -> None:
    mariadb.write_config(tmp_path, service, port=3306, primary=primary, basedir=tmp_path)
    local = settings((tmp_path / "my.cnf").read_text(), "=")
    here = settings(mounted(service, "/etc/mysql/conf.d/cdc-platform.cnf"), "=")
    assert differing(local, here) == set(containers.MARIADB)
    assert here["binlog_row_image"] == "FULL"


@pytest.mark.parametrize(("service", "primary"), [("postgres-primary", True), ("postgres-standby", False)])
def test_postgres_runs_with_the_local_stack_s_settings(tmp_path: Path, service: str, primary: bool) -> None:
    place = postgres_directories.PostgresDirectories(root=tmp_path, bindir=tmp_path, user=None)
    account = Login(user="stack_replication", password="")
    postgres.write_config(place, service, port=5432, other_port=5432, primary=primary, replication=account)
    local = settings((tmp_path / f"{service}.conf").read_text(), " = ")
    here = settings(mounted(service, "/etc/postgresql/postgresql.conf"), " = ")
    expected = {*containers.POSTGRES, "primary_conninfo"} | ({"primary_slot_name"} if primary else set())
    assert differing(local, here) == expected


@pytest.mark.parametrize("number", range(containers.WORKERS))
def test_workers_run_with_the_local_stack_s_settings(tmp_path: Path, number: int) -> None:
    workers.worker_launch(
        number,
        tmp_path,
        ports={"connect": 8083, "metrics": 9404},
        kafka_port=9092,
        secrets=containers.SECRETS_DIR,
        programs=Programs(
            jars={"kafka": (), "jmx-agent": (tmp_path,)},
            directories=dict.fromkeys(workers.PLUGINS, tmp_path),
        ),
        heap_mb=1024,
        overrides={},
        log=tmp_path / "log",
    )
    local = settings((tmp_path / "worker.properties").read_text(), "=")
    here = settings(mounted(f"connect-{number}", "/etc/cdc-platform/worker.properties"), "=")
    assert differing(local, here) == {
        "bootstrap.servers",
        "group.id",
        "config.storage.topic",
        "offset.storage.topic",
        "status.storage.topic",
        "listeners",
        "rest.advertised.host.name",
        "plugin.path",
        "config.providers.file.param.allowed.paths",
    }
    assert mounted(f"connect-{number}", "/etc/cdc-platform/jmx.yaml").endswith((tmp_path / "jmx.yaml").read_text())
    assert SERVICES[f"connect-{number}"]["environment"][WORKER_ENV] == workers.worker_name(number)


def test_accounts_have_the_local_stack_s_rights() -> None:
    script = mounted("mariadb-primary", "/docker-entrypoint-initdb.d/10-accounts.sh")
    granted = re.findall(r"^GRANT (.+) ON \*\.\* TO '\$\(value (\S+) user\)'", script, re.MULTILINE)
    assert [rights for rights, login in granted if login == "mariadb"] == [mariadb.SOURCE_GRANTS]
    assert f"('{postgres.STANDBY_SLOT}', true)" in mounted(
        "postgres-primary", "/docker-entrypoint-initdb.d/10-accounts.sh"
    )


def test_an_agent_stands_beside_each_worker_and_shares_its_leader_directory() -> None:
    for number, name in enumerate(CONNECT):
        agent = SERVICES[f"agent-{number}"]
        assert mounts(f"agent-{number}") == {LEADER_DIR: f"leaders-{number}"}
        assert mounts(name)[LEADER_DIR] == f"leaders-{number}"
        words = agent["command"].split()
        assert words[words.index("--worker") + 1] == SERVICES[name]["environment"][WORKER_ENV]
        assert words[words.index("--connect-url") + 1] == f"http://{name}:{containers.REST_PORT}"


def image(name: str) -> str:
    """The image that a service has unless its variable names another, such as one with a digest."""
    return re.sub(r"^\$\{[A-Z]+_IMAGE:-(.+)\}$", r"\1", SERVICES[name]["image"])


def test_images_are_those_that_the_lock_pins() -> None:
    lock = Lock.load()
    versions = {part: found[0].version for part, found in lock.parts.items()}
    assert image("kafka") == f"apache/kafka:{versions['kafka']}"
    assert image("zookeeper") == f"zookeeper:{versions['zookeeper']}"
    for name in ("mariadb-primary", "mariadb-replica"):
        assert image(name) == f"mariadb:{versions['mariadb']}"
    for name in ("postgres-primary", "postgres-standby"):
        assert f"{image(name)}.0" == f"postgres:{versions['postgres']}"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_image_is_pinned(name: str) -> None:
    tag = image(name).rpartition(":")[2]
    assert re.fullmatch(r"v?\d+\.\d+(\.\d+)?", tag)


WAITS = [(name, other) for name, service in SERVICES.items() for other in service.get("depends_on", {})]
PASSWORDS = [
    (name, variable)
    for name, service in SERVICES.items()
    for variable in service.get("environment", {})
    if "PASSWORD" in variable
]


@pytest.mark.parametrize(("name", "other"), WAITS)
def test_who_waits_waits_for_health(name: str, other: str) -> None:
    assert SERVICES[name]["depends_on"][other] == {"condition": "service_healthy"}
    assert SERVICES[other]["healthcheck"]["test"]


def test_every_worker_and_agent_waits_for_what_it_needs() -> None:
    assert {other for name, other in WAITS if name in CONNECT} >= {"kafka"}
    assert {other for name, other in WAITS if name.startswith("agent-")} >= {"zookeeper"}


def sources_of(name: str) -> dict[str, str]:
    """A service's secrets: name to where its file is below /run/secrets."""
    given = SERVICES[name].get("secrets", ())
    return dict((one["source"], one["target"]) if isinstance(one, dict) else (one, one) for one in given)


@pytest.mark.parametrize(("name", "variable"), PASSWORDS)
def test_secrets_are_files(name: str, variable: str) -> None:
    path = Path(SERVICES[name]["environment"][variable])
    assert variable.endswith("_FILE")
    assert path.parent == containers.SECRETS_DIR
    assert path.name in sources_of(name)


def test_every_secret_is_a_file_that_is_made_on_the_spot() -> None:
    named = {secret for name in SERVICES for secret in sources_of(name)}
    assert named == set(COMPOSE["secrets"])
    assert {str(Path(secret["file"]).parent) for secret in COMPOSE["secrets"].values()} == {"deploy/compose/secrets"}


def test_the_secrets_that_are_made_are_those_that_are_named(tmp_path: Path) -> None:
    directory = tmp_path / "secrets"
    containers.make_secrets(directory)
    named = {Path(secret["file"]).name for secret in COMPOSE["secrets"].values()}
    made = {path.name: path.read_text() for path in directory.iterdir()}
    assert set(made) == named
    assert directory.stat().st_mode & 0o777 == 0o700
    containers.make_secrets(directory)
    assert {path.name: path.read_text() for path in directory.iterdir()} == made


def test_no_port_is_open_to_the_outside() -> None:
    for service in SERVICES.values():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:")


def test_every_mounted_file_is_there() -> None:
    for name in SERVICES:
        for source in mounts(name).values():
            if source.startswith("."):
                assert (ROOT / source).exists(), source
            else:
                assert source in COMPOSE["volumes"]


def test_the_example_topology_names_services_of_this_file() -> None:
    topology = load_yaml(ROOT / "examples" / "topology.yaml")
    (cluster,) = topology.clusters.values()
    assert cluster.name == containers.CLUSTER
    assert cluster.leader_dir == LEADER_DIR
    assert sorted(urlsplit(url).netloc for url in cluster.urls) == [f"{n}:{containers.REST_PORT}" for n in CONNECT]
    for dataset, shard in topology.all_shards():
        assert {address.host for address in (shard.leader, *shard.replicas)} <= set(SERVICES)
        for reference in (dataset.credentials.user, dataset.credentials.password):
            secret = Path(reference.split(":")[1])
            for reader in (*CONNECT, "dagster-code"):
                assert secret.parent == containers.SECRETS_DIR / dataset.name
                assert f"{dataset.name}/{secret.name}" in sources_of(reader).values()


def test_the_platform_s_settings_load() -> None:
    found = Settings.load(DEPLOY / "cdc-platform.toml", env={})
    assert found.kafka["bootstrap.servers"] == "kafka:9092"
    assert found.zookeeper == "zookeeper:2181"
    assert found.cache_dir in mounts("dagster-code")


def test_dagster_runs_on_postgres() -> None:
    for name in ("dagster-code", "dagster-webserver", "dagster-daemon"):
        assert mounts(name)["/opt/dagster/home/dagster.yaml"] == "./dagster_home/postgres.yaml"
        wanted = set(re.findall(r"env: (\w+)", (ROOT / "dagster_home" / "postgres.yaml").read_text()))
        assert wanted - {"DAGSTER_POSTGRES_PASSWORD"} <= set(SERVICES[name]["environment"])
        assert 'DAGSTER_POSTGRES_PASSWORD="$$(cat /run/secrets/dagster-postgres)"' in SERVICES[name]["command"][2]


@pytest.mark.parametrize("script", sorted(str(path.relative_to(DEPLOY)) for path in DEPLOY.glob("*/*.sh")))
def test_scripts_are_shell(script: str) -> None:
    done = subprocess.run(["sh", "-n", str(DEPLOY / script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (DEPLOY / script).stat().st_mode & 0o111
