"""What a server must be before a shard may be led by it: every rule about it, judged from what the server says. Pure.

`judge` is the shortest question: may tasks go on from their saved position on this server now? The agent asks it
before each restart, and `preflight` with other questions before an operator moves a leader.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cdc_platform.clients.protocols import Plugin
from cdc_platform.connectors.engines.registry import ENGINES
from cdc_platform.errors import BadInput
from cdc_platform.model.position_codec import format_lsn, parse_gtids, saved_offset
from cdc_platform.model.servers import ServerView
from cdc_platform.model.topology import Address, Engine

# The first Debezium release that compares MariaDB's GTIDs without the server that wrote them (dbz#1672).
FIXED_IN = "3.6.0.Beta2"

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)\.(?:(Alpha|Beta|CR)(\d+)|Final)")
_STAGES = ("Alpha", "Beta", "CR", None)


class ObstacleKind(StrEnum):
    """What keeps a task from starting on a server."""

    UNREACHABLE = "unreachable"
    LOGIN_REFUSED = "login-refused"
    NOT_PROMOTED = "not-promoted"
    BEHIND = "behind"
    DIVERGED = "diverged"
    SERVER_ID = "server-id"
    NO_SLOT = "no-slot"
    LOG_PURGED = "log-purged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """Why a task must not start on a server yet, and what to do."""

    kind: ObstacleKind
    text: str
    cure: str

    def __str__(self) -> str:
        return f"{self.text} Cure: {self.cure}"


def has_fix(version: str | None) -> bool:
    """True for a MariaDB connector that follows a leader whatever its `server_id` (dbz#1672)."""
    return _rank(version) >= _rank(FIXED_IN)


def mariadb_version(plugins: Iterable[Plugin]) -> str | None:
    """The version of the MariaDB connector. Of several one without the fix: which of them a task runs is not known."""
    found = [each.version for each in plugins if each.class_name == ENGINES[Engine.MARIADB].connector_class]
    return min(found, key=has_fix, default=None)


def saved_position(engine: Engine, offsets: Sequence[Mapping[str, Any]]) -> str | None:
    """The position of `GET /connectors/NAME/offsets` that a task would go on from; None when there is none.

    Postgres: the LSN as a number in text.
    """
    offset = saved_offset(offsets)
    if not offset:
        return None
    if engine.reads_binlog:
        return str(offset["gtids"]) if offset.get("gtids") else None
    # The furthest: what was handed on of a transaction that a server never saw is as wrong as a whole one.
    try:
        known = [int(offset[key]) for key in ("lsn_commit", "lsn_proc", "lsn") if offset.get(key) is not None]
    except (TypeError, ValueError):
        raise BadInput("holds an LSN that is no number.", where="the saved offset", field="lsn") from None
    return str(max(known)) if known else None


def takes_writes(view: ServerView) -> bool:
    """True for a server that leads: writable, and no replica of another."""
    return view.writable and not view.following


def _log_purged(view: ServerView, saved: str) -> Obstacle | None:
    """What stands against a server whose binlog no longer holds all that follows the saved position."""
    if view.engine is Engine.MYSQL:
        # Transactions that only this server has count, too: what a replica wrote itself, and purged.
        purged = view.settings.get("purged_behind_saved")
        lost, text = bool(purged), f"it purged transactions that follow the saved position {saved}: {purged}."
    else:
        last = {domain: sequence for (domain, _), sequence in last_gtids(saved).items()}
        lost = any(last.get(domain, 0) < sequence for (domain, _), sequence in last_gtids(view.oldest).items())
        text = f"its binlog begins after {view.oldest}, and the saved position is {saved}."
    return Obstacle(kind=ObstacleKind.LOG_PURGED, text=text, cure="Bootstrap the shard.") if lost else None


def judge(
    view: ServerView, saved: str | None, *, connector: str | None = None, slot: str | None = None
) -> Obstacle | None:
    """What stands against a task going on from `saved` on this server; None when nothing does.

    Args:
        view: the server, read after it became the leader.
        saved: see `saved_position`; None: the task has nothing to go on from, any server will do.
        connector: the version of the Debezium plugin, as `3.5.0.Final`; unknown counts as without the fix.
        slot: the connector's slot (Postgres).
    """
    if view.engine is Engine.POSTGRES:
        return _judge_postgres(view, saved, slot)
    if saved is None:
        return None
    if view.engine is Engine.MYSQL:
        return _judge_mysql(view, saved) or _log_purged(view, saved)
    return _judge_mariadb(view, saved, has_fix(connector)) or _log_purged(view, saved)


def _judge_mariadb(view: ServerView, saved: str, fixed: bool) -> Obstacle | None:
    needed, reached = last_gtids(saved), last_gtids(view.position)
    last = {domain: sequence for (domain, _), sequence in sorted(reached.items(), key=lambda item: item[1])}
    late = sorted({domain for (domain, _), sequence in needed.items() if last.get(domain, 0) < sequence})
    if late:
        return _behind(view, saved, f"GTID domain {late[0]}")
    if fixed:
        return None
    writers: dict[int, set[int]] = {}
    for domain, server in needed:
        writers.setdefault(domain, set()).add(server)
    many = {domain: servers for domain, servers in writers.items() if len(servers) > 1}
    if many:
        domain, servers = next(iter(sorted(many.items())))
        return Obstacle(
            kind=ObstacleKind.SERVER_ID,
            text=f"the saved position {saved} names several servers of GTID domain {domain} "
            f"({', '.join(map(str, sorted(servers)))}); this connector would call it no longer available.",
            cure=f"No server id cures it: use a MariaDB connector of {FIXED_IN} or later, or bootstrap the shard.",
        )
    for domain, servers in sorted(writers.items()):
        old = next(iter(servers))
        wrote = next((s for (d, s), n in reached.items() if d == domain and n == last[domain]), None)
        if view.server_id == old and wrote == old:
            continue
        if view.server_id == old:
            return Obstacle(
                kind=ObstacleKind.SERVER_ID,
                text=f"server_id is {old} as it must be, but the last transaction of GTID domain {domain} is one of "
                f"server {wrote}, and the saved position {saved} names server {old}.",
                cure="Write one row there in a new session (a heartbeat row).",
            )
        return Obstacle(
            kind=ObstacleKind.SERVER_ID,
            text=f"its server_id is {view.server_id}, the saved position {saved} names server {old}: "
            f"this connector (before {FIXED_IN}) would fail with 'no longer available', now or at its next restart.",
            cure=f"Finish the promotion, in this order: 1. fence the old primary for good (stop it, or cut it off) and "
            f"give it another server_id in its configuration file: two servers with one id ignore each other's "
            f"changes; 2. on {view.address}: SET GLOBAL server_id = {old}, and the same in its configuration file; "
            f"3. write one row there in a new session.",
        )
    return None


def _judge_mysql(view: ServerView, saved: str) -> Obstacle | None:
    # Whether a set is contained is asked of the server itself: see clients/sources/leader_servers.py.
    contained = view.settings.get("saved_is_contained")
    return _behind(view, saved, "gtid_executed") if contained == "0" else None


def _judge_postgres(view: ServerView, saved: str | None, slot: str | None) -> Obstacle | None:
    if view.following:
        return Obstacle(
            kind=ObstacleKind.NOT_PROMOTED,
            text="it is in recovery: a standby.",
            cure="Promote it (pg_promote), or correct the leader.",
        )
    if saved is None or slot is None:
        return None
    found = view.slots.get(slot)
    older = (
        " Postgres 17 and later can keep slots on the standby (connector option slot.failover, server option "
        "sync_replication_slots); before that each promotion costs a bootstrap."
    )
    if found is None or found.temporary or found.status == "lost":
        what = (
            "has no slot"
            if found is None
            else "lost the log of slot"
            if found.status == "lost"
            else "did not sync slot"
        )
        return Obstacle(
            kind=ObstacleKind.NO_SLOT,
            text=f"it {what} {slot}: what was written since {shown_lsn(saved)} cannot be read from it.",
            cure=f"Bootstrap the shard.{older}",
        )
    if int(view.position) < int(saved):
        # Started now, the slot would skip what this server writes up to that LSN.
        return _behind(view, shown_lsn(saved), "the log", shown_lsn(view.position))
    if found.flushed is not None and found.flushed > int(saved):
        return Obstacle(
            kind=ObstacleKind.NO_SLOT,
            text=f"slot {slot} begins at {shown_lsn(str(found.flushed))}, after the saved {shown_lsn(saved)}: "
            "what lies between is lost.",
            cure="Bootstrap the shard.",
        )
    return None


def _behind(view: ServerView, saved: str, what: str, position: str | None = None) -> Obstacle:
    if takes_writes(view):
        return Obstacle(
            kind=ObstacleKind.DIVERGED,
            text=f"it takes writes of its own from {position or view.position or 'the beginning'} on, but the saved "
            f"position is {saved} ({what}): it was promoted before it had everything, and what it writes up to there "
            "would be skipped.",
            cure="Bring the old leader back, or bootstrap the shard: the topic has changes that this server never had.",
        )
    return Obstacle(
        kind=ObstacleKind.BEHIND,
        text=f"it is at {position or view.position or 'the beginning'} and has not reached the saved position "
        f"{saved} ({what}).",
        cure="Wait until it has applied everything, and only then promote it.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """An old leader that takes writes. `wrote`: its log grew since it was watched."""

    old: Address
    wrote: bool
    text: str


def split_brain(first: ServerView, now: ServerView, leader: ServerView | None) -> Split | None:
    """Judge an old leader by two views of it, and one of the new leader where there is one.

    Found: that it takes writes, and that its log grew. Not found: writes at an old leader
    that does not answer, and whose they are.
    """
    if leader is not None and leader.identity == now.identity:
        return None
    if not takes_writes(now):
        return None
    wrote = now.position != first.position
    did = f"wrote: its log went from {_shown(first)} to {_shown(now)}" if wrote else "takes writes"
    return Split(
        old=now.address,
        wrote=wrote,
        text=f"the old leader {now.address} still {did}; they are not captured",
    )


def _shown(view: ServerView) -> str:
    return shown_lsn(view.position) if view.engine is Engine.POSTGRES else view.position


def shown_lsn(number: str) -> str:
    """A number in text as Postgres writes an LSN."""
    return format_lsn(int(number))


def last_gtids(text: str) -> dict[tuple[int, int], int]:
    """(domain, server) to the greatest sequence number; a saved position may name several servers of a domain."""
    found: dict[tuple[int, int], int] = {}
    for domain, server, sequence in parse_gtids(text.strip()):
        found[domain, server] = max(sequence, found.get((domain, server), 0))
    return found


def _rank(version: str | None) -> tuple[int, int, int, int, int]:
    match = _VERSION.fullmatch(version or "")
    if not match:
        return (0, 0, 0, 0, 0)
    major, minor, patch, stage, number = match.groups()
    return (int(major), int(minor), int(patch), _STAGES.index(stage), int(number or 0))
