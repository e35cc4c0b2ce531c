"""`cdc-platform agent`, also `python -m cdc_platform.agent`."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import click

from cdc_platform.agent.agent_loop import Agent, Identity
from cdc_platform.agent.journal import Journal
from cdc_platform.agent.leader_directory import LeaderDirectory
from cdc_platform.agent.leader_gate import LeaderCheck
from cdc_platform.agent.split_brain_watch import OldLeaders
from cdc_platform.clients.connect.client import ConnectClient
from cdc_platform.clients.connect.http import trusting
from cdc_platform.clients.log_lines import log_to
from cdc_platform.clients.secrets import login
from cdc_platform.clients.sources.leader_servers import LeaderServers
from cdc_platform.clients.sources.source_rules import SourceRules
from cdc_platform.clients.zookeeper.topology_store import ZooKeeperTopologyStore
from cdc_platform.documents import Layout
from cdc_platform.errors import BadInput, CdcError
from cdc_platform.model.plain_text import for_terminal
from cdc_platform.model.topology import LEADER_DIR
from cdc_platform.settings import Settings, refuse_servers

# Connect restarts a worker's tasks one after another, and gives a request up after 90 s. Given up earlier here, a
# restart that still waits in its queue would be asked for again and done twice.
_RESTART_SECONDS = 95.0


@click.command()
@click.option("--zookeeper", "hosts", required=True, metavar="HOSTS", help="HOST:PORT,HOST:PORT.")
@click.option("--zookeeper-root", "root", default="/cdc", show_default=True, help="Everything is below this path.")
@click.option("--worker", required=True, metavar="NAME", help="The worker's name in /cdc/agents.")
@click.option("--connect-url", required=True, metavar="URL", help="The REST API of the worker beside this agent.")
@click.option("--connect-worker-id", metavar="HOST:PORT", help="Its id in Connect.  [default: from the URL]")
@click.option(
    "--leader-dir",
    type=click.Path(path_type=Path),
    default=LEADER_DIR,
    show_default=True,
    help="Where the leader files go.",
)
@click.option("--group", help="Group that may read them: the Connect worker's.")
@click.option(
    "--restart-parallel",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    help="Restarts asked for at one time. Connect does them one after another, and other questions wait behind them.",
)
@click.option("--session-timeout", type=click.FloatRange(1.0, 60.0), default=10.0, show_default=True, help="Seconds.")
@click.option(
    "--check-leaders/--no-check-leaders",
    default=True,
    show_default=True,
    help="Ask a new leader whether tasks can go on there before any of them starts with it, and watch the old one. "
    "Needs the datasets' secrets on this host.",
)
@click.option(
    "--settings",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="A cdc-platform.toml: zookeeper_user, zookeeper_password, connect_user, connect_password, connect_ca, "
    "secrets_dirs, source_hosts, source_ca, postgres_auth.",
)
@click.option(
    "--secrets-dir",
    "secrets_dirs",
    multiple=True,
    metavar="DIR",
    help="Datasets' secrets are below DIR/DATASET.  [default: secrets_dirs of --settings]",
)
@click.option(
    "--source-host",
    "source_hosts",
    multiple=True,
    metavar="PATTERN",
    help="Leaders may be on these hosts only; * stands for anything.  [default: source_hosts of --settings]",
)
@click.option("-v", "--verbose", is_flag=True, help="Say more.")
def agent(
    hosts: str,
    root: str,
    worker: str,
    connect_url: str,
    connect_worker_id: str | None,
    leader_dir: Path,
    group: str | None,
    restart_parallel: int,
    session_timeout: float,
    check_leaders: bool,
    settings: Path | None,
    secrets_dirs: tuple[str, ...],
    source_hosts: tuple[str, ...],
    verbose: bool,
) -> None:
    """Keep the leader files of one Connect worker; restart its tasks whose leader moved.

    Runs until SIGTERM or SIGINT. Needs neither the control plane nor Dagster.
    """
    log_to(sys.stderr, logging.DEBUG if verbose else logging.INFO, "%(asctime)s %(levelname)s %(message)s")
    for noisy in ("httpx", "httpcore", "cdc_platform.clients.zookeeper.session.kazoo"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    refuse_servers(hosts, "--zookeeper")
    Layout(root).agent(worker)  # a bad name is an error now, not after the first sync
    identity = Identity(
        worker=worker, connect_worker=connect_worker_id or _netloc(connect_url), connect_url=connect_url
    )
    directory = LeaderDirectory(leader_dir, owner=worker, group=group)
    own = Settings.load(settings, env={}) if settings else Settings()
    auth = login(own.zookeeper_user, own.zookeeper_password)
    store = ZooKeeperTopologyStore(
        hosts, root=root, timeout=session_timeout, auth=auth, readers=own.zookeeper_readers, ca=own.zookeeper_ca
    )
    client = ConnectClient(
        worker,
        [connect_url],
        timeout=_RESTART_SECONDS,
        auth=login(own.connect_user, own.connect_password),
        verify=trusting(own.connect_ca),
    )
    rules = SourceRules.of(own, source_hosts)
    servers = LeaderServers(fresh=0.3, secrets_dirs=secrets_dirs or own.secrets_dirs, rules=rules)
    running = Agent(
        identity,
        store,
        directory,
        Journal(leader_dir, worker),
        client,
        restart_parallel=restart_parallel,
        check=LeaderCheck(client, servers) if check_leaders else None,
        old_leaders=OldLeaders(servers) if check_leaders else None,
        hosts=rules.hosts,
    )
    try:
        _run(running)
    finally:
        client.close()
        store.close()


def _run(running: Agent) -> None:
    """Until a signal, or until the agent ends by itself with an error.

    Signals are waited for, not handled: a handler that sets an event while the
    same thread waits for one can deadlock.
    """
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    waiting = threading.get_ident()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="agent") as pool:
        done = pool.submit(running.run)
        # No time-out: after a pause (SIGSTOP) longer than it, CPython's sigtimedwait gives a signal that never came.
        done.add_done_callback(lambda ended: signal.pthread_kill(waiting, signal.SIGTERM))
        signal.sigwait(signals)
        running.stop()
        done.result()


def main() -> None:
    """The entry point of `python -m cdc_platform.agent`."""
    try:
        agent(prog_name="cdc-platform agent")
    except CdcError as error:
        click.echo(for_terminal(f"Error: {error}"), err=True)
        sys.exit(1)


def _netloc(url: str) -> str:
    found = urlsplit(url)
    try:
        host, port = found.hostname, found.port
    except ValueError:
        host = port = None
    if found.scheme not in ("http", "https") or not host:
        raise BadInput(f"{url!r} is not a URL.", field="--connect-url", cure="Write http://HOST:PORT.")
    return f"{host}:{port or (443 if found.scheme == 'https' else 80)}"
