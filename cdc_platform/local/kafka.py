"""The stack's Kafka broker (KRaft, broker and controller in one) and its ZooKeeper."""

from __future__ import annotations

import os
import shutil
import socket
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from cdc_platform.connectors.java_properties import render
from cdc_platform.errors import StackError
from cdc_platform.local import java
from cdc_platform.local.artifacts import Programs
from cdc_platform.local.services import Launch
from cdc_platform.local.short_program import run_program
from cdc_platform.local.stack_security import Security

KAFKA = "kafka"
ZOOKEEPER = "zookeeper"

_LOG4J = """\
status=warn
rootLogger.level=info
rootLogger.appenderRef.out.ref=out
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{ISO8601} %p %X{connector.context}%m (%c:%L)%n%ex
"""


def log4j_flags(directory: Path) -> tuple[str, ...]:
    """The JVM flags that make Kafka's programs log to their standard output."""
    path = directory / "log4j2.properties"
    path.write_text(_LOG4J)
    return (f"-Dlog4j2.configurationFile={path}",)


def kafka_launch(
    home: Path,
    ports: Mapping[str, int],
    programs: Programs,
    log: Path,
    security: Security | None = None,
    worker_port: int | None = None,
) -> Launch:
    """Write the broker's configuration.

    `ports` holds `kafka` (clients), `controller` and, with `worker_port`, `workers`: a listener of the workers'
    own, which is advertised to them as `worker_port`.
    """
    home.mkdir(parents=True, exist_ok=True)
    listeners = advertised = f"{'CLIENTS' if security else 'PLAINTEXT'}://127.0.0.1:{ports['kafka']}"
    protocols = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"
    if worker_port is not None:
        protocols += ",WORKERS:PLAINTEXT"
        listeners += f",WORKERS://127.0.0.1:{ports['workers']}"
        advertised += f",WORKERS://127.0.0.1:{worker_port}"
    config = home / "server.properties"
    # With security it holds passwords.
    config.touch(mode=0o600)
    config.chmod(0o600)
    config.write_text(
        render(
            {
                "process.roles": "broker,controller",
                "node.id": "1",
                "controller.quorum.voters": f"1@127.0.0.1:{ports['controller']}",
                "listeners": f"{listeners},CONTROLLER://127.0.0.1:{ports['controller']}",
                "advertised.listeners": advertised,
                "controller.listener.names": "CONTROLLER",
                "listener.security.protocol.map": protocols,
                "log.dirs": str(home / "data"),
                "num.partitions": "1",
                "default.replication.factor": "1",
                "offsets.topic.replication.factor": "1",
                "offsets.topic.num.partitions": "5",
                "transaction.state.log.replication.factor": "1",
                "transaction.state.log.min.isr": "1",
                "transaction.state.log.num.partitions": "5",
                "share.coordinator.state.topic.replication.factor": "1",
                "share.coordinator.state.topic.min.isr": "1",
                # Topics are made by the platform, with explicit partitions: a
                # misspelt one must fail here as it would in production.
                "auto.create.topics.enable": "false",
                "group.initial.rebalance.delay.ms": "0",
                # Index files are allocated at full size: the default of 10 MiB
                # a partition, twice, fills small disks.
                "log.index.size.max.bytes": "1048576",
                "log.cleaner.dedupe.buffer.size": "16777216",
                "num.network.threads": "2",
                "num.io.threads": "4",
                **(security.broker() if security else {}),
            }
        )
    )
    return Launch(
        name=KAFKA,
        argv=java.command(
            programs.classpath("kafka"), "kafka.Kafka", str(config), home=home, heap_mb=512, flags=log4j_flags(home)
        ),
        cwd=str(home),
        env=java.environment(),
        log=str(log),
        ports=ports,
        stage=1,
        grace=15.0,
    )


def format_storage(home: Path, programs: Programs, security: Security | None = None) -> None:
    """Format the broker's storage, once, for the configuration in `home`.

    Raises:
        StackError: Kafka's own words.
    """
    data = home / "data"
    done_marker = home / "formatted"
    if done_marker.exists():
        return
    shutil.rmtree(data, ignore_errors=True)
    cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    argv = java.command(
        programs.classpath("kafka"),
        "kafka.tools.StorageTool",
        "format",
        # Joined by '=': an id that begins with a hyphen would be taken for an option.
        f"--cluster-id={cluster_id}",
        "--config",
        str(home / "server.properties"),
        *(security.scram_accounts() if security else ()),
        home=home,
        heap_mb=128,
        flags=log4j_flags(home),
    )
    done = run_program(argv)
    if done.returncode != 0:
        raise StackError(
            f"Kafka's storage could not be formatted: {(done.stdout + done.stderr).strip()[-2000:]}",
            where=str(data),
            cure="See that the disk has space.",
        )
    done_marker.touch()


def zookeeper_launch(home: Path, ports: Mapping[str, int], programs: Programs, log: Path) -> Launch:
    """Write ZooKeeper's configuration. `ports` holds `zookeeper`."""
    home.mkdir(parents=True, exist_ok=True)
    config = home / "zoo.cfg"
    config.write_text(
        f"tickTime=500\ndataDir={home / 'data'}\nclientPortAddress=127.0.0.1\n"
        f"clientPort={ports['zookeeper']}\nadmin.enableServer=false\n4lw.commands.whitelist=srvr\n"
        "maxClientCnxns=0\nautopurge.purgeInterval=1\nautopurge.snapRetainCount=3\n"
        "minSessionTimeout=1000\nmaxSessionTimeout=60000\n"
    )
    return Launch(
        name=ZOOKEEPER,
        argv=java.command(
            programs.classpath("zookeeper"),
            "org.apache.zookeeper.server.quorum.QuorumPeerMain",
            str(config),
            home=home,
            heap_mb=256,
            # A loopback stack: fsync would only slow down its 10,000 znodes.
            flags=("-Dzookeeper.forceSync=no", "-Dorg.slf4j.simpleLogger.showDateTime=true"),
        ),
        cwd=str(home),
        env=java.environment(),
        log=str(log),
        ports=ports,
        stage=0,
    )


def kafka_problem(port: int, security: Security | None = None) -> str | None:
    """None when the broker serves metadata. A probe."""
    if not listens(port):
        return "it does not listen yet"
    try:
        server = f"127.0.0.1:{port}"
        config = security.resolved_kafka_client(server) if security else {"bootstrap.servers": server}
        admin = AdminClient({**config, "log_level": 0})
        return None if admin.list_topics(timeout=3.0).brokers else "no broker is registered yet"
    except KafkaException as error:
        return str(error)


def zookeeper_problem(port: int) -> str | None:
    """None when ZooKeeper serves requests. A probe (four-letter word `srvr`)."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2.0) as connection:
            connection.sendall(b"srvr")
            answer = connection.makefile("rb").read(4096)
    except OSError as error:
        return str(error)
    return None if b"Mode:" in answer else "it is not serving requests yet"


def listens(port: int) -> bool:
    """True when a server accepts connections on that loopback port."""
    with socket.socket() as connection:
        connection.settimeout(1.0)
        return connection.connect_ex(("127.0.0.1", port)) == os.EX_OK
