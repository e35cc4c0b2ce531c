"""Free loopback ports for a stack."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import psutil

from cdc_platform.errors import StackError
from cdc_platform.model.naming import one_of

_LOWEST = 15000
_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")


def reserve(port: int, *, shared: bool = True) -> socket.socket:
    """Bind a loopback port without listening. Raises OSError when it is taken.

    While it is bound, a server that sets SO_REUSEADDR (all of ours do) can
    still listen there, and a process that looks for a free port finds it taken. Not
    `shared`, it is refused also where another only reserves it, or where a
    server has just ended.
    """
    bound = socket.socket()
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(shared))
        bound.bind(("127.0.0.1", port))
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    except OSError:
        bound.close()
        raise
    return bound


@contextlib.contextmanager
def chosen(names: Iterable[str], *, fixed: Mapping[str, int], before: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """A port for each name, held while the context lasts.

    `fixed` ones are that port or an error, `before` is what each had the last
    time and has again if it is free. The others lie below the range from which
    the kernel takes the ports of outgoing connections: none of those is ever
    in the way.

    Raises:
        StackError: a fixed port is taken; it names the holder where that can be seen.
    """
    names = list(names)
    for name in fixed:
        if name not in names:
            raise StackError(f"there is no port {name!r}.", field="port", cure=one_of(name, names))
    ports: dict[str, int] = {}
    with contextlib.ExitStack() as held:

        def take(port: int, *, shared: bool) -> bool:
            if port in ports.values():
                return False
            try:
                held.enter_context(reserve(port, shared=shared))
            except OSError:
                return False
            return True

        for name, port in fixed.items():
            if not take(port, shared=True):
                raise _taken(name, port)
            ports[name] = port
        for name in names:
            if name in ports:
                continue
            if name in before and take(before[name], shared=True):
                ports[name] = before[name]
            else:
                ports[name] = next(port for port in _candidates() if take(port, shared=False))
        yield ports


def _candidates() -> list[int]:
    first_outgoing = int(_OUTGOING.read_text().split()[0])
    ports = list(range(_LOWEST, first_outgoing)) or list(range(_LOWEST, 61000))
    return random.sample(ports, len(ports))


def _taken(name: str, port: int) -> StackError:
    holder = "another program"
    with contextlib.suppress(psutil.Error):
        for found in psutil.net_connections("tcp"):
            if found.status == psutil.CONN_LISTEN and found.laddr[1:2] == (port,) and found.pid:
                holder = f"pid {found.pid} ({psutil.Process(found.pid).name()})"
    return StackError(
        f"port {port} is taken by {holder}.",
        field=f"port {name}",
        cure="End that program, or leave the port out: a free one is found.",
    )
