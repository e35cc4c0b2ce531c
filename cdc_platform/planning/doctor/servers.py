"""What is wrong with the servers that lead shards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cdc_platform.model.topology import Dataset, Engine, Shard
from cdc_platform.planning.doctor.examination import Examination, ServerSeen
from cdc_platform.planning.doctor.findings import DoctorFinding, finding
from cdc_platform.planning.doctor.kinds import Ailment, Severity
from cdc_platform.planning.health.source_hazard_kinds import HazardKind

_CLOCK_SECONDS = 60
_LEAST_PACKET = 16 * 1024 * 1024
_BY_SHARD = ("max_replication_slots", "max_wal_senders")


@dataclass(slots=True)
class _Group:
    """The shards of one dataset that one server leads."""

    dataset: Dataset
    server: ServerSeen
    shards: dict[str, tuple[Shard, Examination, str]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return ", ".join(sorted({str(shard.leader) for shard, _, _ in self.shards.values()}))

    def say(self, kind: Ailment | HazardKind, text: str, cure: str, weight: Severity | None = None) -> DoctorFinding:
        return finding(kind, self.dataset.name, self.shards, text, cure, server=self.address, weight=weight)


def server_findings(examined: Mapping[str, tuple[Dataset, Shard, Examination, str]]) -> Iterator[DoctorFinding]:
    """Of the leaders of these shards (by name, with the name of their slot)."""
    groups: dict[tuple[str, str], _Group] = {}
    servers: dict[str, list[_Group]] = defaultdict(list)
    for dataset, shard, seen, slot in examined.values():
        key = (dataset.name, seen.server.identity)
        if key not in groups:
            groups[key] = _Group(dataset, seen.server)
            servers[seen.server.identity].append(groups[key])
        groups[key].shards[shard.id] = (shard, seen, slot)
    for group in groups.values():
        yield from _settings(group)
        yield from _state(group)
        yield from _limits(group)
    for together in servers.values():
        yield from _room(together)


def _settings(group: _Group) -> Iterator[DoctorFinding]:
    server, dataset = group.server, group.dataset
    for lack in server.wrong_settings:
        yield group.say(HazardKind.LOG_SETTINGS, lack.what, f"{lack.cure}; and in the configuration file.")
    if dataset.engine is Engine.POSTGRES:
        return
    kept, outage = server.log.seconds if server.log else None, dataset.source_log.outage_seconds
    if kept is not None and kept < outage:
        text = f"binlogs are kept for {kept:,.0f} s, and the longest outage is {outage:,} s"
        cure = f"SET GLOBAL binlog_expire_logs_seconds = {outage}; and in the configuration file."
        yield group.say(Ailment.RETENTION, text, cure)
    if server.log is not None and server.log.left is not None:
        text = f"binlogs may hold {server.log.left:,} bytes, {server.log.bytes:,} do: how long that lasts is not known"
        yield group.say(Ailment.RETENTION, text, "See that it is enough for the longest outage.", Severity.NOTE)
    packet = int(server.settings.get("max_allowed_packet", _LEAST_PACKET))
    if packet < _LEAST_PACKET:
        text = f"max_allowed_packet is {packet:,}: rows of more than half of it cannot be proven"
        yield group.say(Ailment.SMALL_PACKETS, text, f"SET GLOBAL max_allowed_packet = {_LEAST_PACKET}")


def _state(group: _Group) -> Iterator[DoctorFinding]:
    server = group.server
    if server.following:
        standby = group.dataset.engine is Engine.POSTGRES
        text = "the leader is a standby" if standby else "the leader applies what another server sends"
        cure = f"cdc-platform topology set-leader {group.dataset.name} SHARD HOST:PORT"
        yield group.say(Ailment.FOLLOWS, text, cure, Severity.ERROR if standby else None)
    if abs(server.clock_s) > _CLOCK_SECONDS:
        ahead = "ahead of" if server.clock_s > 0 else "behind"
        text = f"its clock is {abs(server.clock_s):,.0f} s {ahead} ours"
        yield group.say(Ailment.CLOCK, text, "See that both follow the same time.")
    for prepared in server.prepared:
        kind = "ROLLBACK PREPARED '{}'" if group.dataset.engine is Engine.POSTGRES else "XA ROLLBACK {}"
        text = f"the transaction {prepared} is prepared and has not ended"
        yield group.say(Ailment.PREPARED, text, f"{kind.format(prepared)}, or commit it")


def _limits(group: _Group) -> Iterator[DoctorFinding]:
    for shard, seen, _ in group.shards.values():
        for limit in seen.limits:
            if limit.lacking(1) > 0:
                text = f"{limit.setting} is {limit.most}, {limit.used} are taken, and a connector needs {limit.each}"
                cure = f'ALTER DATABASE "{shard.database}" CONNECTION LIMIT -1'
                yield finding(Ailment.NO_ROOM, group.dataset.name, [shard.id], text, cure)


def _room(groups: list[_Group]) -> Iterator[DoctorFinding]:
    """Slots, senders and connections that the server's shards of all datasets need, against what is left."""
    for at, capacity in enumerate(groups[0].server.capacities):
        need = 0
        for own in groups:
            if capacity.setting in _BY_SHARD:
                slots = own.server.slots
                senders = capacity.setting == "max_wal_senders"
                taken = {name for name, slot in slots.items() if slot.active or not senders}
                need += sum(slot not in taken for _, _, slot in own.shards.values())
            elif at < len(own.server.capacities):
                mine = own.server.capacities[at]
                need += max(0, mine.each * len(own.shards) - mine.ours)
        free = max(0, capacity.most - capacity.used)
        if need > free:
            shards = sum(len(own.shards) for own in groups)
            text = f"{capacity.setting} leaves {free} of {capacity.most}, and its {shards} shards need {need} more"
            cure = f"Raise {capacity.setting} to {capacity.most + need - free} or more."
            for own in groups:
                yield own.say(Ailment.NO_ROOM, text, cure)
