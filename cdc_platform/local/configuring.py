"""Writing the configuration of all services of a stack."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cdc_platform.local import kafka, mariadb, mysql, postgres, postgres_directories, workers
from cdc_platform.local.artifacts import Programs
from cdc_platform.local.mysql_program import Program
from cdc_platform.local.services import Launch
from cdc_platform.local.stack import Stack, StackSpec
from cdc_platform.local.stack_passwords import logins
from cdc_platform.local.stack_security import Security
from cdc_platform.settings import CONFIG_FILE


def port_names(spec: StackSpec) -> list[str]:
    """All ports that the stack needs, as `<service>.<port>`."""
    names = ["zookeeper.zookeeper", "kafka.kafka", "kafka.controller"]
    if spec.worker_broker_port is not None:
        names.append("kafka.workers")
    for number in range(spec.workers):
        names += [f"{workers.worker_name(number)}.{port}" for port in ("connect", "metrics")]
    if spec.mariadb:
        names += [f"{name}.mariadb" for name in mariadb.SERVERS]
    if spec.mysql:
        names += [f"{name}.mysql" for name in mysql.SERVERS]
    if spec.postgres:
        names += [f"{name}.postgres" for name in postgres.SERVERS]
    return names


def configure(
    spec: StackSpec,
    directory: Path,
    ports: Mapping[str, int],
    programs: Programs,
    before: Stack | None,
    mysql_program: Program | None = None,
) -> Stack:
    """Write all configuration files and the settings; the stack as it will be.

    `before` is what was in the directory: who was the primary is it again.
    """
    launches: dict[str, Launch] = {}
    security = Security(directory) if spec.secure else None
    if security is not None:
        security.prepare()

    def of(service: str) -> dict[str, int]:
        prefix = f"{service}."
        return {name.removeprefix(prefix): port for name, port in ports.items() if name.startswith(prefix)}

    def log(service: str) -> Path:
        return directory / "logs" / f"{service}.log"

    def add(launch: Launch) -> None:
        launches[launch.name] = launch

    add(kafka.zookeeper_launch(directory / "zookeeper", of("zookeeper"), programs, log("zookeeper")))
    through = spec.worker_broker_port
    add(kafka.kafka_launch(directory / "kafka", of("kafka"), programs, log("kafka"), security, through))
    mariadb_servers = _servers(spec.mariadb, mariadb.SERVERS, before.mariadb if before else ())
    for name in mariadb.SERVERS if spec.mariadb else ():
        home, port = directory / name, ports[f"{name}.mariadb"]
        basedir = programs.directories["mariadb"]
        mariadb.write_config(home, name, port=port, primary=name == mariadb_servers[0], basedir=basedir)
        add(mariadb.launch(home, name, port=port, basedir=basedir, log=log(name)))
    mysql_servers = _servers(spec.mysql, mysql.SERVERS, before.mysql if before else ())
    if mysql_program is not None:
        for name in mysql.SERVERS:
            home, port = directory / name, ports[f"{name}.mysql"]
            mysql.write_config(home, name, port=port, primary=name == mysql_servers[0], security=security)
            add(mysql.launch(home, name, port=port, program=mysql_program, log=log(name)))
    postgres_servers = _servers(spec.postgres, postgres.SERVERS, before.postgres if before else ())
    if spec.postgres:
        directories = postgres_directories.find_directories(directory / "postgres", programs)
        replication = logins(directory / "secrets", "postgres").replication
        for name, other in zip(postgres.SERVERS, reversed(postgres.SERVERS), strict=True):
            port = ports[f"{name}.postgres"]
            postgres.write_config(
                directories,
                name,
                port=port,
                other_port=ports[f"{other}.postgres"],
                primary=name == postgres_servers[0],
                replication=replication,
            )
            add(postgres.launch(directories, name, port=port, log=log(name)))
    names = tuple(workers.worker_name(number) for number in range(spec.workers))
    for number, name in enumerate(names):
        add(
            workers.worker_launch(
                number,
                directory / "workers" / name,
                ports=of(name),
                kafka_port=through or ports["kafka.kafka"],
                secrets=directory / "secrets",
                programs=programs,
                heap_mb=spec.worker_heap_mb,
                overrides=spec.worker_properties,
                log=log(name),
                security=security,
            )
        )
    for number, name in enumerate(names if spec.agents else ()):
        add(
            workers.agent_launch(
                number,
                directory / "workers" / name,
                zookeeper_port=ports["zookeeper.zookeeper"],
                connect_port=ports[f"{name}.connect"],
                log=log(workers.agent_name(number)),
                settings=directory / CONFIG_FILE,
                https=security is not None,
            )
        )
    stack = Stack(
        directory=directory,
        launches=launches,
        workers=names,
        mariadb=mariadb_servers,
        postgres=postgres_servers,
        mysql=mysql_servers,
        mysql_version=f"{mysql_program.version} ({mysql_program.origin})" if mysql_program else "",
        secure=spec.secure,
    )
    stack.save()
    worker_kafka = {"bootstrap.servers": f"127.0.0.1:{through}"} if through else {}
    (directory / CONFIG_FILE).write_text(_settings(stack, security, worker_kafka))
    return stack


def _settings(stack: Stack, security: Security | None, worker_kafka: Mapping[str, str]) -> str:
    kafka = security.kafka_client(str(stack.kafka)) if security else {"bootstrap.servers": str(stack.kafka)}
    tables = {"kafka": kafka, "worker_kafka": security.worker_kafka() if security else worker_kafka}
    return (
        f'zookeeper = "{stack.zookeeper}"\n'
        # Ports are used again by other stacks: what one left in a shared cache would be another's.
        f'cache_dir = "{stack.directory / "cache"}"\n'
        f'audit_dir = "{stack.directory / "audit"}"\n'
        f'secrets_dirs = ["{stack.dataset_secrets_dir}"]\n'
        + (security.settings_text() if security else "")
        + "".join(
            f"[{name}]\n" + "".join(f"\"{option}\" = '{value}'\n" for option, value in options.items())
            for name, options in tables.items()
            if options
        )
    )


def _servers(enabled: bool, names: tuple[str, str], before: tuple[str, ...]) -> tuple[str, ...]:
    if not enabled:
        return ()
    return before or names
