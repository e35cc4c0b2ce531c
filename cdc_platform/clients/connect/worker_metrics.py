"""What a Connect worker's Prometheus JMX agent says: heap, tasks, rebalances, lag of each connector."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator, Sequence
from urllib.parse import urlencode

import httpx

from cdc_platform.clients.connect.deadlines import Transport
from cdc_platform.connectors import jmx_export as jmx
from cdc_platform.connectors.source_servers import is_permitted_host
from cdc_platform.errors import ConnectUnavailable
from cdc_platform.model.observed import ObservedWorker

# Only these are asked for: all metrics of a thousand connectors are megabytes.
_NAMES = (
    jmx.LAG_MS,
    jmx.CONNECTED,
    jmx.SNAPSHOT_RUNNING,
    jmx.TASK_COUNT,
    jmx.REBALANCES,
    jmx.HEAP_USED,
    jmx.HEAP_MAX,
)

# A line of the text format: name, labels, value. A thousand connectors a worker
# make this hot, hence one pattern over the whole text instead of a parser.
_LINE = re.compile(r"^([a-z_]+)(?:\{([^\n]*)\})? ([^\s]+)$", re.MULTILINE)
_SERVER = re.compile(r'\bserver="([^"\\]+)"')

# An answer larger than this is not that of a worker.
_LARGEST = 64 * 1024 * 1024


class WorkerMetrics:
    """Reads workers' metrics; safe to call from many threads."""

    def __init__(self, *, timeout: float = 5.0, hosts: Sequence[str] = ("*",)) -> None:
        self._timeout, self._hosts = timeout, tuple(hosts)
        self._http: tuple[httpx.Client, Transport] | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            if self._http is not None:
                self._http[0].close()
                self._http = None

    def read(self, worker: str, url: str) -> ObservedWorker:
        """What the worker (its id, host:port) says at `url` now.

        Raises:
            ConnectUnavailable: not answered in time, or no metrics.
        """
        try:
            if not is_permitted_host(httpx.URL(url).host, self._hosts):
                raise _unavailable("its host is not among the permitted ones (connect_hosts)", url)
            client, transport = self._client()
            with (
                transport.within(self._timeout),
                client.stream("GET", f"{url}?{urlencode([('name[]', n) for n in _NAMES])}") as answer,
            ):
                answer.raise_for_status()
                text = _limited(answer.iter_bytes(), url).decode(errors="replace")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _unavailable(f"{type(error).__name__}: {error}", url) from None
        return parse(worker, text, where=url)

    def _client(self) -> tuple[httpx.Client, Transport]:
        with self._lock:
            if self._http is None:
                # A proxy from the environment has no business with workers.
                transport = Transport(True, max_connections=100)
                self._http = httpx.Client(transport=transport, timeout=self._timeout, trust_env=False), transport
            return self._http


def parse(worker: str, text: str, *, where: str) -> ObservedWorker:
    """The metrics out of Prometheus' text format; lines that are none of ours, or garbage, are left out.

    Raises:
        ConnectUnavailable: there is no metric of a JVM in it.
    """
    numbers: dict[str, float] = {}
    lag: dict[str, int] = {}
    streaming: set[str] = set()
    snapshotting: set[str] = set()
    for name, labels, raw in _LINE.findall(text):
        if name not in _NAMES:
            continue
        try:
            value = float(raw)
        except ValueError:
            continue
        if not math.isfinite(value):  # the attribute could not be read
            continue
        if name in (jmx.HEAP_USED, jmx.HEAP_MAX):
            if 'area="heap"' in labels:
                numbers[name] = value
        elif not labels:
            numbers[name] = value
        elif (server := _SERVER.search(labels)) is not None:
            if name == jmx.LAG_MS and value >= 0:
                lag[server[1]] = int(value)
            elif name == jmx.CONNECTED and value == 1.0:
                streaming.add(server[1])
            elif name == jmx.SNAPSHOT_RUNNING and value == 1.0:
                snapshotting.add(server[1])
    if jmx.HEAP_USED not in numbers:
        raise _unavailable("the answer holds no metrics of a JVM", where)
    heap_max = numbers.get(jmx.HEAP_MAX, -1)
    return ObservedWorker(
        worker=worker,
        heap_used=int(numbers[jmx.HEAP_USED]),
        # -1: the JVM has no limit.
        heap_max=int(heap_max) if heap_max > 0 else None,
        tasks=_whole(numbers.get(jmx.TASK_COUNT)),
        rebalances=_whole(numbers.get(jmx.REBALANCES)),
        # A connector that is not connected keeps the lag of its last event for ever.
        lag_ms={server: ms for server, ms in lag.items() if server in streaming},
        streaming=frozenset(streaming),
        snapshotting=frozenset(snapshotting),
    )


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _limited(chunks: Iterator[bytes], where: str) -> bytes:
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > _LARGEST:
            raise _unavailable(f"the answer is larger than {_LARGEST} bytes", where)
    return bytes(body)


def _unavailable(problem: str, where: str) -> ConnectUnavailable:
    return ConnectUnavailable(
        f"the worker's metrics cannot be read: {problem}.",
        where=where,
        cure="Run the Prometheus JMX agent beside the worker, or take its URL out of the cluster's `metrics`.",
    )
