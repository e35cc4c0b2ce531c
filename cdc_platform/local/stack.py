"""The local stack as a value: where everything listens, and what can be done to it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec
import psutil

from cdc_platform.errors import StackError
from cdc_platform.local import workers
from cdc_platform.local.control import Control
from cdc_platform.local.probes import STARTED_WITHIN, wait_ready
from cdc_platform.local.readiness import probe_of
from cdc_platform.local.services import Launch, Running, ServiceStatus
from cdc_platform.local.stack_passwords import DATASETS, Login, read_login, write_private
from cdc_platform.local.stack_security import Security
from cdc_platform.model.naming import one_of
from cdc_platform.model.topology import Address, Cluster, Credentials, Engine
from cdc_platform.settings import CONFIG_FILE, Settings, default_cache_dir

DEFAULT_DIR = Path(".stack")
STATE_FILE = "stack.json"
SUPERVISOR = "supervisor"


@dataclass(frozen=True, slots=True, kw_only=True)
class StackSpec:
    """What stack to have in a directory.

    `ports` fixes ports by name (`kafka.kafka`, `w0.connect`, as in stack.json);
    all others are found. An `owned` stack ends with the process that started
    it. `worker_properties` goes on top of the recommended ones. `secure`: SASL/SCRAM over TLS
    for Kafka, https with basic authentication for the workers, digest authentication for ZooKeeper.
    `worker_broker_port`: workers reach the broker by that loopback port alone, where another
    process forwards connections to the broker's port `kafka.workers`. `mysqld` is the program to run as
    MySQL; None: the one on PATH, or Debian's.
    """

    directory: Path = DEFAULT_DIR
    workers: int = 3
    mariadb: bool = True
    postgres: bool = True
    mysql: bool = False
    mysqld: Path | None = None
    agents: bool = True
    secure: bool = False
    ports: Mapping[str, int] = field(default_factory=dict)
    owned: bool = False
    worker_heap_mb: int = 1024
    worker_properties: Mapping[str, str] = field(default_factory=dict)
    worker_broker_port: int | None = None
    cache_dir: Path = field(default_factory=default_cache_dir)

    def __post_init__(self) -> None:
        if not 1 <= self.workers <= 16:
            raise StackError(f"{self.workers} workers are not possible.", field="workers", cure="Use 1 to 16.")
        if self.secure and self.worker_broker_port is not None:
            raise StackError(
                "a secure stack's workers reach the broker directly.", field="worker_broker_port", cure="Leave one out."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A stack that was started in `directory`: what `stack.json` holds.

    `launches` maps a service's name to how it is started, in the order of
    starting. `mariadb`, `postgres` and `mysql` name the two servers of each engine, the
    one that is the primary now first. `mysql_version` says which MySQL it is,
    and where from. No secret is in it: logins are read from `secrets_dir` when asked.
    """

    directory: Path
    launches: Mapping[str, Launch]
    workers: tuple[str, ...]
    mariadb: tuple[str, ...] = ()
    postgres: tuple[str, ...] = ()
    mysql: tuple[str, ...] = ()
    mysql_version: str = ""
    secure: bool = False

    @classmethod
    def load(cls, directory: Path = DEFAULT_DIR) -> Stack:
        """Read the state file of a stack. Raises StackError when there is none."""
        path = directory.resolve() / STATE_FILE
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls, dec_hook=_decoded)
        except FileNotFoundError:
            raise StackError(
                "there is no stack here.", where=str(path), cure="Start one with `cdc-platform stack up`."
            ) from None
        except msgspec.DecodeError as error:
            raise StackError(
                f"not a state file of this version: {error}.",
                where=str(path),
                cure="Remove the directory with `cdc-platform stack down --purge`.",
            ) from error

    def save(self) -> None:
        """Write the state file in one step."""
        path = self.directory / STATE_FILE
        temporary = path.with_suffix(".new")
        document = msgspec.to_builtins(self, enc_hook=_encoded)
        if not self.mysql:
            # As every release writes it that knows no MySQL here.
            del document["mysql"], document["mysql_version"]
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
        temporary.replace(path)

    @property
    def control(self) -> Control:
        """The stack's supervisor."""
        return Control(self.directory)

    @property
    def secrets_dir(self) -> Path:
        """The directory with `mariadb.properties` and `postgres.properties` (keys user, password)."""
        return self.directory / "secrets"

    @property
    def kafka(self) -> Address:
        """The broker."""
        return self.address("kafka", "kafka")

    @property
    def zookeeper(self) -> Address:
        """The ZooKeeper server."""
        return self.address("zookeeper", "zookeeper")

    @property
    def connect_urls(self) -> tuple[str, ...]:
        """The REST URL of each worker, w0 first."""
        scheme = "https" if self.secure else "http"
        return tuple(f"{scheme}://{self.address(name, 'connect')}" for name in self.workers)

    @property
    def security(self) -> Security | None:
        """Certificates and accounts of a secure stack."""
        return Security(self.directory) if self.secure else None

    @property
    def kafka_client(self) -> Mapping[str, str]:
        """A librdkafka configuration that reaches the broker, secrets and all: for a client, not for a file."""
        security = self.security
        server = str(self.kafka)
        return security.resolved_kafka_client(server) if security else {"bootstrap.servers": server}

    def rest(self, *, timeout: float = 30.0) -> httpx.Client:
        """A plain HTTP client that the workers' REST API lets in."""
        security = self.security
        if security is None:
            return httpx.Client(timeout=timeout, trust_env=False)
        return httpx.Client(timeout=timeout, trust_env=False, auth=security.rest_auth(), verify=security.trust())

    @property
    def metrics_urls(self) -> Mapping[str, str]:
        """Worker id (host:port of its REST server) to the URL of its Prometheus metrics."""
        return {
            str(self.address(name, "connect")): f"http://{self.address(name, 'metrics')}/metrics"
            for name in self.workers
        }

    def servers(self, engine: Engine) -> tuple[str, ...]:
        """The names of that engine's servers, the primary first: a promotion changes it."""
        return {Engine.MARIADB: self.mariadb, Engine.MYSQL: self.mysql, Engine.POSTGRES: self.postgres}[engine]

    def primary(self, engine: Engine) -> Address:
        """That engine's server that is the primary now."""
        return self.address(self._of(self.servers(engine), 0, engine.value), engine.value)

    def replica(self, engine: Engine) -> Address:
        """That engine's server that is the replica now (after a promotion: the old primary, down)."""
        return self.address(self._of(self.servers(engine), 1, engine.value), engine.value)

    @property
    def mariadb_primary(self) -> Address:
        """The server that is the primary now: a promotion changes it."""
        return self.primary(Engine.MARIADB)

    @property
    def mariadb_replica(self) -> Address:
        """The server that is the replica now (after a promotion: the old primary, down)."""
        return self.replica(Engine.MARIADB)

    @property
    def postgres_primary(self) -> Address:
        """The server that is the primary now: a promotion changes it."""
        return self.primary(Engine.POSTGRES)

    @property
    def postgres_standby(self) -> Address:
        """The server that is the standby now (after a promotion: the old primary, down)."""
        return self.replica(Engine.POSTGRES)

    @property
    def ports(self) -> Mapping[str, int]:
        """All ports by `<service>.<port>`."""
        return {
            f"{name}.{port}": number for name, launch in self.launches.items() for port, number in launch.ports.items()
        }

    def address(self, service: str, port: str) -> Address:
        """Where a service listens. Raises StackError for one that the stack has not."""
        return Address("127.0.0.1", self._launch(service).ports[port])

    def settings(self) -> Settings:
        """The platform's settings for this stack, read from the file that `up` wrote."""
        return Settings.load(self.settings_file, env={})

    @property
    def settings_file(self) -> Path:
        """`cdc-platform.toml` of this stack."""
        return self.directory / CONFIG_FILE

    def cluster(self) -> Cluster:
        """The stack's Connect cluster, to be put into the topology."""
        return Cluster(
            name=workers.CLUSTER,
            urls=self.connect_urls,
            leader_dir=workers.LEADER_DIR,
            labels={
                str(self.address(name, "connect")): workers.zone(number) for number, name in enumerate(self.workers)
            },
            metrics=self.metrics_urls,
        )

    @property
    def dataset_secrets_dir(self) -> Path:
        """The setting `secrets_dirs` of the stack: a directory for each dataset is below it."""
        return self.secrets_dir / DATASETS

    def credentials(self, engine: Engine, dataset: str) -> Credentials:
        """References to the source user's name and password, as the dataset holds them; its own copy of the login."""
        path = self.dataset_secrets_dir / dataset / f"{engine.value}.properties"
        login = (self.secrets_dir / path.name).read_bytes()
        if not path.exists() or path.read_bytes() != login:
            write_private(path, login)
        return Credentials(user=f"${{file:{path}:user}}", password=f"${{file:{path}:password}}")

    def admin(self, engine: Engine) -> Login:
        """The account that may do everything, for tests and the demo's writers."""
        return read_login(self.secrets_dir, f"{engine.value}-admin")

    def running(self) -> Mapping[str, Running]:
        """Service name to its process, for those that run."""
        return {name: one for name, one in self.control.running().items() if one.code is None}

    def pid(self, service: str) -> int:
        """The process of a service. Raises StackError when it does not run."""
        found = self.running().get(service)
        if found is None:
            raise StackError(
                f"{service} does not run.",
                where=str(self.directory),
                cure="`cdc-platform stack up` starts what is down.",
            )
        return found.pid

    def kill(self, service: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to a service's process; after SIGKILL, wait until it is gone.

        Raises:
            StackError: it does not run.
        """
        process = psutil.Process(self.pid(service))
        family = [process, *process.children(recursive=True)]
        self.control.signal(service, number)
        if number == signal.SIGKILL:
            # Its children too: Postgres' end a moment after it, and bar a new start until then.
            psutil.wait_procs(family, timeout=10.0)

    def stop(self, service: str) -> None:
        """End a service in good order; SIGKILL when it takes longer than its grace."""
        launch = self._launch(service)
        self.pid(service)
        self.control.signal(service, launch.stop_signal)
        if not self.control.wait_ended(service, launch.grace):
            self.kill(service)

    def start(self, service: str, *, timeout: float = STARTED_WITHIN) -> None:
        """Start a service that is down, on its old ports, and wait until it is ready.

        Raises:
            StackError: it runs already, or did not come up; with its last log lines.
        """
        launch = self._launch(service)
        running = self.control.spawn(launch)
        probe = probe_of(
            launch,
            running,
            secrets_dir=self.secrets_dir,
            zookeeper_port=self.zookeeper.port,
            security=self.security,
        )
        wait_ready(self.control, service, launch.log, probe, timeout)

    def status(self) -> tuple[ServiceStatus, ...]:
        """What runs, in the order of starting. Works also when the stack is down."""
        control = self.control
        known = control.running() if control.alive() else {}
        roles = {
            **dict(zip(self.mariadb, ("primary", "replica"), strict=False)),
            **dict(zip(self.postgres, ("primary", "standby"), strict=False)),
            **dict(zip(self.mysql, ("primary", "replica"), strict=False)),
        }
        return tuple(_status(launch, known.get(name), roles.get(name)) for name, launch in self.launches.items())

    def log(self, service: str) -> Path:
        """The log of a service, or of the `supervisor`. Raises StackError for an unknown one."""
        if service == SUPERVISOR:
            return self.directory / "logs" / "supervisor.log"
        return Path(self._launch(service).log)

    def _launch(self, service: str) -> Launch:
        if service not in self.launches:
            raise StackError(
                f"there is no service {service!r}.",
                where=str(self.directory),
                cure=one_of(service, self.launches),
            )
        return self.launches[service]

    def _of(self, names: tuple[str, ...], index: int, what: str) -> str:
        if not names:
            raise StackError(
                f"this stack was started without {what}.", where=str(self.directory), cure="Start it with it."
            )
        return names[index]


def _status(launch: Launch, running: Running | None, role: str | None) -> ServiceStatus:
    state = "absent" if running is None else "running" if running.code is None else "exited"
    rss = None
    if running is not None and running.code is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(running.pid)
            family = [process, *process.children(recursive=True)]
            rss = sum(one.memory_info().rss for one in family)
    return ServiceStatus(
        name=launch.name,
        state=state,
        role=role,
        pid=running.pid if running and running.code is None else None,
        code=running.code if running else None,
        ports=launch.ports,
        rss=rss,
        log=launch.log,
    )


def _encoded(value: object) -> object:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise NotImplementedError(f"{type(value)} in a state file")


def _decoded(kind: type, value: object) -> object:
    if issubclass(kind, Path):
        return Path(str(value))
    raise NotImplementedError(f"{kind} in a state file")
