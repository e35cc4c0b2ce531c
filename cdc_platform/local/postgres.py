"""The stack's Postgres: a primary and a standby with logical decoding and failover slots."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from cdc_platform.errors import SourceUnavailable, StackError
from cdc_platform.local import java
from cdc_platform.local.postgres_directories import PostgresDirectories, own, run, write_private
from cdc_platform.local.services import Launch
from cdc_platform.local.stack_passwords import Login, Logins

SERVERS = ("postgres-1", "postgres-2")
STANDBY_SLOT = "stack_standby"


def create_data(directories: PostgresDirectories, name: str, admin: Login) -> None:
    """Make the primary's data directory, once. Raises StackError."""
    data = directories.root / name
    if data.exists():
        return
    scratch = directories.root / f".{name}.new"
    shutil.rmtree(scratch, ignore_errors=True)
    password_file = directories.root / ".password"
    write_private(directories, password_file, f"{admin.password}\n")
    try:
        done = run(
            directories,
            [
                str(directories.bindir / "initdb"),
                *("-D", str(scratch), "-U", admin.user, "-E", "UTF8", "--no-locale"),
                *("-A", "scram-sha-256", f"--pwfile={password_file}", "--no-sync", "--no-instructions"),
            ],
        )
    except OSError as error:
        raise StackError(
            f"initdb could not be run: {error}.",
            where=str(directories.bindir),
            cure="See that programs may run from there (that it is not mounted noexec).",
        ) from error
    finally:
        password_file.unlink()
    if done.returncode != 0:
        raise StackError(
            f"Postgres' data directory could not be made:\n{(done.stdout + done.stderr).strip()[-2000:]}",
            where=str(directories.root),
            cure="See that the disk has space; a library that is missing must be installed.",
        )
    scratch.replace(data)


def build_standby(
    directories: PostgresDirectories, name: str, primary: str, *, primary_port: int, admin: Login
) -> None:
    """Make a standby's data directory from the running primary's, replacing what was there.

    The low-level backup API, because the package has no pg_basebackup:
    https://www.postgresql.org/docs/17/continuous-archiving.html#BACKUP-LOWLEVEL-BASE-BACKUP.
    The standby's slot must exist: it keeps the log that is needed from here on.
    """
    data = directories.root / name
    scratch = directories.root / f".{name}.new"
    shutil.rmtree(scratch, ignore_errors=True)
    with connect(primary_port, admin) as connection:
        connection.execute("SELECT pg_backup_start(%s, fast => true)", (name,))
        _copy_live(directories.root / primary, scratch)
        row = connection.execute("SELECT labelfile FROM pg_backup_stop(wait_for_archive => false)").fetchone()
    if row is None:
        raise StackError("the primary gave no backup label.", where=str(directories.root / primary))
    (scratch / "backup_label").write_text(row["labelfile"])
    (scratch / "standby.signal").touch()
    for folder, _, names in os.walk(scratch):
        for entry in (".", *names):
            own(directories, Path(folder, entry))
    shutil.rmtree(data, ignore_errors=True)
    scratch.replace(data)
    stale_marker(directories, name).unlink(missing_ok=True)


def _copy_live(source: Path, target: Path) -> None:
    # What the documentation leaves out: the log is streamed, slots belong to
    # one server, the others to its running process. The directories must be there.
    hollow = {"pg_wal", "pg_replslot", "pg_stat_tmp", "pg_subtrans", "pg_notify", "pg_serial", "pg_snapshots"}
    left_out = {"postmaster.pid", "postmaster.opts"}
    target.mkdir(mode=0o700)
    for folder, folders, names in os.walk(source):
        inside = Path(folder).relative_to(source)
        for name in folders:
            (target / inside / name).mkdir(mode=0o700)
        folders[:] = [name for name in folders if str(inside / name) not in hollow]
        for name in names:
            if str(inside / name) not in left_out:
                # A file that the primary removes meanwhile is not needed.
                with contextlib.suppress(FileNotFoundError):
                    shutil.copy2(Path(folder, name), target / inside / name)


def stale_marker(directories: PostgresDirectories, name: str) -> Path:
    """A file that is there when a promotion left the server behind: its data must be rebuilt."""
    return directories.root / f"{name}.stale"


def write_config(
    directories: PostgresDirectories, name: str, *, port: int, other_port: int, primary: bool, replication: Login
) -> None:
    """Write what differs from Postgres' defaults, for its role; `other_port` is the other server's."""
    conninfo = (
        f"host=127.0.0.1 port={other_port} user={replication.user} password={replication.password} "
        f"dbname=postgres application_name={name}"
    )
    write_private(
        directories,
        directories.root / f"{name}.conf",
        f"""listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
wal_level = logical
max_wal_senders = 64
max_replication_slots = 64
max_connections = 300
shared_buffers = '48MB'
# A killed process loses nothing by this; only a killed machine would.
fsync = off
hot_standby_feedback = on
wal_receiver_status_interval = '1s'
wal_retrieve_retry_interval = '500ms'
primary_conninfo = '{conninfo}'
primary_slot_name = '{STANDBY_SLOT}'
# Failover slots (Postgres 17): copied to the standby, and never ahead of it.
sync_replication_slots = on
synchronized_standby_slots = '{STANDBY_SLOT if primary else ""}'
log_line_prefix = '%m [%p] '
timezone = 'UTC'
log_timezone = 'UTC'
""",
    )


def launch(directories: PostgresDirectories, name: str, *, port: int, log: Path) -> Launch:
    """How the server is started."""
    return Launch(
        name=name,
        argv=(
            str(directories.bindir / "postgres"),
            *("-D", str(directories.root / name), "-c", f"config_file={directories.root / f'{name}.conf'}"),
        ),
        cwd=str(directories.root),
        env=java.environment(),
        log=str(log),
        ports={"postgres": port},
        user=directories.user,
        stop_signal=signal.SIGINT,  # fast shutdown
        death_signal=signal.SIGQUIT,  # immediate shutdown: its own children end with it
        stage=1,
        grace=20.0,
    )


def connect(port: int, login: Login, *, database: str = "postgres", timeout: float = 5.0) -> psycopg.Connection[Any]:
    """A connection that commits each statement and gives rows as dicts.

    Raises:
        SourceUnavailable: no server answered there, or it refused the user.
    """
    try:
        return psycopg.connect(
            host="127.0.0.1",
            port=port,
            user=login.user,
            password=login.password,
            dbname=database,
            autocommit=True,
            connect_timeout=int(timeout),
            row_factory=dict_row,
        )
    except psycopg.Error as error:
        raise SourceUnavailable(
            f"Postgres did not answer: {error}.",
            where=f"127.0.0.1:{port}",
            cure="`cdc-platform stack status` shows whether it runs.",
        ) from error


def problem(port: int, login: Login) -> str | None:
    """None when the server answers a query. A probe."""
    try:
        with connect(port, login) as connection:
            connection.execute("SELECT 1")
    except (SourceUnavailable, psycopg.Error) as error:
        return str(error)
    return None


def create_users(port: int, logins: Logins) -> None:
    """Make the accounts and the standby's slot. Idempotent."""
    with connect(port, logins.admin) as connection:
        for login, options in ((logins.source, "REPLICATION"), (logins.replication, "REPLICATION")):
            known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (login.user,)).fetchone()
            verb = "ALTER" if known else "CREATE"
            connection.execute(
                sql.SQL("{} ROLE {} LOGIN {} PASSWORD {}").format(
                    sql.SQL(verb), sql.Identifier(login.user), sql.SQL(options), sql.Literal(login.password)
                )
            )
        roles = sql.SQL("GRANT pg_read_all_data, pg_read_all_stats TO {}")
        connection.execute(roles.format(sql.Identifier(logins.source.user)))
        connection.execute(
            "SELECT pg_create_physical_replication_slot(%s, true) WHERE NOT EXISTS "
            "(SELECT 1 FROM pg_replication_slots WHERE slot_name = %s)",
            (STANDBY_SLOT, STANDBY_SLOT),
        )


def replication_problem(primary_port: int, login: Login) -> str | None:
    """None when the standby streams. A probe, asked of the primary."""
    try:
        with connect(primary_port, login) as connection:
            row = connection.execute(
                "SELECT active FROM pg_replication_slots WHERE slot_name = %s", (STANDBY_SLOT,)
            ).fetchone()
    except (SourceUnavailable, psycopg.Error) as error:
        return str(error)
    return None if row and row["active"] else "the standby does not stream yet"


def reload(port: int, login: Login) -> None:
    """Make a running server read its configuration again."""
    with connect(port, login) as connection:
        connection.execute("SELECT pg_reload_conf()")
