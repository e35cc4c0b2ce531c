"""Everything that a connector needs of a leader, one line an item: asked before a leader is moved. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cdc_platform.connectors.engines.registry import ENGINES
from cdc_platform.failover.promotion import ObstacleKind, judge, shown_lsn, takes_writes
from cdc_platform.model.servers import ServerView
from cdc_platform.model.topology import Engine

# Shorter, and a night's outage is a new snapshot.
RETENTION_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class PreflightItem:
    """One line of a preflight. `ok` is None where it is not known."""

    name: str
    ok: bool | None
    text: str
    cure: str = ""

    def __str__(self) -> str:
        word = {True: "ok", False: "FAILS", None: "unknown"}[self.ok]
        cure = f" Cure: {self.cure}" if self.cure and not self.ok else ""
        return f"{word:7} {self.name}: {self.text}{cure}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionCase:
    """What a preflight judges.

    `new` and `old` are views, or why there is none. `saved` is the position or, where it
    could not be read, `saved_problem` says why. `rights` are those that the connector's user lacks
    on the new leader; None where they could not be read.
    """

    new: ServerView | str
    old: ServerView | str | None = None
    saved: str | None = None
    saved_problem: str | None = None
    connector: str | None = None
    slot: str | None = None
    rights: Sequence[str] | None = ()


def preflight(case: PromotionCase) -> tuple[PreflightItem, ...]:
    """Every item of a planned move, in the order to print them."""
    view = case.new
    if isinstance(view, str):
        return (PreflightItem("reachable", False, view, "Start it, or correct HOST:PORT."),)
    items = [PreflightItem("reachable", True, f"{view.address} answers the dataset's user.")]
    state = "takes writes" if view.writable else "is read-only"
    items.append(
        PreflightItem(
            "promoted",
            takes_writes(view),
            f"it {'still follows another server' if view.following else state}.",
            "Promote it first; skip this only if a replica is to be captured from.",
        )
    )
    items.append(_old_leader(view, case.old))
    items += _caught_up(case, view)
    items += _log_items(view)
    if case.rights is None:
        items.append(PreflightItem("grants", None, "the user's rights could not be read.", "See docs/security.md."))
    else:
        items.append(
            PreflightItem(
                "grants",
                not case.rights,
                f"the user lacks {', '.join(case.rights)}." if case.rights else "nothing is missing.",
                "Grant it: examples/sql/grants-*.sql.",
            )
        )
    return tuple(items)


def _caught_up(case: PromotionCase, view: ServerView) -> list[PreflightItem]:
    if case.saved_problem:
        text = f"the saved position could not be read: {case.saved_problem}"
        return [PreflightItem("caught up", None, text, "See that a Connect worker answers.")]
    if case.saved is None:
        return [PreflightItem("caught up", True, "there is no saved position yet.")]
    obstacle = judge(view, case.saved, connector=case.connector, slot=case.slot)
    names = {ObstacleKind.SERVER_ID: "gtid", ObstacleKind.NO_SLOT: "slot", ObstacleKind.LOG_PURGED: "log kept"}
    found = []
    shown = shown_lsn(case.saved) if view.engine is Engine.POSTGRES else case.saved
    if obstacle is None or obstacle.kind not in (ObstacleKind.BEHIND, ObstacleKind.DIVERGED):
        found.append(PreflightItem("caught up", True, f"it has all up to the saved position {shown}."))
    if obstacle is not None:
        found.append(PreflightItem(names.get(obstacle.kind, "caught up"), False, obstacle.text, obstacle.cure))
    elif view.engine is Engine.POSTGRES:
        found.append(PreflightItem("slot", True, f"slot {case.slot} is there and holds what is needed."))
    else:
        found.append(PreflightItem("gtid", True, "the saved GTIDs are ones that this server accepts."))
        if view.engine is Engine.MYSQL or view.oldest:
            found.append(PreflightItem("log kept", True, "its binlog still holds what follows."))
    return found


def _old_leader(new: ServerView, old: ServerView | str | None) -> PreflightItem:
    name = "old leader"
    if old is None:
        return PreflightItem(name, True, "there is none, or it is the same address.")
    if isinstance(old, str):
        # Not a failure: an unplanned move is made because of it. But it is said.
        return PreflightItem(name, True, f"not reached, so whether it takes writes is not known: {old}")
    if old.identity == new.identity:
        return PreflightItem(name, True, f"{old.address} and {new.address} are one server.")
    return PreflightItem(
        name,
        not old.writable,
        f"{old.address} {'still takes' if old.writable else 'takes no'} writes.",
        "Fence it: stop it, or set it read-only for good. What is written there from now on is not captured.",
    )


def _log_items(view: ServerView) -> list[PreflightItem]:
    s = view.settings
    if view.engine is Engine.POSTGRES:
        level = s.get("wal_level", "")
        keep = s.get("max_slot_wal_keep_size", "-1")
        return [
            PreflightItem("log format", level == "logical", f"wal_level is {level}.", "Set wal_level = logical."),
            PreflightItem(
                "log retention",
                keep == "-1" or int(keep) >= 1024,
                "a slot keeps all that it needs." if keep == "-1" else f"a slot keeps at most {keep} MB.",
                "Raise max_slot_wal_keep_size to what a night's outage writes, or set -1 and watch the disk.",
            ),
        ]
    needed = ENGINES[view.engine].server_variables
    seconds = float(s.get("binlog_expire_logs_seconds") or 0)
    items = [
        PreflightItem(
            "log format",
            all(s.get(name) == needed[name] for name in ("log_bin", "binlog_format")),
            f"log_bin is {s.get('log_bin')}, binlog_format is {s.get('binlog_format')}.",
            "Set log_bin and binlog_format = ROW.",
        ),
        PreflightItem(
            "row image",
            s.get("binlog_row_image") == needed["binlog_row_image"],
            f"binlog_row_image is {s.get('binlog_row_image')}.",
            "SET GLOBAL binlog_row_image = FULL, and in the configuration file.",
        ),
        PreflightItem(
            "log retention",
            not seconds or seconds >= RETENTION_SECONDS,
            f"the binlog is kept for {seconds / 3600:.0f} h." if seconds else "the binlog is kept until it is purged.",
            f"Set binlog_expire_logs_seconds to {RETENTION_SECONDS} or more.",
        ),
    ]
    if (wanted := needed.get("log_bin_compress")) is not None:
        compressed = s.get("log_bin_compress", "not known")
        items.append(
            PreflightItem(
                "log compression",
                compressed == wanted,
                f"log_bin_compress is {compressed}.",
                "SET GLOBAL log_bin_compress = OFF, and in the configuration file: compressed events are dropped.",
            )
        )
    if (wanted := needed.get("gtid_mode")) is not None:
        mode, partial = s.get("gtid_mode", ""), s.get("binlog_row_value_options", "")
        items.append(PreflightItem("gtid mode", mode == wanted, f"gtid_mode is {mode}.", f"Set gtid_mode = {wanted}."))
        items.append(
            PreflightItem(
                "row values",
                not partial,
                f"binlog_row_value_options is {partial or 'empty'}.",
                "SET GLOBAL binlog_row_value_options = '': the connector needs whole documents.",
            )
        )
    return items
