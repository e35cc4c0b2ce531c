"""Promotions of the stack's second servers, in the order that loses nothing and that the connectors survive.

Also dropping a Postgres database whose slots the standby copies.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pymysql

from cdc_platform.errors import SourceUnavailable, StackError
from cdc_platform.local import mariadb, mysql, postgres, postgres_directories, replication
from cdc_platform.local.probes import Probe
from cdc_platform.local.stack import Stack
from cdc_platform.local.stack_passwords import logins
from cdc_platform.model.topology import Engine
from tests.local import mariadb_servers, mysql_servers, postgres_servers

# Between two looks at a server that is waited for, in seconds.
_INTERVAL = 0.1


def promote(stack: Stack, engine: Engine, *, timeout: float) -> Stack:
    """Make that engine's second server the primary; the stack as it is then. Raises StackError."""
    match engine:
        case Engine.MARIADB:
            return promote_mariadb_replica(stack, timeout=timeout)
        case Engine.MYSQL:
            return promote_mysql_replica(stack, timeout=timeout)
        case Engine.POSTGRES:
            return promote_postgres_standby(stack, timeout=timeout)


def promote_mariadb_replica(stack: Stack, *, timeout: float = 30.0) -> Stack:
    """Make the replica the primary; the stack as it is then.

    A primary that still runs is locked for writes, waited for, and killed:
    nothing that it committed is lost. Only when it is gone does the replica
    take over its `server_id`, and writes one row: then the position that a
    connector saved (domain-server-sequence) is one that this server has
    (dbz#1672). The old primary is renumbered, so that it can never come back
    under the id that now is another's.

    Raises:
        StackError: the replica does not run, or did not catch up in time.
    """
    primary, replica = stack.mariadb
    admin = logins(stack.secrets_dir, "mariadb").admin
    ports = {name: stack.launches[name].ports["mariadb"] for name in stack.mariadb}
    stack.pid(replica)
    _end_mariadb_primary(stack, timeout)
    _wait(lambda: mariadb_servers.unapplied(ports[replica], admin), timeout, ports[replica])
    mariadb_servers.become_primary(ports[replica], admin, replica)
    old = Path(stack.launches[primary].cwd)
    (old / mariadb.STALE).touch()
    promoted = replace(stack, mariadb=(replica, primary))
    for name in promoted.mariadb:
        launch = stack.launches[name]
        mariadb.write_config(
            Path(launch.cwd),
            name,
            port=ports[name],
            primary=name == replica,
            basedir=Path(launch.argv[0]).parent.parent,
        )
    promoted.save()
    return promoted


def _end_mariadb_primary(stack: Stack, timeout: float) -> None:
    primary, replica = stack.mariadb
    if primary not in stack.running():
        return
    admin = logins(stack.secrets_dir, "mariadb").admin
    ports = {name: stack.launches[name].ports["mariadb"] for name in stack.mariadb}
    with mariadb_servers.writes_locked(ports[primary], admin) as position:
        _wait(lambda: mariadb_servers.behind(ports[replica], admin, position), timeout, ports[replica])
        stack.kill(primary)


def promote_mysql_replica(stack: Stack, *, timeout: float = 30.0) -> Stack:
    """Make the replica the primary; the stack as it is then.

    A primary that still runs is locked for writes, waited for, and killed:
    nothing that it committed is lost. The old primary is made anew as a replica, under another number.

    Raises:
        StackError: the replica does not run, or did not catch up in time.
    """
    primary, replica = stack.mysql
    admin = logins(stack.secrets_dir, "mysql").admin
    ports = {name: stack.launches[name].ports["mysql"] for name in stack.mysql}
    stack.pid(replica)
    if primary in stack.running():
        with mysql_servers.writes_locked(ports[primary], admin) as position:
            _wait(lambda: mysql_servers.behind(ports[replica], admin, position), timeout, ports[replica])
            stack.kill(primary)
    _wait(lambda: mysql_servers.unapplied(ports[replica], admin), timeout, ports[replica])
    mysql_servers.become_primary(ports[replica], admin, replica)
    old = Path(stack.launches[primary].cwd)
    (old / mariadb.STALE).touch()
    # Made anew it would pass over all that it wrote itself, which the new primary's binlog has under its number.
    mysql.renumber(old, 1 + max(mysql.server_id(Path(stack.launches[name].cwd), name) for name in stack.mysql))
    promoted = replace(stack, mysql=(replica, primary))
    for name in promoted.mysql:
        home = Path(stack.launches[name].cwd)
        mysql.write_config(home, name, port=ports[name], primary=name == replica, security=stack.security)
    promoted.save()
    return promoted


def promote_postgres_standby(stack: Stack, *, timeout: float = 90.0) -> Stack:
    """Make the standby the primary; the stack as it is then.

    Waits until the failover slots on the standby are ready (synced and no
    longer temporary: promoted earlier, the slot is gone and the connector
    rightly refuses to go on). A primary that still runs is waited for and ended
    at once; a transaction that commits in that instant may be lost with it, as
    in any asynchronous failover: pause the writers for a promotion without loss.

    Raises:
        StackError: the standby does not run, or a slot did not become ready in time.
    """
    primary, standby = stack.postgres
    admin = logins(stack.secrets_dir, "postgres").admin
    ports = {name: stack.launches[name].ports["postgres"] for name in stack.postgres}
    directories = postgres_directories.directories_of(stack.launches[primary])
    stack.pid(standby)
    primary_runs = primary in stack.running()
    wanted = postgres_servers.failover_slots(ports[primary], admin) if primary_runs else frozenset()

    def not_ready() -> str | None:
        if primary_runs:
            postgres_servers.log_snapshot(ports[primary], admin)
        return postgres_servers.slots_not_ready(ports[standby], admin, wanted)

    _wait(not_ready, timeout, ports[standby])
    if primary_runs:
        position = postgres_servers.flushed(ports[primary], admin)
        _wait(lambda: postgres_servers.behind(ports[standby], admin, position), timeout, ports[standby])
        stack.control.signal(primary, signal.SIGQUIT)
        if not stack.control.wait_ended(primary, 10.0):
            stack.kill(primary)
    postgres_servers.make_standby(directories, primary)
    postgres.stale_marker(directories, primary).touch()
    postgres_servers.promote(ports[standby], admin)
    promoted = replace(stack, postgres=(standby, primary))
    promoted.save()
    return promoted


def drop_postgres_database(stack: Stack, database: str, *, timeout: float = 60.0) -> None:
    """Drop a database and its slots, once the standby keeps no copy of one.

    A standby whose slot synchronisation holds a slot of that database that is
    still temporary stops for good when it replays the drop: "replication slot
    ... is active" ends its startup process (ReplicationSlotsDropDBSlots in
    Postgres' slot.c, 17.6).

    Raises:
        StackError: a slot stayed in use or on the standby for `timeout` seconds.
    """
    admin = logins(stack.secrets_dir, "postgres").admin
    ports = [stack.launches[name].ports["postgres"] for name in stack.postgres]

    def kept() -> str | None:
        for port in ports:
            slots = postgres_servers.slots_of(port, admin, database)
            if slots and port == ports[0]:
                postgres_servers.drop_slots(port, admin, slots)
            elif slots:
                # Its synchronisation naps for up to 30 s; reading its configuration anew wakes it.
                postgres.reload(port, admin)
            if slots:
                return f"slots of {database} on port {port}: {', '.join(slots)}"
        return None

    _wait(kept, timeout, ports[0], "dropped", "Stop the connector that uses the slot and drop the database again.")
    postgres_servers.drop_database(ports[0], admin, database)


def rejoin(stack: Stack) -> None:
    """Make the servers that a promotion left behind replicas of those that are primaries now.

    Raises:
        StackError: one did not come up.
    """
    pairs = (
        (stack.mariadb, replication.start_mariadb),
        (stack.postgres, replication.start_postgres),
        (stack.mysql, replication.start_mysql),
    )
    for servers, start in pairs:
        if servers:
            start(stack)


def _wait(
    problem: Probe | Callable[[], str | None],
    timeout: float,
    port: int,
    done: str = "promoted",
    cure: str = "Nothing was changed but what ran; mend replication and promote again.",
) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            found = problem()
        except (SourceUnavailable, psycopg.Error, pymysql.MySQLError) as error:
            found = str(error)
        if found is None:
            return
        if time.monotonic() > deadline:
            raise StackError(
                f"not {done} after {timeout:.0f} s: {found}.",
                where=f"127.0.0.1:{port}",
                cure=cure,
            )
        time.sleep(_INTERVAL)
