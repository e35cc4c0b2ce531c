"""What it takes to be a record of the state topic: each class of records says where and by whom it is kept. Pure.

The classes stand beside what they remember; `memory.py` lists them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, ClassVar

import msgspec


class Writer(Enum):
    """When a record of a kind is written."""

    PLAN = auto()  # with the plan that says so, before that is applied
    RESTART = auto()  # once its restart came through: one that did not must not count as an attempt
    REPORT = auto()  # at the end of the pass, by what is seen then
    SNAPSHOT = auto()  # by bootstraps and backfills: a pass only obeys it


@dataclass(frozen=True, slots=True)
class Kept:
    """How the records of one kind are kept: under `<prefix>/<name>`.

    `with_connector`: it is deleted with the connector of its shard.
    """

    prefix: str
    writer: Writer = Writer.PLAN
    with_connector: bool = False


class Record:
    """A frozen value that passes remember."""

    __slots__ = ()
    kept: ClassVar[Kept]

    @classmethod
    def key_of(cls, name: str) -> str:
        """The key in the state topic of the record of that name: a shard, dataset, cluster or incident."""
        return f"{cls.kept.prefix}/{name}"

    def document(self) -> dict[str, Any]:
        """The record as the state topic holds it."""
        # `EMPTY` is a mapping of its own class.
        found: dict[str, Any] = msgspec.to_builtins(self, enc_hook=dict)
        return found
