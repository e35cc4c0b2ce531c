"""`cdc-platform exporter`: a Prometheus endpoint that stays while runs come and go."""

from __future__ import annotations

import logging
import signal
import threading

import click
from prometheus_client import start_http_server

from cdc_platform.cli.output import echo
from cdc_platform.clients.log_lines import log_to
from cdc_platform.errors import BadInput
from cdc_platform.monitoring.exporter import registry
from cdc_platform.settings import Settings
from cdc_platform.wiring import state_store


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", default=9464, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
def exporter(host: str, port: int) -> None:
    """Serve metrics of the control plane at http://HOST:PORT/metrics until it is stopped.

    They come from the state topic, where each pass records what it saw and did.
    """
    log_to(None, logging.WARNING)
    settings = Settings.load()
    state = state_store(settings)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    try:
        server, thread = start_http_server(port, addr=host, registry=registry(state))
    except OSError as error:
        problem = f"cannot listen there: {error.strerror or error}."
        raise BadInput(problem, where=f"{host}:{port}", cure="Choose another --host or --port.") from None
    echo(f"http://{host}:{server.server_port}/metrics")
    stopped.wait()
    server.shutdown()
    thread.join()
    state.close()
