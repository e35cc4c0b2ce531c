"""docs/tutorial.md, from the wheel in an empty environment to `proven`: each block is run as it stands, in order."""

from __future__ import annotations

import os
import re
import resource
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdc_platform.local.stack import Stack
from cdc_platform.local.workers import LEADER_DIR
from cdc_platform.model.topology import Engine
from cdc_platform.settings import Settings
from cdc_platform.wiring import connect_client
from tests.docs.pages import ROOT, blocks, constraints_with_wheel, stranger

BLOCKS = blocks(ROOT / "docs" / "tutorial.md")

# What an administrator has: a client that may do everything. It reads SQL from its input.
CLIENT = """#!{python}
import sys, pymysql
from pymysql.constants import CLIENT
at = dict(zip(sys.argv[1::2], sys.argv[2::2]))
with pymysql.connect(host=at["-h"], port=int(at["-P"]), user={user!r}, password={password!r}, autocommit=True,
                     client_flag=CLIENT.MULTI_STATEMENTS) as connection, connection.cursor() as cursor:
    cursor.execute(sys.stdin.read())
    while cursor.nextset():
        pass
"""


def test_all_of_it_is_for_the_shell_and_the_first_block_names_the_readers_servers() -> None:
    assert {kind for kind, _ in BLOCKS} == {"sh"} and len(BLOCKS) >= 9
    names = set(re.findall(r"\b([A-Z_]+)=", BLOCKS[0][1]))
    used = set(re.findall(r"\$([A-Z_]+)", "".join(text for _, text in BLOCKS[1:]))) - {"PWD"}
    assert used <= names


@pytest.fixture
def clean(stack: Stack) -> Iterator[None]:
    """The tutorial's platform has the names that a reader's has: nothing of it may be there before or stay."""
    yield
    settings = stack.settings()
    client = connect_client(settings, "main", stack.connect_urls)
    for name in [name for name in client.connectors() if name.startswith("shop.")]:
        client.delete(name)
    client.close()


@pytest.mark.stack
@pytest.mark.plain
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_block_runs_and_the_table_is_proven(stack: Stack, tmp_path: Path, clean: None) -> None:
    login, at = stack.admin(Engine.MARIADB), stack.mariadb_primary
    client = tmp_path / "bin" / "mariadb"
    client.parent.mkdir()
    client.write_text(CLIENT.format(python=sys.executable, user=login.user, password=login.password))
    client.chmod(client.stat().st_mode | stat.S_IXUSR)
    servers = {
        "ZOOKEEPER": stack.settings().zookeeper,
        "KAFKA": stack.settings().kafka["bootstrap.servers"],
        "CONNECT": stack.connect_urls[0],
        "DB_HOST": at.host,
        "DB_PORT": str(at.port),
        "DB_PASSWORD": "tutorial-1",
        "SECRETS": str(stack.dataset_secrets_dir),
        "LEADERS": LEADER_DIR,
    }
    assert set(re.findall(r"\b([A-Z_]+)=", BLOCKS[0][1])) == set(servers)
    script = "\n".join(f"echo '== block {n} after '$SECONDS s >&2\n{text}" for n, (_, text) in enumerate(BLOCKS[1:], 2))
    home = tmp_path / "home"
    home.mkdir()
    constraints = constraints_with_wheel(tmp_path)
    started, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=home,
        capture_output=True,
        text=True,
        timeout=1500,
        env=stranger(home)
        | servers
        | {"PATH": f"{client.parent}:{os.environ['PATH']}", "PIP_CONSTRAINT": str(constraints)},
        check=False,
    )
    cpu = _cpu(resource.getrusage(resource.RUSAGE_CHILDREN)) - _cpu(used)
    print("\n".join(line for line in done.stderr.splitlines() if line.startswith("== block")))
    print(f"the machine's share: {time.monotonic() - started:.0f} s, {cpu:.0f} s of them on a core")
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-4000:]}"
    assert re.search(r"2 proven; 3 rows", done.stdout), done.stdout
    assert Settings.load(home / "cdc-platform.toml", env={}).zookeeper == servers["ZOOKEEPER"]
    # The promise is 5 minutes of a machine that does nothing else; here others may compute, too.
    assert cpu < 300


def _cpu(used: resource.struct_rusage) -> float:
    return used.ru_utime + used.ru_stime
