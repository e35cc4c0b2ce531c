"""Many shards in few lines: `range: "00000-00007"` with `{shard}` in the other fields."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cdc_platform.documents.fields import Fields, kind_of
from cdc_platform.documents.topology_fields import Document
from cdc_platform.errors import TopologyError

MAX_SHARDS = 100_000
RANGE = "range"
_HOLE = "{shard}"
_END = re.compile(r"([a-z0-9_-]*?)([0-9]+)")
# Where an id may be put in: names of hosts and databases.
_TEMPLATES = ("leader", "replicas", "database")


def expand(raw: Any, *, where: str, path: str) -> Iterator[tuple[str, str, Document]]:
    """(id, path, document) of each shard of a dataset, in the order of the file.

    `raw` is a mapping of ids, one range, or a list of ranges and of shards with
    an `id`. Raises TopologyError, also for an id that is given twice.
    """
    seen: set[str] = set()
    for shard_id, at, document in _expand(raw, where, path):
        if shard_id in seen:
            raise TopologyError(
                f"shard {shard_id!r} is there twice.", where=where, field=at, cure="Keep one of the two."
            )
        seen.add(shard_id)
        if len(seen) > MAX_SHARDS:
            raise TopologyError("too many shards.", where=where, field=path, cure=f"Use {MAX_SHARDS} at most.")
        yield shard_id, at, document


def _expand(raw: Any, where: str, path: str) -> Iterator[tuple[str, str, Document]]:
    if isinstance(raw, list):
        for index, entry in enumerate(raw):
            fields = Fields(entry, where=where, path=f"{path}[{index}]")
            rest = {key: value for key, value in fields.raw.items() if key not in (RANGE, "id")}
            if fields.has(RANGE) == fields.has("id"):
                raise fields.error("id", "needs either an id or a range.", 'Write id: "00000" or range: "00000-00007".')
            if fields.has(RANGE):
                yield from _range(fields, rest)
            else:
                yield fields.text("id"), fields.path, rest
        return
    fields = Fields(raw, where=where, path=path)
    if isinstance(fields.raw.get(RANGE), str):
        yield from _range(fields, {key: value for key, value in fields.raw.items() if key != RANGE})
        return
    for shard_id, document in fields.raw.items():
        at = f"{path}.{shard_id}"
        if not isinstance(document, Mapping):
            raise TopologyError(
                f"must be a mapping, but is {kind_of(document)}.",
                where=where,
                field=at,
                cure='Write {leader: "HOST:PORT", database: NAME}.',
            )
        yield shard_id, at, dict(document)


def _range(fields: Fields, template: Document) -> Iterator[tuple[str, str, Document]]:
    for shard_id in _ids(fields):
        document = dict(template)
        for name in _TEMPLATES:
            if name in document:
                document[name] = _filled(fields, name, document[name], shard_id)
        yield shard_id, fields.path, document


def _ids(fields: Fields) -> Iterator[str]:
    text = fields.text(RANGE)
    cure = 'Write FIRST-LAST of one length, as in "00000-00007" or "eu-000-eu-099".'
    middle = len(text) // 2
    first, last = _END.fullmatch(text[:middle]), _END.fullmatch(text[middle + 1 :])
    if len(text) % 2 == 0 or text[middle] != "-" or not first or not last or first[1] != last[1]:
        raise fields.error(RANGE, f"{text!r} is not a valid range.", cure)
    low, high, width = int(first[2]), int(last[2]), len(first[2])
    if low > high:
        raise fields.error(RANGE, f"{text!r} ends before it begins.", cure)
    if high - low >= MAX_SHARDS:
        raise fields.error(RANGE, f"{text!r} is too long.", f"Use {MAX_SHARDS} shards at most.")
    return (f"{first[1]}{number:0{width}d}" for number in range(low, high + 1))


def _filled(fields: Fields, name: str, value: Any, shard_id: str) -> Any:
    if isinstance(value, list):
        return [_filled(fields, f"{name}[{index}]", entry, shard_id) for index, entry in enumerate(value)]
    if not isinstance(value, str):
        return value  # the reader of the field says what is wrong
    filled = value.replace(_HOLE, shard_id)
    if "{" in filled or "}" in filled:
        raise fields.error(name, f"{value!r} has a brace that is not {_HOLE}.", f"Use {_HOLE} only.")
    return filled


def compact(shards: Sequence[tuple[str, Document]]) -> Document | list[Document]:
    """The shorter way to write (id, document) pairs: runs of alike shards as ranges.

    `expand` of the result gives the same ids and documents.
    """
    runs: list[tuple[str, str, Document]] = []  # first id, last id, template
    for shard_id, document in shards:
        template = _template(shard_id, document)
        if runs and runs[-1][2] == template and _successor(runs[-1][1]) == shard_id:
            runs[-1] = (runs[-1][0], shard_id, template)
        else:
            runs.append((shard_id, shard_id, template))
    if len(runs) == len(shards) and RANGE not in dict(shards):
        return dict(shards)
    return [
        {"id": first} | _plain(first, template) if first == last else {RANGE: f"{first}-{last}"} | template
        for first, last, template in runs
    ]


def _template(shard_id: str, document: Document) -> Document:
    result = dict(document)
    for name in _TEMPLATES:
        value = result.get(name)
        if isinstance(value, str):
            result[name] = value.replace(shard_id, _HOLE)
        elif isinstance(value, list):
            result[name] = [entry.replace(shard_id, _HOLE) for entry in value]
    return result


def _plain(shard_id: str, template: Document) -> Document:
    result = dict(template)
    for name in _TEMPLATES:
        value = result.get(name)
        if isinstance(value, str):
            result[name] = value.replace(_HOLE, shard_id)
        elif isinstance(value, list):
            result[name] = [entry.replace(_HOLE, shard_id) for entry in value]
    return result


def _successor(shard_id: str) -> str | None:
    end = _END.fullmatch(shard_id)
    if not end:
        return None
    following = f"{int(end[2]) + 1:0{len(end[2])}d}"
    return end[1] + following if len(following) == len(end[2]) else None
