"""Names of shards, and lists of names in messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import NamedTuple


class ShardName(NamedTuple):
    """`<dataset>.<shard>`: the name of a shard everywhere, and of its connector."""

    dataset: str
    shard: str

    @classmethod
    def parse(cls, text: str) -> ShardName:
        """From its text. One without a dot is a dataset without a shard, and so is a watched connector's name."""
        if "/" in text:
            return cls(text, "")
        dataset, _, shard = text.partition(".")
        return cls(dataset, shard)

    def __str__(self) -> str:
        return f"{self.dataset}.{self.shard}"


def some_of(names: Sequence[str], most: int, *, total: int | None = None) -> str:
    """The first `most` names of a list that may be long: `a, b and 3 more`.

    `total` is the length of the whole list where `names` is only its beginning.
    """
    more = max(total or 0, len(names)) - min(most, len(names))
    return ", ".join(names[:most]) + (f" and {more} more" if more else "")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like a misspelt one; None when none is."""
    names = sorted(known)
    same = next((known for known in names if known.lower() == name.lower()), None)
    return same or next(iter(get_close_matches(name, names, n=1)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`Did you mean 'pins'? ` with the nearest name; empty when none is near."""
    like = nearest(name, known)
    return f"Did you mean {like!r}? " if like else ""


def one_of(name: str, known: Iterable[str], most: int = 20) -> str:
    """The cure of a name that does not exist: the nearest one, and which there are."""
    names = sorted(known)
    return f"{did_you_mean(name, names)}Use one of {some_of(names, most)}."


def not_among(known: Iterable[str], names: Iterable[str]) -> list[str]:
    """A sentence for each name of a setting that there is not, with the nearest: it would be passed over in silence."""
    there = sorted(known)
    unknown = sorted({*names} - {*there})
    return [f"{name} is no setting and is not used. {did_you_mean(name, there)}".strip() for name in unknown]
