"""Values of the local stack: what is to run, where it listens, who is running."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One process of the stack, as its supervisor starts it.

    `user` is who runs it (None: the user of the stack). `death_signal` is what
    the kernel sends it when the supervisor dies. `grace` is how many seconds it
    has between `stop_signal` and SIGKILL. Lower `stage`s stop later. `needs` names
    the services that must be ready before it is started.
    """

    name: str
    argv: tuple[str, ...]
    cwd: str
    log: str
    env: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    user: str | None = None
    stop_signal: int = signal.SIGTERM
    death_signal: int = signal.SIGKILL
    grace: float = 10.0
    stage: int = 0
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A process that the supervisor started. `code` is None while it runs.

    `started` is the boot of the machine and the clock tick of the process'
    start: together with the pid it names the process for ever, also when the
    wall clock is set.
    """

    pid: int
    started: str
    code: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatus:
    """A line of `stack status`. `state` is running, exited or absent; `rss` is in bytes.

    `role` is primary, replica or standby, for databases.
    """

    name: str
    state: str
    role: str | None = None
    pid: int | None = None
    code: int | None = None
    ports: Mapping[str, int] = field(default_factory=dict)
    rss: int | None = None
    log: str = ""
