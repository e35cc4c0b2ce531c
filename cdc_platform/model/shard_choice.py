"""Which shards an operator means: ids as they are typed, and ranges. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from cdc_platform.errors import TopologyError
from cdc_platform.model.naming import did_you_mean, some_of

_END = re.compile(r"([a-z0-9_-]*?)([0-9]+)")
# More than a fleet has: the length of a range that is spelled out.
_LONGEST = 100_000


def choose_ids(dataset: str, known: Collection[str], texts: Iterable[str]) -> tuple[str, ...]:
    """The ids that are meant, sorted, each once.

    Args:
        dataset: named in the error.
        known: the ids of its shards.
        texts: ids (`00009`, or `9` where only one id ends in that number), ranges (`00000-00015`, `0-15`),
            and several of them joined by commas.

    Raises:
        TopologyError: names every shard that does not exist, also within a range.
    """
    texts = list(texts)
    numbered: dict[tuple[str, int], list[str]] = {}
    for shard in known:
        if end := _END.fullmatch(shard):
            numbered.setdefault((end[1], int(end[2])), []).append(shard)
    chosen: set[str] = set()
    unknown: list[str] = []
    for text in (part.strip() for given in texts for part in given.split(",")):
        if not text:
            continue
        for shard, found in _meant(text, known, numbered):
            chosen.update(found)
            unknown += [] if found else [shard]
    if not chosen and not unknown:
        unknown = list(texts)
    if unknown:
        raise no_such_shards(dataset, unknown, known)
    return tuple(sorted(chosen))


def no_such_shards(dataset: str, unknown: Sequence[str], known: Collection[str]) -> TopologyError:
    """The error about shards that the dataset does not have, with the nearest that it has."""
    return TopologyError(
        f"dataset {dataset!r} has no shard {some_of([repr(shard) for shard in unknown], 5)}.",
        field="shard",
        cure=f"{did_you_mean(unknown[0], known)}`cdc-platform topology show {dataset}` lists its shards.",
    )


def _meant(
    text: str, known: Collection[str], numbered: Mapping[tuple[str, int], list[str]]
) -> Iterator[tuple[str, list[str]]]:
    """What one text stands for: names, each with the ids found for it."""
    if text in known:
        yield text, [text]
        return
    for at in (found.start() for found in re.finditer("-", text)):
        first, last = _END.fullmatch(text[:at]), _END.fullmatch(text[at + 1 :])
        if first and last and first[1] == last[1] and int(first[2]) <= int(last[2]) < int(first[2]) + _LONGEST:
            alike = (shard for (prefix, _), found in numbered.items() if prefix == first[1] for shard in found)
            width = max(map(len, alike), default=len(text[:at])) - len(first[1])
            for number in range(int(first[2]), int(last[2]) + 1):
                yield f"{first[1]}{number:0{width}d}", numbered.get((first[1], number), [])
            return
        if text[:at] in known and text[at + 1 :] in known and text[:at] <= text[at + 1 :]:
            yield text, [shard for shard in known if text[:at] <= shard <= text[at + 1 :]]
            return
    end = _END.fullmatch(text)
    ending = numbered.get((end[1], int(end[2])), []) if end else []
    yield text, ending if len(ending) == 1 else []
