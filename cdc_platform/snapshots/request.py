"""What a bootstrap or backfill is asked to do: values, checked before anything is touched. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum

import msgspec

from cdc_platform.errors import BadInput
from cdc_platform.model.fingerprints import fingerprint
from cdc_platform.model.shard_choice import choose_ids, no_such_shards
from cdc_platform.model.topology import EMPTY, BootstrapMode, Dataset, Engine, Shard, Table
from cdc_platform.snapshots.row_conditions import quoted_text, sql_condition

_COLUMN = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,62}")


class RunKind(StrEnum):
    """The two kinds of snapshot run."""

    BOOTSTRAP = "bootstrap"
    BACKFILL = "backfill"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRange:
    """Rows whose `column` is at least `low` and less than `high`; None is open."""

    column: str
    low: str | None = None
    high: str | None = None

    def __post_init__(self) -> None:
        if not _COLUMN.fullmatch(self.column):
            raise bad_request("key_range", f"{self.column!r} is no column.", "Name one column.")
        if self.low is None and self.high is None:
            raise bad_request("key_range", "the range is open on both sides.", "Leave it out.")

    def condition(self, engine: Engine) -> str:
        """The range as an SQL condition."""
        quote = '"' if engine is Engine.POSTGRES else "`"
        column = f"{quote}{self.column}{quote}"
        parts = [
            f"{column} {sign} {_literal(engine, value)}"
            for sign, value in ((">=", self.low), ("<", self.high))
            if value is not None
        ]
        return " AND ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How hard a run may press. Units: shards, rows a second, bytes a second, seconds; None is no limit.

    `count_seconds` bounds the statement that counts one table of a shard when it was read.
    """

    max_parallel_shards: int = 16
    max_parallel_per_host: int = 4
    max_rows_per_s: int | None = None
    max_bytes_per_s: int | None = None
    count_seconds: int = 300

    def __post_init__(self) -> None:
        for name in (limit.name for limit in fields(self)):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise bad_request(name, f"{value} is too small.", "Use 1 or more.")

    def within(self, rows_per_connector: int | None) -> Load:
        """With a dataset's `limits.snapshot_rows_per_second`: that many rows for each shard that reads at once."""
        if rows_per_connector is None:
            return self
        all_at_once = rows_per_connector * self.max_parallel_shards
        return replace(self, max_rows_per_s=min(self.max_rows_per_s or all_at_once, all_at_once))

    def share(self, parts: int) -> Load:
        """The part of it that one of `parts` slices may use."""
        return replace(
            self,
            max_parallel_shards=max(1, self.max_parallel_shards // parts),
            max_parallel_per_host=max(1, self.max_parallel_per_host // parts),
            max_rows_per_s=None if self.max_rows_per_s is None else max(1, self.max_rows_per_s // parts),
            max_bytes_per_s=None if self.max_bytes_per_s is None else max(1, self.max_bytes_per_s // parts),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One bootstrap or backfill.

    `tables` empty: all of the dataset. `shards` holds ids and FIRST-LAST ranges; empty: all for a
    backfill, those not bootstrapped yet for a bootstrap. `failed_of` names an earlier run whose
    failed shards are taken. `mode` None: the dataset's own. `positions` maps a shard id to where
    its stream shall begin. `again` resets shards that were bootstrapped before.
    `schema_unchanged` is the operator's word that no captured table was altered since the positions.
    `condition` and `key_range` choose rows, and only for a backfill; so do `conditions`, by shard id.
    """

    kind: RunKind
    dataset: str
    tables: tuple[str, ...] = ()
    shards: tuple[str, ...] = ()
    failed_of: str | None = None
    mode: BootstrapMode | None = None
    positions: Mapping[str, str] = EMPTY
    again: bool = False
    schema_unchanged: bool = False
    condition: str | None = None
    key_range: KeyRange | None = None
    conditions: Mapping[str, str] = EMPTY
    load: Load = field(default_factory=Load)

    def __post_init__(self) -> None:
        for name in ("tables", "shards"):
            object.__setattr__(self, name, tuple(sorted(getattr(self, name))))  # their order means nothing
        bootstrap = self.kind is RunKind.BOOTSTRAP
        if self.shards and self.failed_of:
            raise bad_request("failed_of", "and shards exclude each other.", "Give one of the two.")
        if bootstrap and (self.condition or self.key_range or self.conditions):
            raise bad_request("condition", "a bootstrap takes all rows.", "Use a backfill for some of them.")
        if not bootstrap and (self.mode or self.positions or self.again or self.schema_unchanged):
            raise bad_request("mode", "a backfill has no bootstrap mode.", "Use a bootstrap, or leave it out.")
        if self.positions and self.mode is not BootstrapMode.POSITION:
            raise bad_request("positions", "are for mode position only.", "Set mode to position, or leave them out.")
        if self.mode is BootstrapMode.POSITION and not self.positions:
            raise bad_request("positions", "mode position needs a position for each shard.", "Give SHARD=POSITION.")
        if bootstrap and self.tables and self.mode not in (None, BootstrapMode.INCREMENTAL):
            raise bad_request(
                "tables", "one connector streams all tables of a shard.", "Leave them out, or use mode incremental."
            )

    @property
    def fingerprint(self) -> str:
        """The same for two requests that ask for the same rows; the load they may cause does not count."""
        document = msgspec.to_builtins(self, enc_hook=dict)
        document.pop("load")
        return fingerprint(json.dumps(document, sort_keys=True), 12)

    def mode_for(self, dataset: Dataset) -> BootstrapMode:
        """The mode that the run uses."""
        return self.mode or dataset.bootstrap

    def tables_of(self, dataset: Dataset) -> tuple[Table, ...]:
        """The tables asked for, in the dataset's order. Raises TopologyError for an unknown one."""
        chosen = {dataset.table(name).name for name in self.tables}
        return tuple(table for table in dataset.tables if not chosen or table.name in chosen)

    def selects(self, shard: str) -> bool:
        """True when not all rows of this shard are asked for."""
        return bool(self.condition or self.conditions.get(shard) or self.key_range)

    def filter(self, engine: Engine, shard: str, *, free_text: bool = False) -> str | None:
        """The SQL condition for the rows of this shard to read; None: all rows.

        `free_text`: the request's own condition is SQL already. Raises BadInput when it is not, and of another form.
        """
        condition = self.condition
        if condition and not free_text:
            condition = sql_condition(condition, engine)
        own = [text for text in (condition, self.conditions.get(shard)) if text]
        parts = [] if self.key_range is None else [self.key_range.condition(engine)]
        if len(own) + len(parts) > 1:
            own = [f"({text})" for text in own]
        return " AND ".join([*parts, *own]) or None


def choose_shards(
    request: Request,
    shards: Sequence[Shard],
    *,
    bootstrapped: Collection[str] = (),
    failed: Collection[str] | None = None,
) -> tuple[str, ...]:
    """The ids of the shards that the request means, sorted.

    Args:
        request: what was asked for.
        shards: all shards of the dataset.
        bootstrapped: ids of those whose asked-for tables have a watermark.
        failed: ids that failed in the run `failed_of`; None when no such run is known.

    Raises:
        BadInput: an id or range is unknown, or nothing is left to do.
    """
    known = {shard.id for shard in shards}
    if request.failed_of is not None:
        if failed is None:
            raise bad_request(
                "failed_of", f"there is no run {request.failed_of!r}.", "Use the name that `status` shows."
            )
        chosen = {shard for shard in failed if shard in known}
    elif request.shards:
        chosen = set(choose_ids(request.dataset, known, request.shards))
    elif request.positions:
        chosen = set(request.positions)
        if chosen - known:
            raise no_such_shards(request.dataset, sorted(chosen - known), known)
    else:
        chosen = set(known)
    missing = sorted(chosen - request.positions.keys()) if request.positions else []
    if missing:
        raise bad_request("positions", f"shard {missing[0]!r} has none.", "Give SHARD=POSITION for each shard.")
    first = not request.again and request.failed_of is None and request.mode is not BootstrapMode.POSITION
    if request.kind is RunKind.BOOTSTRAP and first:
        left = chosen - set(bootstrapped)
        if chosen and not left:
            raise bad_request(
                "shards",
                "all of them are bootstrapped already.",
                "Ask for them once more (`--again`, on the launchpad `again`) to start from scratch, "
                "or use a backfill to read rows once more.",
            )
        chosen = left
    if not chosen:
        raise bad_request("shards", "there is none to work on.", "Look at `cdc-platform status`.")
    return tuple(sorted(chosen))


def _literal(engine: Engine, value: str) -> str:
    if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", value):
        return value
    return quoted_text(value, engine)


def bad_request(name: str, message: str, cure: str) -> BadInput:
    """The error about one field of a request."""
    return BadInput(message, where="request", field=name, cure=cure)
