"""Bringing a stack up and down."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

import psutil

from cdc_platform.errors import StackError
from cdc_platform.local import artifacts, kafka, mariadb, postgres, workers
from cdc_platform.local.control import Control
from cdc_platform.local.ports import chosen
from cdc_platform.local.probes import Probe, wait_ready
from cdc_platform.local.readiness import probe_of
from cdc_platform.local.secrets import Login, ensure_login
from cdc_platform.local.services import Launch
from cdc_platform.local.stack import STATE_FILE, Stack, StackSpec
from cdc_platform.settings import CONFIG_FILE

# The write end of an owned stack's pipe: closed when this process ends, however it ends.
_OWNED: dict[Path, int] = {}


def up(spec: StackSpec, progress: artifacts.Progress | None = None) -> Stack:
    """Have the stack of `spec` running: start all of it, or what is down of one that runs.

    Raises:
        StackError: programs not to be had, a port taken, a service that did
            not come up; nothing is left running that was not before.
    """
    directory = spec.directory.resolve()
    control = Control(directory)
    if control.alive():
        stack = Stack.load(directory)
        _check_same(spec, stack)
        _start_missing(stack)
        return stack
    programs = artifacts.provide(spec.cache_dir, progress=progress)
    _make_directories(directory)
    _end_leftovers(control)
    owner = None
    if spec.owned:
        owner, _OWNED[directory] = os.pipe()
    try:
        control.start_supervisor(owner_fd=owner)
    finally:
        if owner is not None:
            os.close(owner)
    try:
        return _Start(spec, directory, control, programs).run()
    except BaseException:
        control.shut_down()
        raise


def down(directory: Path, *, purge: bool = False) -> None:
    """End everything that the stack in `directory` runs; `purge` removes its data as well.

    Raises:
        StackError: the directory holds no stack.
    """
    directory = directory.resolve()
    control = Control(directory)
    if not (directory / STATE_FILE).exists() and not control.alive():
        raise StackError("there is no stack here.", where=str(directory), cure="Name its directory by --dir.")
    if control.alive():
        control.shut_down()
    _end_leftovers(control)
    with contextlib.suppress(KeyError):
        os.close(_OWNED.pop(directory))
    if purge:
        postgres.remove(directory / "postgres")
        shutil.rmtree(directory)


def _make_directories(directory: Path) -> None:
    for folder in ("logs", "secrets"):
        (directory / folder).mkdir(parents=True, exist_ok=True)
    (directory / "secrets").chmod(0o700)


def _end_leftovers(control: Control) -> None:
    left = control.leftovers()
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _, alive = psutil.wait_procs(left, timeout=10)
    if alive:
        raise StackError(
            f"processes of an earlier stack do not end: {', '.join(str(p.pid) for p in alive)}.",
            cure="End them by hand.",
        )


def _check_same(spec: StackSpec, stack: Stack) -> None:
    has = (len(stack.workers), bool(stack.mariadb), bool(stack.postgres))
    if has != (spec.workers, spec.mariadb, spec.postgres):
        raise StackError(
            "a stack with other parts runs here.",
            where=str(stack.directory),
            cure="`cdc-platform stack down` first, or use another --dir.",
        )


def _start_missing(stack: Stack) -> None:
    running = stack.running()
    for stage in sorted({launch.stage for launch in stack.launches.values()}):
        missing = [x.name for x in stack.launches.values() if x.stage == stage and x.name not in running]
        with ThreadPoolExecutor(8, thread_name_prefix="start") as pool:
            _all_of([pool.submit(stack.start, name) for name in missing])


def _all_of(futures: list[Future[None]]) -> None:
    wait(futures)
    for future in futures:
        future.result()


class _Start:
    """One start of a whole stack from its directory: each part in a thread of its own."""

    def __init__(self, spec: StackSpec, directory: Path, control: Control, programs: artifacts.Programs) -> None:
        self._spec = spec
        self._dir = directory
        self._control = control
        self._programs = programs
        self._launches: dict[str, Launch] = {}

    def run(self) -> Stack:
        """Configure all, start all, wait for all."""
        with chosen(self._port_names(), fixed=self._spec.ports, before=self._ports_before()) as ports:
            self._control.reserve(ports.values())
        stack = self._configure(ports)
        stack.save()
        _write_settings(stack)
        with ThreadPoolExecutor(16, thread_name_prefix="start") as pool:
            broker = pool.submit(self._start_kafka)
            parts = [broker, pool.submit(self._start, kafka.ZOOKEEPER)]
            for name in stack.workers:
                parts.append(pool.submit(self._start_after, broker, name))
            if stack.mariadb:
                parts.append(pool.submit(self._start_mariadb, *stack.mariadb))
            if stack.postgres:
                parts.append(pool.submit(self._start_postgres, *stack.postgres))
            _all_of(parts)
            agents = [name for name, launch in self._launches.items() if launch.stage == workers.AGENT_STAGE]
            _all_of([pool.submit(self._start, name) for name in agents])
        return stack

    def _port_names(self) -> list[str]:
        spec = self._spec
        names = ["kafka.kafka", "kafka.controller", "zookeeper.zookeeper"]
        for number in range(spec.workers):
            names += [f"{workers.worker_name(number)}.{port}" for port in ("connect", "metrics")]
        if spec.mariadb:
            names += [f"{name}.mariadb" for name in (mariadb.PRIMARY, mariadb.REPLICA)]
        if spec.postgres:
            names += [f"{name}.postgres" for name in (postgres.PRIMARY, postgres.STANDBY)]
        return names

    def _ports_before(self) -> dict[str, int]:
        if not (self._dir / STATE_FILE).exists():
            return {}
        before = Stack.load(self._dir)
        return {
            f"{name}.{port}": number
            for name, launch in before.launches.items()
            for port, number in launch.ports.items()
        }

    def _configure(self, ports: Mapping[str, int]) -> Stack:
        """Write all configuration; the stack as it will be."""
        spec, programs = self._spec, self._programs

        def of(service: str) -> dict[str, int]:
            return {name.split(".")[1]: port for name, port in ports.items() if name.startswith(f"{service}.")}

        def log(service: str) -> Path:
            return self._dir / "logs" / f"{service}.log"

        def add(launch: Launch) -> None:
            self._launches[launch.name] = launch

        add(kafka.zookeeper_launch(self._dir / "zookeeper", of("zookeeper"), programs, log("zookeeper")))
        add(kafka.kafka_launch(self._dir / "kafka", of("kafka"), programs, log("kafka")))
        mariadb_names: tuple[str, ...] = ()
        if spec.mariadb:
            mariadb_names = (mariadb.PRIMARY, mariadb.REPLICA)
            for name in mariadb_names:
                add(self._mariadb_launch(name, ports[f"{name}.mariadb"], log(name)))
        postgres_names: tuple[str, ...] = ()
        if spec.postgres:
            postgres_names = (postgres.PRIMARY, postgres.STANDBY)
            place = postgres.find_place(self._dir / "postgres", programs)
            for name in postgres_names:
                add(postgres.launch(place, name, port=ports[f"{name}.postgres"], log=log(name)))
        names = tuple(workers.worker_name(number) for number in range(spec.workers))
        for number, name in enumerate(names):
            add(
                workers.worker_launch(
                    number,
                    self._dir / "workers" / name,
                    ports=of(name),
                    kafka_port=ports["kafka.kafka"],
                    secrets=self._dir / "secrets",
                    programs=programs,
                    heap_mb=spec.worker_heap_mb,
                    overrides=spec.worker_properties,
                    log=log(name),
                )
            )
        for number, name in enumerate(names if spec.agents else ()):
            add(
                workers.agent_launch(
                    number,
                    self._dir / "workers" / name,
                    zookeeper_port=ports["zookeeper.zookeeper"],
                    connect_port=ports[f"{name}.connect"],
                    log=log(workers.agent_name(number)),
                )
            )
        return Stack(
            directory=self._dir,
            launches=dict(self._launches),
            workers=names,
            mariadb=mariadb_names,
            postgres=postgres_names,
        )

    def _mariadb_launch(self, name: str, port: int, log: Path) -> Launch:
        home = self._dir / name
        home.mkdir(exist_ok=True)
        basedir = self._programs.directories["mariadb"]
        mariadb.write_config(
            home,
            name,
            port=port,
            server_id=mariadb.SERVER_IDS[name],
            read_only=name == mariadb.REPLICA,
            basedir=basedir,
        )
        return mariadb.launch(home, name, port=port, programs=self._programs, log=log)

    def _start(self, name: str, probe: Probe | None = None) -> None:
        launch = self._launches[name]
        self._control.spawn(launch)
        wait_ready(self._control, name, launch.log, probe or probe_of(launch, self._dir / "secrets"))

    def _start_after(self, needed: Future[None], name: str) -> None:
        needed.result()
        self._start(name)

    def _start_kafka(self) -> None:
        kafka.format_storage(self._dir / "kafka", self._programs)
        self._start(kafka.KAFKA)

    def _logins(self, what: str, replication_user: str) -> tuple[Login, Login, Login]:
        secrets = self._dir / "secrets"
        return (
            ensure_login(secrets, f"{what}-admin", "stack_admin"),
            ensure_login(secrets, what, "cdc"),
            ensure_login(secrets, f"{what}-replication", replication_user),
        )

    def _start_mariadb(self, primary: str, replica: str) -> None:
        admin, source, replication = self._logins("mariadb", "stack_replica")
        logins = mariadb.Logins(admin=admin, source=source, replication=replication)
        ports = {name: self._launches[name].ports["mariadb"] for name in (primary, replica)}

        def start(name: str) -> None:
            new = mariadb.create_data(self._dir / name, self._programs.directories["mariadb"])
            self._start(name, partial(mariadb.problem, ports[name], mariadb.EMPTY_ROOT if new else admin))
            if new:
                mariadb.create_users(ports[name], logins)

        with ThreadPoolExecutor(2, thread_name_prefix="mariadb") as pool:
            _all_of([pool.submit(start, name) for name in (primary, replica)])
        mariadb.follow(ports[replica], ports[primary], logins)
        launch = self._launches[replica]
        wait_ready(self._control, replica, launch.log, partial(mariadb.replication_problem, ports[replica], admin))

    def _start_postgres(self, primary: str, standby: str) -> None:
        admin, source, replication = self._logins("postgres", "stack_standby")
        logins = postgres.Logins(admin=admin, source=source, replication=replication)
        place = postgres.find_place(self._dir / "postgres", self._programs)
        postgres.create_data(place, admin)
        postgres.copy_data(place)
        ports = {name: self._launches[name].ports["postgres"] for name in (primary, standby)}
        for name, other in ((primary, standby), (standby, primary)):
            postgres.write_config(place, name, port=ports[name], other_port=ports[other], replication=replication)
        self._start(primary)
        postgres.create_users(ports[primary], logins)
        self._start(standby)
        launch = self._launches[standby]
        wait_ready(self._control, standby, launch.log, partial(postgres.replication_problem, ports[primary], admin))


def _write_settings(stack: Stack) -> None:
    (stack.directory / CONFIG_FILE).write_text(
        f'zookeeper = "{stack.zookeeper}"\nkafka = {{ "bootstrap.servers" = "{stack.kafka}" }}\n'
    )
