"""A TcpProxy in a process of its own: connections through it take no time from writers and consumers."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from types import TracebackType

from tests.tcp_proxy import TcpProxy

_SPAWN = multiprocessing.get_context("spawn")
VERBS = frozenset({"cut", "stall", "resume", "reset"})


class FarProxy:
    """As TcpProxy; `target` is fixed."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self._pipe, self._far = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(self._far, target), daemon=True)
        self.address = ""

    def __enter__(self) -> FarProxy:
        self._process.start()
        self.address = self._pipe.recv()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.join()

    def cut(self) -> None:
        self._do("cut")

    def stall(self) -> None:
        self._do("stall")

    def resume(self) -> None:
        self._do("resume")

    def reset(self) -> None:
        self._do("reset")

    def _do(self, verb: str) -> None:
        self._pipe.send(verb)
        assert self._pipe.recv() == verb


def _serve(pipe: Connection, target: tuple[str, int]) -> None:
    with TcpProxy(target) as proxy:
        pipe.send(proxy.address)
        while True:
            verb = pipe.recv()
            assert verb in VERBS
            getattr(proxy, verb)()
            pipe.send(verb)
