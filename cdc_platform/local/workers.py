"""The stack's Connect workers, configured as operators configure theirs, and the agent beside each."""

from __future__ import annotations

import json
import logging
import sys
from base64 import b64encode
from collections.abc import Mapping
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException, NoNodeError

from cdc_platform.connectors.java_properties import render
from cdc_platform.connectors.jmx_export import jmx_exporter_config
from cdc_platform.connectors.worker_properties import JVM_FLAGS, WORKER_ENV, WorkerSpec, worker_properties
from cdc_platform.documents import Layout
from cdc_platform.local import java
from cdc_platform.local.artifacts import Programs
from cdc_platform.local.kafka import KAFKA, ZOOKEEPER, log4j_flags
from cdc_platform.local.services import Launch
from cdc_platform.local.stack_security import Security

_quiet = logging.getLogger(f"{__name__}.kazoo")
_quiet.setLevel(logging.CRITICAL)

CLUSTER = "local"
ROOT = "/cdc"  # where the platform's settings look in ZooKeeper by default
PLUGINS = ("debezium-mariadb", "debezium-mysql", "debezium-postgres")
# One path for all workers, and a directory of its own for each: a worker runs
# in its own directory, as if it were on its own host.
LEADER_DIR = "/proc/self/cwd/leaders"


def worker_name(number: int) -> str:
    """The service name of a worker, also its `${env:WORKER}`: w0, w1, ..."""
    return f"w{number}"


def agent_name(number: int) -> str:
    """The service name of the agent beside a worker."""
    return f"agent-w{number}"


def beside(agent: str) -> str:
    """The worker that an agent, by its service name, stands beside."""
    return agent.removeprefix("agent-")


def zone(number: int) -> str:
    """The availability zone that a worker pretends to be in: az-a, az-b, az-c, az-a, ..."""
    return f"az-{'abc'[number % 3]}"


def worker_launch(
    number: int,
    home: Path,
    *,
    ports: Mapping[str, int],
    kafka_port: int,
    secrets: Path,
    programs: Programs,
    heap_mb: int,
    overrides: Mapping[str, str],
    log: Path,
    security: Security | None = None,
) -> Launch:
    """Write a worker's configuration. `ports` holds `connect` (REST) and `metrics`."""
    (home / "leaders").mkdir(parents=True, exist_ok=True)
    rest, flags = security.worker(home) if security else ({}, ())
    spec = WorkerSpec(
        cluster=CLUSTER,
        bootstrap_servers=f"127.0.0.1:{kafka_port}",
        plugin_path=tuple(str(programs.directories[part]) for part in PLUGINS),
        leader_dir=LEADER_DIR,
        secrets_dirs=(str(secrets),),
        port=ports["connect"],
        https=security is not None,
        replication=1,
        kafka=security.worker_kafka() if security else {},
        extra={**rest, **overrides},
    )
    config = home / "worker.properties"
    config.write_text(render(worker_properties(spec)))
    exporter = home / "jmx.yaml"
    exporter.write_text(jmx_exporter_config())
    (agent,) = programs.jars["jmx-agent"]
    return Launch(
        name=worker_name(number),
        argv=java.command(
            programs.classpath("kafka"),
            "org.apache.kafka.connect.cli.ConnectDistributed",
            str(config),
            home=home,
            heap_mb=heap_mb,
            flags=(
                f"-javaagent:{agent}=127.0.0.1:{ports['metrics']}:{exporter}",
                *log4j_flags(home),
                *JVM_FLAGS,
                *flags,
            ),
        ),
        cwd=str(home),
        env={**java.environment(), WORKER_ENV: worker_name(number)},
        log=str(log),
        ports=ports,
        stage=2,
        needs=(KAFKA,),
        grace=15.0,
    )


def agent_launch(
    number: int, home: Path, *, zookeeper_port: int, connect_port: int, log: Path, settings: Path, https: bool
) -> Launch:
    """The agent beside a worker: keeps the leader files in the worker's directory `home`.

    `settings` says where datasets' secrets are, and on a secure stack how it reaches ZooKeeper and its worker.
    """
    return Launch(
        name=agent_name(number),
        argv=(
            sys.executable, "-m", "cdc_platform.agent",
            "--worker", worker_name(number),
            "--zookeeper", f"127.0.0.1:{zookeeper_port}",
            "--zookeeper-root", ROOT,
            "--connect-url", f"{'https' if https else 'http'}://127.0.0.1:{connect_port}",
            "--leader-dir", str(home / "leaders"),
            "--settings", str(settings),
        ),
        cwd=str(home),
        env={**java.environment(), **java.python_path(), "PYTHONUNBUFFERED": "1"},
        log=str(log),
        stage=3,
        needs=(ZOOKEEPER,),
        grace=5.0,
    )  # fmt: skip


def worker_problem(port: int, security: Security | None = None) -> str | None:
    """None when the worker has joined its group and read its config. A probe (KIP-1017)."""
    # Not httpx: it reads all trusted certificates for each client, 50 ms a call.
    connection: HTTPConnection
    if security is None:
        connection, headers = HTTPConnection("127.0.0.1", port, timeout=10.0), {}
    else:
        connection = HTTPSConnection("127.0.0.1", port, timeout=10.0, context=security.trust())
        login = ":".join(security.rest_auth()).encode()
        headers = {"Authorization": f"Basic {b64encode(login).decode()}"}
    try:
        connection.request("GET", "/health", headers=headers)
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
    except (OSError, HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    return None if answer.status == HTTPStatus.OK else text


def agent_problem(zookeeper_port: int, worker: str, pid: int, security: Security | None = None) -> str | None:
    """None when the agent beside a worker, of that pid, has registered itself. A probe.

    A killed agent's registration stays until its session ends: hence the pid.
    """
    auth = [("digest", ":".join(security.zookeeper_auth()))] if security else None
    client = KazooClient(hosts=f"127.0.0.1:{zookeeper_port}", timeout=4.0, logger=_quiet, auth_data=auth)
    try:
        client.start(timeout=4.0)
        document, _ = client.get(Layout(ROOT).agent(worker))
    except NoNodeError:
        return "it has not registered itself yet"
    except (KazooException, client.handler.timeout_exception) as error:
        return f"ZooKeeper: {type(error).__name__} {error}"
    finally:
        client.stop()
        client.close()
    registered = json.loads(document).get("pid")
    return None if registered == pid else f"pid {registered} is still registered"
