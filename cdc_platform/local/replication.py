"""The database engines as pairs: bringing them up, also after a promotion left one behind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from cdc_platform.local import mariadb, mysql, postgres, postgres_directories
from cdc_platform.local.probes import wait_ready
from cdc_platform.local.stack import Stack
from cdc_platform.local.stack_passwords import Logins, logins


def start_mariadb(stack: Stack) -> None:
    """Start both servers where they are down, and the replica's replication.

    A server that a promotion left behind is made again as the replica: it
    replays the primary's whole binlog. Raises StackError.
    """
    primary, replica = stack.mariadb
    accounts = logins(stack.secrets_dir, "mariadb")
    with ThreadPoolExecutor(2, thread_name_prefix="mariadb") as pool:
        for job in [pool.submit(_start_mariadb_server, stack, name, accounts) for name in stack.mariadb]:
            job.result()
    ports = {name: stack.launches[name].ports["mariadb"] for name in stack.mariadb}
    probe = partial(mariadb.replication_problem, ports[replica], accounts.admin)
    if probe() is not None:
        mariadb.follow(ports[replica], ports[primary], accounts)
        wait_ready(stack.control, replica, stack.launches[replica].log, probe)
    mariadb.ensure_first_gtid(ports[primary], primary, accounts)


def _start_mariadb_server(stack: Stack, name: str, accounts: Logins) -> None:
    if name in stack.running():
        return
    launch = stack.launches[name]
    home, port = Path(launch.cwd), launch.ports["mariadb"]
    basedir = Path(launch.argv[0]).parent.parent
    mariadb.write_config(home, name, port=port, primary=name == stack.mariadb[0], basedir=basedir)
    new = mariadb.create_data(home, basedir)
    stack.control.spawn(launch)
    login = mariadb.EMPTY_ROOT if new else accounts.admin
    wait_ready(stack.control, name, launch.log, partial(mariadb.problem, port, login))
    if new:
        mariadb.create_users(home, port, accounts)


def start_mysql(stack: Stack) -> None:
    """Start both servers where they are down, and the replica's replication; as `start_mariadb`."""
    primary, replica = stack.mysql
    accounts = logins(stack.secrets_dir, "mysql")
    with ThreadPoolExecutor(2, thread_name_prefix="mysql") as pool:
        for job in [pool.submit(_start_mysql_server, stack, name, accounts) for name in stack.mysql]:
            job.result()
    ports = {name: stack.launches[name].ports["mysql"] for name in stack.mysql}
    probe = partial(mysql.replication_problem, ports[replica], accounts.admin)
    if probe() is not None:
        mysql.follow(ports[replica], ports[primary], accounts, stack.security)
        wait_ready(stack.control, replica, stack.launches[replica].log, probe)
    mysql.ensure_first_gtid(ports[primary], primary, accounts)


def _start_mysql_server(stack: Stack, name: str, accounts: Logins) -> None:
    if name in stack.running():
        return
    launch = stack.launches[name]
    home, port = Path(launch.cwd), launch.ports["mysql"]
    mysql.write_config(home, name, port=port, primary=name == stack.mysql[0], security=stack.security)
    mysql.create_data(home, launch, accounts, tls=stack.secure)
    stack.control.spawn(launch)
    wait_ready(stack.control, name, launch.log, partial(mysql.problem, port, accounts.admin))


def start_postgres(stack: Stack) -> None:
    """Start both servers where they are down.

    A standby that is not there yet, or that a promotion left behind, is built
    from the running primary. Raises StackError.
    """
    primary, standby = stack.postgres
    accounts = logins(stack.secrets_dir, "postgres")
    directories = postgres_directories.directories_of(stack.launches[primary])
    port = stack.launches[primary].ports["postgres"]
    running = stack.running()
    for name, other in ((primary, standby), (standby, primary)):
        postgres.write_config(
            directories,
            name,
            port=stack.launches[name].ports["postgres"],
            other_port=stack.launches[other].ports["postgres"],
            primary=name == primary,
            replication=accounts.replication,
        )
    if primary in running:
        postgres.reload(port, accounts.admin)
    else:
        postgres.create_data(directories, primary, accounts.admin)
        stack.start(primary)
    postgres.create_users(port, accounts)
    stale = postgres.stale_marker(directories, standby).exists()
    if stale and standby in running:
        stack.stop(standby)
    if stale or not (directories.root / standby).exists():
        postgres.build_standby(directories, standby, primary, primary_port=port, admin=accounts.admin)
    if stale or standby not in running:
        stack.start(standby)
    probe = partial(postgres.replication_problem, port, accounts.admin)
    wait_ready(stack.control, standby, stack.launches[standby].log, probe)
