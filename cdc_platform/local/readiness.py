"""The probe of each kind of service."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from cdc_platform.local import kafka, mariadb, mysql, postgres, workers
from cdc_platform.local.probes import Probe
from cdc_platform.local.services import Launch, Running
from cdc_platform.local.stack_passwords import read_login
from cdc_platform.local.stack_security import Security


def probe_of(
    launch: Launch, running: Running, *, secrets_dir: Path, zookeeper_port: int, security: Security | None = None
) -> Probe:
    """The probe of a service that was started, known by the kind of port that it has; an agent has none."""
    ports = launch.ports
    if "kafka" in ports:
        return partial(kafka.kafka_problem, ports["kafka"], security)
    if "zookeeper" in ports:
        return partial(kafka.zookeeper_problem, ports["zookeeper"])
    if "connect" in ports:
        return partial(workers.worker_problem, ports["connect"], security)
    if "mariadb" in ports:
        return partial(mariadb.problem, ports["mariadb"], read_login(secrets_dir, "mariadb-admin"))
    if "mysql" in ports:
        return partial(mysql.problem, ports["mysql"], read_login(secrets_dir, "mysql-admin"))
    if "postgres" in ports:
        return partial(postgres.problem, ports["postgres"], read_login(secrets_dir, "postgres-admin"))
    return partial(workers.agent_problem, zookeeper_port, workers.beside(launch.name), running.pid, security)
