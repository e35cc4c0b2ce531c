"""The local stack's settings for `docker-compose.yml`: the same services, each in a container.

`python -m cdc_platform.local.containers render` writes `deploy/compose/` from
what the local stack itself runs with; only what must differ in a container is
changed, and a test holds the files to it. `secrets` makes passwords, once.
`programs` and `worker` are for the image: they provide the pinned jars and
start a Connect worker just as the local stack does.
"""

from __future__ import annotations

import os
import secrets as random_source
import tempfile
from collections.abc import Mapping
from pathlib import Path

import click

from cdc_platform.connectors.java_properties import render
from cdc_platform.connectors.jmx_export import jmx_exporter_config
from cdc_platform.connectors.worker_properties import JVM_FLAGS, WorkerSpec, reasons, worker_properties
from cdc_platform.errors import StackError
from cdc_platform.local import java, kafka, mariadb, postgres, postgres_directories, workers
from cdc_platform.local.artifacts import Lock, Programs, provide
from cdc_platform.local.stack_passwords import Login, ensure_login
from cdc_platform.model.topology import LEADER_DIR

WORKERS = 3
CLUSTER = "main"
REST_PORT = 8083
METRICS_PORT = 9404
# In the image.
HOME = Path("/opt/cdc-platform")
PLUGINS = HOME / "plugins"
SECRETS_DIR = Path("/run/secrets")
PASSFILE = "/var/lib/postgresql/passfile"

_HEADER = "# Made by `python -m cdc_platform.local.containers render`; what is changed here is lost.\n"

# What each container needs to have different, and no more; None leaves a setting out.
BROKER: Mapping[str, str | None] = {
    "controller.quorum.voters": "1@kafka:9093",
    "listeners": "PLAINTEXT://0.0.0.0:9092,CONTROLLER://0.0.0.0:9093",
    "advertised.listeners": "PLAINTEXT://kafka:9092",
    "log.dirs": "/var/lib/kafka/data",
}
ZOOKEEPER: Mapping[str, str | None] = {"dataDir": "/data", "clientPortAddress": None}
# The image knows where its files are, and its scripts use the standard socket.
MARIADB: Mapping[str, str | None] = {
    "basedir": None,
    "datadir": None,
    "tmpdir": None,
    "lc-messages-dir": None,
    "socket": None,
    "pid-file": None,
    "bind-address": None,
}
POSTGRES: Mapping[str, str | None] = {
    "listen_addresses": "'*'",
    "unix_socket_directories": "'/var/run/postgresql'",
}


def rendered() -> dict[str, str]:
    """Path below `deploy/compose/` to the file's text."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        return {
            "kafka/server.properties": _HEADER + _rewritten(_broker(root / "kafka"), BROKER, "="),
            "zookeeper/zoo.cfg": _HEADER + _rewritten(_zookeeper(root / "zookeeper"), ZOOKEEPER, "="),
            "mariadb/primary.cnf": _HEADER + _mariadb(root, "mariadb-primary", primary=True),
            "mariadb/replica.cnf": _HEADER + _mariadb(root, "mariadb-replica", primary=False),
            "postgres/primary.conf": _HEADER + _postgres(root, "postgres-primary", primary=True),
            "postgres/standby.conf": _HEADER + _postgres(root, "postgres-standby", primary=False),
            **{f"connect/worker-{n}.properties": _HEADER + _worker(n) for n in range(WORKERS)},
            "connect/jmx.yaml": _HEADER + jmx_exporter_config(),
            "cdc-platform.toml": _HEADER + _settings(),
        }


def worker_spec(number: int) -> WorkerSpec:
    """The worker `connect-<number>`."""
    return WorkerSpec(
        cluster=CLUSTER,
        bootstrap_servers="kafka:9092",
        plugin_path=(str(PLUGINS),),
        leader_dir=LEADER_DIR,
        secrets_dirs=(str(SECRETS_DIR),),
        host="0.0.0.0",
        port=REST_PORT,
        advertised_host=f"connect-{number}",
        replication=1,
    )


def make_secrets(directory: Path) -> None:
    """Random passwords for the accounts of the compose file; those that exist stay.

    The files are readable by all, because the containers run as different
    users; the directory is its owner's alone.
    """
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    for name, user in (
        ("mariadb", "cdc"),
        ("mariadb-replication", "stack_replication"),
        ("postgres", "cdc"),
        ("postgres-replication", "stack_replication"),
    ):
        ensure_login(directory, name, user)
        (directory / f"{name}.properties").chmod(0o644)
    for name in ("mariadb-root", "postgres-root", "dagster-postgres"):
        path = directory / f"{name}.txt"
        if not path.exists():
            path.write_text(random_source.token_urlsafe(18))
            path.chmod(0o644)


def _broker(home: Path) -> str:
    kafka.kafka_launch(home, {"kafka": 9092, "controller": 9093}, _no_programs("kafka"), home / "log")
    return (home / "server.properties").read_text()


def _zookeeper(home: Path) -> str:
    kafka.zookeeper_launch(home, {"zookeeper": 2181}, _no_programs("zookeeper"), home / "log")
    return (home / "zoo.cfg").read_text()


def _no_programs(part: str) -> Programs:
    """Settings do not depend on where the jars are."""
    return Programs(jars={part: ()}, directories={})


def _mariadb(root: Path, name: str, *, primary: bool) -> str:
    mariadb.write_config(root / name, name, port=3306, primary=primary, basedir=root)
    return _rewritten((root / name / "my.cnf").read_text(), MARIADB, "=")


def _postgres(root: Path, name: str, *, primary: bool) -> str:
    directories = postgres_directories.PostgresDirectories(root=root, bindir=root, user=None)
    account = Login(user="stack_replication", password="")
    postgres.write_config(directories, name, port=5432, other_port=5432, primary=primary, replication=account)
    conninfo = f"'host=postgres-primary port=5432 user={account.user} passfile={PASSFILE} dbname=postgres'"
    changes = {**POSTGRES, "primary_conninfo": None if primary else conninfo}
    if primary:
        changes["primary_slot_name"] = None
    return _rewritten((root / f"{name}.conf").read_text(), changes, " = ")


def _worker(number: int) -> str:
    spec = worker_spec(number)
    return render(worker_properties(spec), reasons(spec))


def _settings() -> str:
    return (
        f'zookeeper = "zookeeper:2181"\nsecrets_dirs = ["{SECRETS_DIR}"]\n'
        'cache_dir = "/var/cache/cdc-platform"\n\n'
        '[kafka]\n"bootstrap.servers" = "kafka:9092"\n'
    )


def _rewritten(text: str, changes: Mapping[str, str | None], separator: str) -> str:
    """The settings with some replaced or left out, and the comments above the others."""
    out: list[str] = []
    comments: list[str] = []
    left = dict(changes)
    for line in text.splitlines():
        if line.startswith("#"):
            comments.append(line)
            continue
        name = line.split(separator, 1)[0].strip()
        if name not in changes:
            out += [*comments, line]
        elif (value := left.pop(name, None)) is not None:
            out += [*comments, f"{name}{separator}{value}"]
        comments = []
    if left:
        raise StackError(
            f"the local stack no longer sets {', '.join(sorted(left))}.",
            field="containers",
            cure="Take it out of the changes in cdc_platform/local/containers.py.",
        )
    return "\n".join(out) + "\n"


@click.group()
def main() -> None:
    """Files and programs for docker-compose.yml."""


@main.command("render")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), default=Path("deploy/compose"))
def render_files(directory: Path) -> None:
    """Write the settings of all services."""
    for name, text in rendered().items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@main.command("secrets")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), default=Path("deploy/compose/secrets"))
def secrets_files(directory: Path) -> None:
    """Make the passwords that do not exist yet."""
    make_secrets(directory)


@main.command()
@click.argument("home", type=click.Path(file_okay=False, path_type=Path), default=HOME)
def programs(home: Path) -> None:
    """Provide Kafka's jars, the Debezium plugins and the JMX agent in HOME."""
    found = provide(home, _lock())
    plugins = home / PLUGINS.name
    plugins.mkdir(exist_ok=True)
    for part in workers.PLUGINS:
        link = plugins / part
        link.unlink(missing_ok=True)
        link.symlink_to(found.directories[part])


@main.command()
@click.argument("config", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@click.option("--home", type=click.Path(file_okay=False, path_type=Path), default=HOME)
@click.option("--heap-mb", default=1024, show_default=True)
@click.option("--exporter", type=click.Path(dir_okay=False, exists=True, path_type=Path), required=True)
def worker(config: Path, home: Path, heap_mb: int, exporter: Path) -> None:
    """Become the Connect worker that CONFIG describes."""
    found = provide(home, _lock())
    (agent,) = found.jars["jmx-agent"]
    scratch = Path(tempfile.mkdtemp())
    argv = java.command(
        found.classpath("kafka"),
        "org.apache.kafka.connect.cli.ConnectDistributed",
        str(config),
        home=scratch,
        heap_mb=heap_mb,
        flags=(f"-javaagent:{agent}={METRICS_PORT}:{exporter}", *kafka.log4j_flags(scratch), *JVM_FLAGS),
    )
    os.execv(argv[0], argv)


def _lock() -> Lock:
    return Lock.load().only(("kafka", "jmx-agent", *workers.PLUGINS))


if __name__ == "__main__":
    main()
