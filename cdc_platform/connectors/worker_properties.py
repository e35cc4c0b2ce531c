"""The properties of a Kafka Connect worker that runs thousands of Debezium connectors.

One definition for operators (`cdc-platform worker-properties`), for the local
stack and for the compose file. Each value that departs from Kafka's default, or
that the platform leans on, carries its reason, printed as a comment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cdc_platform.connectors.permitted_options import PLATFORM_PRODUCER_OPTIONS, PRODUCER_OPTIONS
from cdc_platform.errors import TopologyError
from cdc_platform.model.topology import EMPTY, LEADER_DIR, Cluster

# Each worker's environment names the worker; connectors put it in a header of
# each event, so that an event can be blamed on the worker that sent it.
WORKER_ENV = "WORKER"

# Environment variables that connectors may refer to as `${env:NAME}`. All else
# of the worker's environment stays unreadable to those who can write a connector.
ENV_ALLOWLIST = rf"{WORKER_ENV}|CDC_[A-Z0-9_]+"

JSON_CONVERTER = "org.apache.kafka.connect.json.JsonConverter"

# For KAFKA_OPTS: without it a Kafka client in a worker makes any config provider that its options name, and reads any
# file of the worker's user. The worker's own providers, in its properties, are not affected.
JVM_FLAGS = ("-Dorg.apache.kafka.automatic.config.providers=none",)

_CLASSES = "org.apache.kafka.common.config.provider."


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """What differs from worker to worker and from place to place.

    `cluster` is the cluster's name in the topology. `host` is where the REST
    server listens, `advertised_host` what other workers call it (default:
    `host`). Connectors may read files below `leader_dir` and `secrets_dirs`,
    and nowhere else; they may set the producer options that are known to be
    harmless, and `client_options`. `kafka` holds more client properties in Java's spelling
    (security), given to the worker and to its producers, consumers and admins.
    With `https` the REST API is served over TLS (`listeners.https.ssl.*` in
    `extra`). `extra` goes on top of everything.
    """

    cluster: str
    bootstrap_servers: str
    plugin_path: tuple[str, ...]
    leader_dir: str = LEADER_DIR
    secrets_dirs: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8083
    advertised_host: str | None = None
    https: bool = False
    group_id: str | None = None
    replication: int = 3
    client_options: tuple[str, ...] = ()
    kafka: Mapping[str, str] = EMPTY
    extra: Mapping[str, str] = EMPTY

    def __post_init__(self) -> None:
        if not self.plugin_path:
            raise TopologyError(
                "no directory with plugins.",
                field="plugin.path",
                cure="Name the directory that holds the Debezium plugins.",
            )
        for path in (*self.plugin_path, self.leader_dir, *self.secrets_dirs):
            if not path.startswith("/") or "," in path:
                raise TopologyError(
                    f"{path!r} must be an absolute path without commas.",
                    field="path",
                    cure="Use an absolute path: workers compare paths by their text.",
                )
        if not 0 < self.port < 65536:
            raise TopologyError(f"{self.port} is not a TCP port.", field="port", cure="Use 1 to 65535.")
        if self.replication < 1:
            raise TopologyError(
                f"{self.replication} is not a valid replication factor.", field="replication", cure="Use 1 or more."
            )
        if self.host in ("0.0.0.0", "::", "") and not self.advertised_host:
            raise TopologyError(
                f"a worker that listens on {self.host!r} must say how others reach it.",
                field="advertised_host",
                cure="Name the host that the other workers can resolve.",
            )

    @property
    def group(self) -> str:
        """Connect's `group.id`, also the prefix of its three internal topics."""
        return self.group_id or f"cdc-connect-{self.cluster}"


def offsets_topic(cluster: Cluster) -> str:
    """Where the cluster's workers keep source offsets; a field `offsets_topic` of the cluster says another name."""
    return str(cluster.extra.get("offsets_topic") or f"cdc-connect-{cluster.name}-offsets")


@dataclass(frozen=True, slots=True)
class WorkerProperty:
    """One worker property, and why it has this value (empty: it only says where things are)."""

    name: str
    value: str
    reason: str = ""


def recommended(spec: WorkerSpec) -> tuple[WorkerProperty, ...]:
    """The properties of one worker with their reasons, in the order to print them."""
    p = WorkerProperty
    group = spec.group
    advertised = spec.advertised_host or spec.host
    found = [
        p("bootstrap.servers", spec.bootstrap_servers),
        p("group.id", group),
        p("config.storage.topic", f"{group}-configs"),
        p("offset.storage.topic", f"{group}-offsets"),
        p("status.storage.topic", f"{group}-status"),
        *(p(f"{topic}.storage.replication.factor", str(spec.replication)) for topic in ("config", "offset", "status")),
        p(
            "listeners",
            f"{'https' if spec.https else 'http'}://{_bracketed(spec.host)}:{spec.port}",
            "Whoever reaches the REST server can change any connector: loopback unless told otherwise.",
        ),
        p("rest.advertised.host.name", advertised),
        p("rest.advertised.port", str(spec.port)),
        *([p("rest.advertised.listener", "https", "Workers hand requests on to each other over TLS.")] * spec.https),
        p("plugin.path", ",".join(spec.plugin_path)),
        p(
            "plugin.discovery",
            "service_load",
            "Reads plugin manifests only; scanning every class of every jar costs seconds at each start.",
        ),
        p(
            "key.converter",
            JSON_CONVERTER,
            "Connect demands a default; each connector of the platform names its converters itself.",
        ),
        p("key.converter.schemas.enable", "false"),
        p("value.converter", JSON_CONVERTER),
        p("value.converter.schemas.enable", "false"),
        p(
            "config.providers",
            "file,env",
            "Secrets and leader addresses stay references in connector configs, resolved at each task start.",
        ),
        p("config.providers.file.class", f"{_CLASSES}FileConfigProvider"),
        p(
            "config.providers.file.param.allowed.paths",
            ",".join((spec.leader_dir, *spec.secrets_dirs)),
            "Without it a connector config could read any file of the worker's user. Each path must exist before "
            "the worker starts.",
        ),
        p("config.providers.env.class", f"{_CLASSES}EnvVarConfigProvider"),
        p(
            "config.providers.env.param.allowlist.pattern",
            ENV_ALLOWLIST,
            f"{WORKER_ENV} names the worker in each event's header; the rest of the environment is private.",
        ),
        p(
            "connector.client.config.override.policy",
            "Allowlist",
            "Connectors bound their producer's memory and ask for idempotence (producer.override.*), and can name "
            "no class, file or server. Kafka 4.2 or newer knows this policy.",
        ),
        p(
            "connector.client.config.override.allowlist",
            ",".join(sorted(PRODUCER_OPTIONS | PLATFORM_PRODUCER_OPTIONS | set(spec.client_options))),
            "What the platform sets, and sizes and times that a dataset may choose.",
        ),
        p("connect.protocol", "sessioned", "Incremental rebalances; calls between workers are signed."),
        p(
            "session.timeout.ms",
            "10000",
            "A dead worker is noticed after this long.",
        ),
        p(
            "heartbeat.interval.ms",
            "200",
            "Members learn of a rebalance at their next heartbeat: with 3000, bulk creation takes 2 to 3 "
            "times as long.",
        ),
        p(
            "scheduled.rebalance.max.delay.ms",
            "3000",
            "A dead worker's tasks stay down this long after it is noticed; Kafka's default is 5 minutes.",
        ),
        p(
            "rebalance.timeout.ms",
            "600000",
            "A worker with a thousand tasks may need minutes to start and stop them; one that misses this "
            "is thrown out, and its load topples the next.",
        ),
        p(
            "worker.unsync.backoff.ms",
            "10000",
            "A worker that is behind on the config topic leaves the group for this long, by default 5 min.",
        ),
        p("worker.sync.timeout.ms", "10000", "Thousands of configs take longer to read than 3 s."),
        p(
            "offset.flush.interval.ms",
            "5000",
            "What a crash sends again is at most what was produced since the last flush; the proof that a "
            "topic has reached a position waits for this commit.",
        ),
        p(
            "task.shutdown.graceful.timeout.ms",
            "30000",
            "Shared by all tasks that stop together; a task that is cut off may go on sending.",
        ),
        p(
            "topic.creation.enable",
            "false",
            "The platform makes the topics, with explicit partitions, replication and retention.",
        ),
        p(
            "topic.tracking.enable",
            "false",
            "Nothing reads it, and it is a record per connector and topic that each worker keeps in memory.",
        ),
        *(
            p(f"{prefix}{name}", value)
            for prefix in ("", "producer.", "consumer.", "admin.")
            for name, value in sorted(spec.kafka.items())
        ),
    ]
    known = {prop.name: index for index, prop in enumerate(found)}
    for name, value in sorted(spec.extra.items()):
        if name in known:
            found[known[name]] = p(name, value, "Set by the operator.")
        else:
            found.append(p(name, value, "Set by the operator."))
    return tuple(found)


def worker_properties(spec: WorkerSpec) -> dict[str, str]:
    """Name to value: all properties that a worker of this cluster needs."""
    return {prop.name: prop.value for prop in recommended(spec)}


def reasons(spec: WorkerSpec) -> dict[str, str]:
    """Name to reason, for those that have one."""
    return {prop.name: prop.reason for prop in recommended(spec) if prop.reason}


def _bracketed(host: str) -> str:
    return f"[{host}]" if re.fullmatch(r"[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*", host) else host
