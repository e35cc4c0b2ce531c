"""Znodes to a topology and back: JSON bytes, one malformed document costs itself only."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, NoReturn, TypeVar

from cdc_platform.documents.topology_fields import Document, decode_cluster, decode_dataset, decode_pause, decode_shard
from cdc_platform.documents.zookeeper_paths import Layout
from cdc_platform.errors import TopologyError
from cdc_platform.model.source_log import SourceLog
from cdc_platform.model.topology import (
    EMPTY,
    Cluster,
    Credentials,
    Dataset,
    Limits,
    Pause,
    Problem,
    ProblemKind,
    Shard,
    Table,
    TopicSpec,
    Topology,
)

T = TypeVar("T")

# ZooKeeper's own limit is 1 MiB a packet. A shard needs some 200 bytes, a dataset some 2,000.
MAX_BYTES = 256 * 1024

_FLOOR, _FLOORS = "generation_floor", "generation_floors"
# A dataset's author can write any generation into a shard of theirs: one beyond this is no result of leader moves.
MAX_FLOOR = 2**40


def _names(kind: type[Any]) -> frozenset[str]:
    return frozenset(field.name for field in fields(kind)) - {"name", "id", "dataset", "extra"}


_KNOWN: Mapping[type[Any], frozenset[str]] = {
    kind: _names(kind) for kind in (Cluster, Dataset, Shard, TopicSpec, Limits, SourceLog, Credentials)
} | {Table: frozenset({"name", "schema", "key"})}
_NESTED: Mapping[str, type[Any]] = {
    "topics": TopicSpec,
    "limits": Limits,
    "source_log": SourceLog,
    "credentials": Credentials,
}


def parse(data: bytes, where: str) -> Document:
    """The JSON object in a znode. Hostile input is an error, never a crash. Raises TopologyError."""
    cure = "Write one JSON object, or import a topology file."
    if len(data) > MAX_BYTES:
        raise TopologyError(f"{len(data)} bytes are too many.", where=where, cure=f"Use {MAX_BYTES} at most.")
    if not data.strip():
        raise TopologyError("is empty.", where=where, cure=cure)
    try:
        document = json.loads(
            data, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_without_twins
        )
    except RecursionError:
        raise TopologyError("is nested too deeply.", where=where, cure=cure) from None
    except ValueError as error:  # also UnicodeDecodeError, JSONDecodeError and numbers of too many digits
        raise TopologyError(f"is no JSON: {error}.", where=where, cure=cure) from None
    if not isinstance(document, dict):
        raise TopologyError(f"is a JSON {type(document).__name__}, no object.", where=where, cure=cure)
    return document


def serialize(document: Mapping[str, Any], where: str) -> bytes:
    """The bytes of a document. Raises TopologyError when it is too large for a znode or no JSON."""
    try:
        data = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise TopologyError(f"cannot be written as JSON: {error}.", where=where, cure="Fix the value.") from None
    if len(data) > MAX_BYTES:
        raise TopologyError(
            f"{len(data)} bytes are too many for a znode.", where=where, cure=f"Use {MAX_BYTES} at most."
        )
    return data


def merged(kind: type[Any], stored: bytes | None, document: Document) -> Document:
    """`document` (an encoded `kind`), with the fields of the stored one that this version does not know.

    A stored document that is malformed has nothing to keep.
    """
    if stored is None:
        return document
    try:
        old = parse(stored, "")
    except TopologyError:
        return document
    return _merged(kind, old, document)


def _merged(kind: type[Any], old: Mapping[str, Any], new: Document) -> Document:
    result = {key: value for key, value in old.items() if key not in _KNOWN[kind]} | new
    if kind is not Dataset:
        return result
    for name, inner in _NESTED.items():
        if isinstance(old.get(name), dict):
            both = _merged(inner, old[name], new.get(name, {}))
            if both:
                result[name] = both
    before = {t["name"]: t for t in _list(old.get("tables")) if isinstance(t, dict) and "name" in t}
    tables = [t if isinstance(t, dict) else {"name": t} for t in _list(new.get("tables"))]
    both_tables = [_merged(Table, before.get(t["name"], {}), t) for t in tables]
    result["tables"] = [t["name"] if t.keys() == {"name"} else t for t in both_tables]
    return result


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not allowed")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:20]} is too large")
    return number


def _without_twins(pairs: list[tuple[str, Any]]) -> Document:
    # JSON takes the last of two; who reads the document may look at the first.
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:100]!r} stands there twice")
    return found


def read_cluster(layout: Layout, name: str, data: bytes) -> Cluster | Problem:
    """The cluster in a znode, or why there is none."""
    where = layout.cluster(name)
    return _or_problem("cluster", name, lambda: decode_cluster(name, parse(data, where), where=where))


def read_dataset(layout: Layout, name: str, data: bytes) -> Dataset | Problem:
    """The dataset in a znode, or why there is none."""
    where = layout.dataset(name)
    return _or_problem("dataset", name, lambda: decode_dataset(name, parse(data, where), where=where))


def read_shard(layout: Layout, dataset: str, shard: str, data: bytes) -> Shard | Problem:
    """The shard in a znode, or why there is none."""
    where = layout.shard(dataset, shard)
    return _or_problem(
        "shard", f"{dataset}.{shard}", lambda: decode_shard(dataset, shard, parse(data, where), where=where)
    )


def read_pause(layout: Layout, data: bytes | None) -> tuple[Pause | None, Problem | None]:
    """The platform's pause. One that cannot be read holds: an operator meant to stop the platform."""
    if data is None:
        return None, None
    where = layout.pause
    found = _or_problem("platform", "pause", lambda: decode_pause(parse(data, where), where=where))
    if isinstance(found, Pause):
        return found, None
    return Pause(reason=f"unreadable pause: {found.message}", author="unknown"), found


def _or_problem(kind: ProblemKind, name: str, read: Callable[[], T]) -> T | Problem:
    try:
        return read()
    except TopologyError as error:
        return Problem(kind, name, str(error))


def assemble(
    *,
    clusters: Mapping[str, Cluster | Problem],
    datasets: Mapping[str, Dataset | Problem],
    shards: Mapping[str, Iterable[Shard | Problem]],
    pause: tuple[Pause | None, Problem | None] = (None, None),
    zxid: int = 0,
) -> Topology:
    """One topology of what could be read.

    A dataset that names a cluster which is not there becomes a problem: its
    connectors in that cluster cannot be seen, so nothing may be decided. The
    shards of a dataset with a problem stay in `shards`: their leaders are known.
    """
    problems = [found for found in (pause[1],) if found is not None]
    good_clusters = {name: c for name, c in sorted(clusters.items()) if isinstance(c, Cluster)}
    problems += [found for _, found in sorted(clusters.items()) if isinstance(found, Problem)]
    good_datasets: dict[str, Dataset] = {}
    good_shards: dict[str, tuple[Shard, ...]] = {}
    for name, dataset in sorted(datasets.items()):
        if isinstance(dataset, Problem):
            problems.append(dataset)
        elif missing := [cluster for cluster in dataset.clusters if cluster not in good_clusters]:
            state = "malformed" if missing[0] in clusters else "not there"
            cure = "Fix or import the cluster, or take it out of the dataset's `clusters`."
            message = f"dataset {name} names cluster {missing[0]!r}, which is {state}. Cure: {cure}"
            problems.append(Problem("dataset", name, message))
        else:
            good_datasets[name] = dataset
    for name, found_shards in sorted(shards.items()):
        mine = list(found_shards)
        good_shards[name] = tuple(sorted((s for s in mine if isinstance(s, Shard)), key=lambda s: s.id))
        problems += sorted((s for s in mine if isinstance(s, Problem)), key=lambda p: p.name)
    return Topology(
        datasets=good_datasets,
        shards=good_shards,
        clusters=good_clusters or EMPTY,
        problems=tuple(problems),
        pause=pause[0],
        zxid=zxid,
    )


def read_generation_floor(data: bytes | None, dataset: str) -> int:
    """The least generation that a new shard of the dataset may have.

    A shard that is deleted and made again must not start below the generation
    its old leader files say, or agents would take the old leader for the newer.
    """
    document = _floors(data)
    # Release 0.1 kept one for all datasets.
    return max(_floor(document.get(_FLOOR)), _floor(_own_floors(document).get(dataset)))


def generation_floor(data: bytes | None, gone: Iterable[tuple[str, int]]) -> bytes | None:
    """The data of the datasets' parent after shards are deleted; None: as it is.

    Args:
        gone: dataset and generation of each.
    """
    document = _floors(data)
    own = _own_floors(document)
    raised: dict[str, int] = {}
    for dataset, generation in gone:
        if read_generation_floor(data, dataset) <= generation < MAX_FLOOR:
            raised[dataset] = max(raised.get(dataset, 0), generation + 1)
    return serialize(document | {_FLOORS: {**own, **raised}}, "") if raised else None


def _floors(data: bytes | None) -> dict[str, Any]:
    try:
        return parse(data or b"{}", "")
    except TopologyError:
        return {}


def _own_floors(document: Mapping[str, Any]) -> Mapping[str, Any]:
    found = document.get(_FLOORS)
    return found if isinstance(found, Mapping) else {}


def _floor(found: Any) -> int:
    return found if type(found) is int and 0 <= found <= MAX_FLOOR else 0
