"""Who leads a shard, for people without HA tooling: a read-only question, and a place to plug in one's own.

The setting `leader_probe` names the probe: an entry point of the group
`cdc_platform.leader_probes`, or `module:attribute`. What it names is called with the
`Settings` and gives a `LeaderProbe`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Protocol

from cdc_platform.clients.sources.leader_servers import LeaderServers
from cdc_platform.clients.sources.source_rules import SourceRules
from cdc_platform.errors import CdcError, SettingsError
from cdc_platform.model.topology import Address, Dataset, Shard
from cdc_platform.settings import Settings

GROUP = "cdc_platform.leader_probes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a probe found. `leader` is None when it cannot tell; `problem` says what an operator should know."""

    leader: Address | None = None
    problem: str | None = None


class LeaderProbe(Protocol):
    """Finds leaders. Called from many threads; changes nothing; every call has a deadline."""

    def leader(self, dataset: Dataset, shard: Shard) -> Found:
        """Who leads the shard now. `shard.leader` and `shard.replicas` are what ZooKeeper says. Raises CdcError."""


class ReadOnlyProbe:
    """The built-in probe, `read-only`: the one of the shard's servers that takes writes and follows no other.

    MariaDB and MySQL by `read_only` and the replication status, Postgres by
    `pg_is_in_recovery()`. Two such servers are a split brain: none is named. A leader
    that does not answer is replaced only by a server that was promoted.
    """

    def __init__(self, settings: Settings, servers: LeaderServers | None = None) -> None:
        self._servers = servers or LeaderServers(
            fresh=0.5, secrets_dirs=settings.secrets_dirs, rules=SourceRules.of(settings)
        )

    def leader(self, dataset: Dataset, shard: Shard) -> Found:
        """See `LeaderProbe`."""
        writable: dict[str, Address] = {}
        silent: list[str] = []
        for server in dict.fromkeys((shard.leader, *shard.replicas)):
            try:
                view = self._servers.view(dataset, shard, server)
            except CdcError as error:
                silent.append(f"{server}: {error.message}")
                continue
            if view.writable and not view.following:
                writable.setdefault(view.identity, server)
        if len(writable) > 1:
            both = " and ".join(map(str, writable.values()))
            return Found(problem=f"split brain: {both} take writes")
        if writable:
            return Found(leader=next(iter(writable.values())))
        seen = "; ".join(silent)
        return Found(problem=f"no server takes writes{f' ({seen})' if seen else ''}")


def load_probe(settings: Settings) -> LeaderProbe:
    """The probe that the settings name. Raises SettingsError."""
    name = settings.leader_probe
    try:
        if ":" in name:
            module, _, attribute = name.partition(":")
            factory: Any = getattr(import_module(module), attribute)
        else:
            found = {entry.name: entry for entry in entry_points(group=GROUP)}
            factory = ReadOnlyProbe if name == "read-only" else found[name].load()
        probe = factory(settings)
    except (ImportError, AttributeError, KeyError, TypeError) as error:
        raise SettingsError(
            f"{name!r} gives no probe: {type(error).__name__}: {error}.",
            field="leader_probe",
            cure=f"Name an entry point of {GROUP}, or module:attribute, callable with the settings.",
        ) from None
    if not callable(getattr(probe, "leader", None)):
        raise SettingsError(f"{name!r} has no method leader.", field="leader_probe", cure="See docs/failover.md.")
    made: LeaderProbe = probe
    return made
