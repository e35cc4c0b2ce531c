"""What a bootstrap or backfill may be asked for, field by field. Pure.

The launchpad's fields and the options of the commands are made of `OPTIONS`, and what was given in either becomes
a `Request` in one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import msgspec

from cdc_platform.model.topology import BootstrapMode
from cdc_platform.snapshots.request import Load, Request, RunKind, bad_request

_LOAD = {field.name: field.default for field in fields(Load)}
_BOOTSTRAP, _BACKFILL = RunKind.BOOTSTRAP, RunKind.BACKFILL


@dataclass(frozen=True, slots=True)
class Option:
    """One field of a request.

    `name` is that of the launchpad, `flag` that of the command line, by default made of the name; `dataset` and
    `shards` are arguments there. `scalar` is the type of the value: of each value where `several` is
    a tuple, or a dict by shard id. `kind` is the only kind of snapshot run that has it; None: both.
    """

    name: str
    text: str
    scalar: type[Any] = str
    flag: str = ""
    metavar: str | None = None
    several: type[Any] | None = None
    default: Any = None
    kind: RunKind | None = None

    @property
    def is_argument(self) -> bool:
        """True when the command line has it without a flag."""
        return self.name in ("dataset", "shards")


def _load(name: str, text: str) -> Option:
    return Option(name, text, int, metavar="N", default=_LOAD[name])


def _flag(name: str, text: str) -> Option:
    return Option(name, text, bool, default=False, kind=_BOOTSTRAP)


_SHARDS = 'Shard ids and ranges, such as "00000" or "00000-00099"; all that need it by default.'
_CONDITION = "Only rows that fulfil this: comparisons of columns with literals, joined by AND, OR and NOT."
_MODE = "Where a stream begins, and what is read before it; the dataset's own mode by default."
_POSITIONS = "Where a shard's stream begins, for mode position: a GTID, FILE:POS or an LSN."

OPTIONS = (
    Option("dataset", "The dataset's name."),
    Option("shards", _SHARDS, several=tuple, default=()),
    Option("tables", "Only these tables; all by default.", flag="--table", several=tuple, default=()),
    Option("condition", _CONDITION, flag="--where", metavar="CONDITION", kind=_BACKFILL),
    Option("key_column", "The column of a range of keys.", flag="--key", metavar="COLUMN", kind=_BACKFILL),
    Option("key_from", "Rows from this key on.", flag="--from", metavar="VALUE", kind=_BACKFILL),
    Option("key_to", "Rows before this key.", flag="--to", metavar="VALUE", kind=_BACKFILL),
    Option("mode", _MODE, BootstrapMode, kind=_BOOTSTRAP),
    Option("positions", _POSITIONS, flag="--position", metavar="SHARD=POSITION", several=dict, default={},
           kind=_BOOTSTRAP),
    _flag("schema_unchanged", "For mode position: no captured table was altered since the positions."),
    _flag("again", "Also shards that were bootstrapped before: their offsets are reset."),
    _flag("lost", "Shards that cannot go on from their saved position: it is gone, or what follows cannot be read."),
    Option("failed_of", "The shards that failed in this snapshot run.", metavar="RUN"),
    _load("max_parallel_shards", "Shards that are worked on at once."),
    _load("max_parallel_per_host", "Of these on one source host."),
    _load("max_rows_per_s", "Rows a second of all shards; no limit by default."),
    _load("max_bytes_per_s", "Bytes a second into Kafka, by broker quotas; no limit by default."),
    _load("count_seconds", "Seconds that counting one table of a shard may take on its source."),
    Option("continues", "Go on with this unfinished snapshot run, as it was asked for.", flag="--continue",
           metavar="RUN"),
)  # fmt: skip


def options_of(kind: RunKind) -> tuple[Option, ...]:
    """The options of one kind of snapshot run, in the order to show them."""
    return tuple(option for option in OPTIONS if option.kind in (None, kind))


def request_of(kind: RunKind, given: Mapping[str, Any]) -> Request:
    """The request, checked.

    Args:
        kind: of the snapshot run.
        given: values by the name of their option; None: not given. What `continues` and `lost` ask for is
            not part of a request, and left to the caller.

    Raises:
        BadInput: it cannot be done as asked.
    """
    asked = {name: value for name, value in given.items() if value is not None}
    asked |= {"kind": kind, "load": {name: asked.pop(name) for name in _LOAD if name in asked}}
    column, low, high = (asked.pop(name, None) for name in ("key_column", "key_from", "key_to"))
    if column is not None:
        asked["key_range"] = {"column": column, "low": low, "high": high}
    elif low is not None or high is not None:
        raise bad_request("key_column", "a range of keys needs a column.", "Name it.")
    return msgspec.convert(asked, Request)
