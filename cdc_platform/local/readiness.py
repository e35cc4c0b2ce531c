"""Which probe tells that a service is ready."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from cdc_platform.local import kafka, mariadb, postgres, workers
from cdc_platform.local.probes import Probe
from cdc_platform.local.secrets import read_login
from cdc_platform.local.services import Launch


def probe_of(launch: Launch, secrets_dir: Path) -> Probe:
    """The probe of a service, known by the kind of port that it has."""
    ports = launch.ports
    if "kafka" in ports:
        return partial(kafka.kafka_problem, ports["kafka"])
    if "zookeeper" in ports:
        return partial(kafka.zookeeper_problem, ports["zookeeper"])
    if "connect" in ports:
        return partial(workers.worker_problem, ports["connect"])
    if "mariadb" in ports:
        return partial(mariadb.problem, ports["mariadb"], read_login(secrets_dir, "mariadb-admin"))
    if "postgres" in ports:
        return partial(postgres.problem, ports["postgres"], read_login(secrets_dir, "postgres-admin"))
    return lambda: None
