"""Records that cannot be handed on, and a password that is another."""

from __future__ import annotations

import secrets
from dataclasses import replace

import pytest

from cdc_platform.alerting.conditions import INCIDENT
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Credentials, Engine, Limits
from cdc_platform.planning.health.failures import Failure
from tests.engines import EACH_ENGINE
from tests.faults.conftest import MakeScenario
from tests.faults.scenario import Scenario
from tests.faults.sources import Sources
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack, pytest.mark.slow]

# A login of the scenario's own; Postgres' tables belong to the stack's user, of which it is a member.
LOGINS = {
    Engine.MARIADB: (
        "CREATE USER {user} IDENTIFIED BY '{password}'",
        "GRANT SELECT, SHOW DATABASES, REPLICATION SLAVE, BINLOG MONITOR, SLAVE MONITOR ON *.* TO {user}",
    ),
    Engine.MYSQL: (
        "CREATE USER {user} IDENTIFIED BY '{password}'",
        "GRANT SELECT, SHOW DATABASES, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {user}",
    ),
    Engine.POSTGRES: ("CREATE USER {user} REPLICATION PASSWORD '{password}' IN ROLE cdc",),
}
ROTATED = {Engine.MARIADB: "IDENTIFIED BY", Engine.MYSQL: "IDENTIFIED BY", Engine.POSTGRES: "PASSWORD"}
SESSIONS = {
    Engine.MARIADB: "SELECT id FROM information_schema.processlist WHERE user = %s",
    Engine.MYSQL: "SELECT id FROM information_schema.processlist WHERE user = %s",
    Engine.POSTGRES: "SELECT pid FROM pg_stat_activity WHERE usename = %s",
}
ENDED = {
    Engine.MARIADB: "KILL CONNECTION %s",
    Engine.MYSQL: "KILL CONNECTION %s",
    Engine.POSTGRES: "SELECT pg_terminate_backend(%s)",
}

SMALL = Limits(producer_buffer_bytes=1024 * 1024)
LARGE = Limits(producer_buffer_bytes=8 * 1024 * 1024)


def test_faults_message_too_large(assert_recovery: MakeScenario) -> None:
    """A row larger than the dataset's limit stops its shard, and no other; a larger limit lets it pass."""
    with assert_recovery("MariaDB: a row of 2 MB where 1 MB is the limit", more={"limits": SMALL}) as run:
        shard, other = run.harness.shards
        with run.writers.still():
            pad = "x" * 2_000_000
            run.writers.write(
                shard, "c", 1_000_000_000, lambda v: f"INSERT INTO items VALUES (1000000000, {v}, '{pad}')"
            )
        assert_eventually(
            lambda: "poison-record" in run.told_by("status", run.harness.name), "status names poison-record"
        )
        run.flows(other)
        store = run.harness.platform.topology
        store.put_dataset(replace(run.harness.dataset, limits=LARGE))
        run.over()


def test_faults_poison_record(assert_recovery: MakeScenario) -> None:
    """Debezium 3.7.0 cannot decode a NULL in an array of an ENUM: mended at the source, then bootstrapped."""
    with assert_recovery(
        "Postgres: a value that kills the task; mended, bootstrapped", count=1, engine=Engine.POSTGRES
    ) as run:
        (shard,) = run.harness.shards
        with run.harness.sources.admin(shard.database) as sql:
            sql("CREATE TYPE mood AS ENUM ('sad', 'glad')")
            sql("ALTER TABLE items ADD COLUMN moods mood[]")
        run.no_more_deletes()
        run.begin()
        with run.writers.still():
            run.writers.write(
                shard,
                "c",
                1_000_000_000,
                lambda v: f"INSERT INTO items VALUES (1000000000, {v}, 'poison', ARRAY['sad', NULL]::mood[])",
            )
        assert_eventually(
            lambda: "poison-record" in run.told_by("status", run.harness.name), "status names poison-record"
        )
        with run.harness.sources.admin(shard.database) as sql:
            sql("UPDATE items SET moods = NULL WHERE id = 1000000000")
        run.over()
        done = run.command("bootstrap", run.harness.name, shard.id, "--again")
        run.note = f"named poison-record; {done.splitlines()[-1]}"


@EACH_ENGINE
def test_faults_password_rotated(assert_recovery: MakeScenario, stack: Stack, engine: Engine) -> None:
    """The secrets file follows: tasks that try again inside are restarted, failed ones by hand."""
    user, old, new = f"rotated_{secrets.token_hex(3)}", secrets.token_hex(8), secrets.token_hex(8)
    dataset = f"f{secrets.token_hex(3)}"
    path = stack.dataset_secrets_dir / dataset / f"{user}.properties"
    path.parent.mkdir(parents=True)
    path.write_text(f"user={user}\npassword={old}\n")
    own = Credentials(user=f"${{file:{path}:user}}", password=f"${{file:{path}:password}}")
    with Sources(directory=stack.directory, engine=engine).admin() as sql:
        for statement in LOGINS[engine]:
            sql(statement.format(user=user, password=old))
        name = f"{engine}: password rotated, secrets file follows"
        with assert_recovery(name, engine=engine, name=dataset, more={"credentials": own}) as run:
            sql(f"ALTER USER {user} {ROTATED[engine]} '{new}'")
            for (number,) in sql(SESSIONS[engine], user):
                sql(ENDED[engine], number)
            assert_eventually(
                lambda: "authentication" in run.told_by("status", run.harness.name), "status names authentication"
            )
            alert = f"{INCIDENT}{Failure.AUTHENTICATION}@{run.harness.name}"
            assert_eventually(
                lambda: alert in run.harness.platform.state.read(), "the trouble that an alert tells of is on record"
            )
            path.write_text(f"user={user}\npassword={new}\n")
            run.over()
            assert_eventually(lambda: flows_after_restarts(run), "of every shard a later event arrived")
        if engine is Engine.POSTGRES:
            for shard in run.harness.shards:
                with run.harness.sources.admin(shard.database) as there:
                    there(f"REASSIGN OWNED BY {user} TO cdc")  # its publication
        sql(f"DROP USER {user}")
    path.unlink()


def flows_after_restarts(run: Scenario) -> bool:
    """True once all flows. A task with the old password may fail at any time until it is restarted."""
    for name, state in run.harness.states().items():
        if state == "FAILED":
            run.harness.call("POST", f"/connectors/{name}/restart?includeTasks=true&onlyFailed=true")
    return run.has_recovered()
