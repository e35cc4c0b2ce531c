"""What to write to ZooKeeper: stored bytes and a wish in, new bytes out. Pure.

The rule of generations, in one place: a leader changes only together with a
greater generation, and an older generation never wins. Store and fake share it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

from cdc_platform.documents.topology_fields import encode_cluster, encode_dataset, encode_pause, encode_shard
from cdc_platform.documents.znodes import (
    merged,
    parse,
    read_cluster,
    read_dataset,
    read_generation_floor,
    read_pause,
    read_shard,
    serialize,
)
from cdc_platform.documents.zookeeper_paths import Layout
from cdc_platform.errors import NotFound, PlanRefused, TopologyError
from cdc_platform.model.naming import some_of
from cdc_platform.model.topology import Address, Cluster, Dataset, Pause, Problem, Shard, Topology

V = TypeVar("V", Cluster, Dataset, Shard)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """The documents of a topology as they are in ZooKeeper. `floor` is the data of the datasets' parent."""

    clusters: Mapping[str, bytes] = field(default_factory=dict)
    datasets: Mapping[str, bytes] = field(default_factory=dict)
    shards: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    pause: bytes | None = None
    floor: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference between a topology file and ZooKeeper.

    `keep` writes nothing: it tells what the file says and ZooKeeper keeps
    otherwise, with the reason in `note`.
    """

    action: Literal["create", "update", "delete", "keep"]
    kind: Literal["cluster", "dataset", "shard", "platform"]
    name: str
    fields: tuple[str, ...] = ()
    note: str = ""

    def __str__(self) -> str:
        what = f"{self.action} {self.kind} {self.name}"
        what += f" ({', '.join(self.fields)})" if self.fields else ""
        return f"{what}: {self.note}" if self.note else what


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A change and the bytes that make it; None with `delete` and `keep`."""

    change: Change
    path: str
    data: bytes | None = None
    generation: int = 0  # of a shard that is deleted

    @property
    def gone(self) -> tuple[str, int] | None:
        """Dataset and generation of a shard that is deleted."""
        deletes = self.change.action == "delete" and self.change.kind == "shard"
        return (self.change.name.partition(".")[0], self.generation) if deletes else None


def edit_cluster(layout: Layout, stored: bytes | None, cluster: Cluster) -> bytes | None:
    """The new data of the cluster's znode; None when it says this already."""
    old = None if stored is None else read_cluster(layout, cluster.name, stored)
    return _edit(layout.cluster(cluster.name), stored, old, _with_old_extra(old, cluster))


def edit_dataset(layout: Layout, stored: bytes | None, dataset: Dataset) -> bytes | None:
    """The new data of the dataset's znode; None when it says this already."""
    old = None if stored is None else read_dataset(layout, dataset.name, stored)
    return _edit(layout.dataset(dataset.name), stored, old, _with_old_extra(old, dataset))


def edit_shard(layout: Layout, stored: bytes | None, shard: Shard, floor: bytes | None) -> bytes | None:
    """The new data of the shard's znode; None when it says this already.

    A changed leader raises the generation. Raises TopologyError when the shard
    was read before the stored leader changed.
    """
    path = layout.shard(shard.dataset, shard.id)
    old = None if stored is None else read_shard(layout, shard.dataset, shard.id, stored)
    if isinstance(old, Shard):
        if shard.leader != old.leader and shard.generation < old.generation:
            raise TopologyError(
                f"its leader has meanwhile changed to {old.leader} (generation {old.generation}).",
                where=path,
                field="leader",
                cure="Read the shard again.",
            )
        least = old.generation + (shard.leader != old.leader)
    else:
        least = max(read_generation_floor(floor, shard.dataset), _salvaged_generation(stored))
    return _edit(path, stored, old, _with_old_extra(old, replace(shard, generation=max(shard.generation, least))))


def edit_leader(
    layout: Layout, stored: bytes | None, dataset: str, shard: str, leader: Address
) -> tuple[Shard, bytes | None]:
    """The shard with this leader and the next generation, and its data; None when it leads already.

    Raises NotFound, and TopologyError for a malformed znode.
    """
    old = read_shard(layout, dataset, shard, _present(stored, layout.shard(dataset, shard)))
    if isinstance(old, Problem):
        raise TopologyError(old.message)
    if old.leader == leader:
        return old, None
    new = replace(old, leader=leader, generation=old.generation + 1)
    return new, _edit(layout.shard(dataset, shard), stored, old, new)


def edit_pause(
    layout: Layout, stored: bytes | None, dataset: str, shard: str | None, pause: Pause | None
) -> bytes | None:
    """The data of a dataset or shard with this pause; None when it says this already.

    Raises NotFound, and TopologyError for a malformed znode.
    """
    path = layout.dataset(dataset) if shard is None else layout.shard(dataset, shard)
    data = _present(stored, path)
    old = read_dataset(layout, dataset, data) if shard is None else read_shard(layout, dataset, shard, data)
    if isinstance(old, Problem):
        raise TopologyError(old.message)
    if isinstance(old, Dataset):
        return _edit(path, stored, old, replace(old, pause=pause))
    return _edit(path, stored, old, replace(old, pause=pause))


def edit_platform_pause(layout: Layout, pause: Pause) -> bytes:
    """The data of the platform's pause."""
    return serialize(encode_pause(pause), layout.pause)


def plan_import(layout: Layout, stored: Stored, wanted: Topology, *, prune: bool = False) -> tuple[Edit, ...]:
    """What makes ZooKeeper hold the file's topology.

    Shards that the file does not name are deleted. Datasets and clusters that
    it does not name are left alone, with `prune` deleted. Leaders of stored
    shards are kept unless the file has a greater generation; a pause is kept
    unless the file has one. Creates come first: clusters, datasets, shards.
    """
    edits: list[Edit] = []
    for cluster in wanted.clusters.values():
        edits += _cluster_edits(layout, stored, cluster)
    for dataset in wanted.datasets.values():
        edits += _dataset_edits(layout, stored, dataset)
    for name in wanted.datasets:
        edits += _shard_edits(layout, stored, name, wanted.shards.get(name, ()))
    if wanted.pause is not None and read_pause(layout, stored.pause)[0] != wanted.pause:
        change = Change(action="update" if stored.pause else "create", kind="platform", name="pause")
        edits.append(Edit(change=change, path=layout.pause, data=edit_platform_pause(layout, wanted.pause)))
    edits += _absent(layout, stored, wanted, prune)
    return tuple(edits)


def check_deletes(changes: Sequence[Change], most: int) -> None:
    """Raises PlanRefused when more than `most` documents would be deleted."""
    gone = [change.name for change in changes if change.action == "delete"]
    if len(gone) > most:
        raise PlanRefused(
            f"{len(gone)} documents would be deleted ({some_of(gone, 5)}), {most} are allowed.",
            cure=f"If that is meant, pass --allow-deletes {len(gone)}.",
        )


def _cluster_edits(layout: Layout, stored: Stored, cluster: Cluster) -> Iterator[Edit]:
    raw = stored.clusters.get(cluster.name)
    old = None if raw is None else read_cluster(layout, cluster.name, raw)
    path = layout.cluster(cluster.name)
    new = _with_old_extra(old, cluster)
    yield from _as_edit(_change("cluster", cluster.name, raw, old, new), path, _edit(path, raw, old, new))


def _dataset_edits(layout: Layout, stored: Stored, dataset: Dataset) -> Iterator[Edit]:
    raw = stored.datasets.get(dataset.name)
    old = None if raw is None else read_dataset(layout, dataset.name, raw)
    new = _with_old_extra(old, dataset)
    if isinstance(old, Dataset):
        new = replace(new, pause=dataset.pause or old.pause)
    path = layout.dataset(dataset.name)
    yield from _as_edit(_change("dataset", dataset.name, raw, old, new), path, _edit(path, raw, old, new))


def _shard_edits(layout: Layout, stored: Stored, dataset: str, wanted: tuple[Shard, ...]) -> Iterator[Edit]:
    before = stored.shards.get(dataset, {})
    floor = read_generation_floor(stored.floor, dataset)
    for shard in wanted:
        raw = before.get(shard.id)
        old = None if raw is None else read_shard(layout, dataset, shard.id, raw)
        path = layout.shard(dataset, shard.id)
        if isinstance(old, Shard):
            new = _imported(old, shard)
            if new.leader != shard.leader:
                note = (
                    f"its leader stays {old.leader} (generation {old.generation}); "
                    f"the file says {shard.leader}, use `topology set-leader` for that"
                )
                yield Edit(change=Change(action="keep", kind="shard", name=shard.name, note=note), path=path)
        else:
            new = replace(shard, generation=max(shard.generation, floor, _salvaged_generation(raw)))
        yield from _as_edit(_change("shard", shard.name, raw, old, new), path, _edit(path, raw, old, new))
    for shard_id in sorted(before.keys() - {shard.id for shard in wanted}):
        yield delete_shard(layout, dataset, shard_id, before[shard_id])


def _absent(layout: Layout, stored: Stored, wanted: Topology, prune: bool) -> Iterator[Edit]:
    """Datasets and clusters that the file does not name."""
    note = "" if prune else "not in the file, left alone; --prune deletes it"
    action: Literal["delete", "keep"] = "delete" if prune else "keep"
    for name in sorted(stored.datasets.keys() - wanted.datasets.keys()):
        if prune:
            yield from delete_dataset(layout, stored, name)
        else:
            yield Edit(change=Change(action=action, kind="dataset", name=name, note=note), path=layout.dataset(name))
    for name in sorted(stored.clusters.keys() - wanted.clusters.keys()):
        yield Edit(change=Change(action=action, kind="cluster", name=name, note=note), path=layout.cluster(name))


def delete_dataset(layout: Layout, stored: Stored, name: str) -> Iterator[Edit]:
    """A dataset goes: its shards, then itself."""
    for shard_id, raw in sorted(stored.shards.get(name, {}).items()):
        yield delete_shard(layout, name, shard_id, raw)
    yield Edit(change=Change(action="delete", kind="dataset", name=name), path=layout.dataset(name))


def delete_shard(layout: Layout, dataset: str, shard_id: str, raw: bytes) -> Edit:
    """A shard goes; its generation is remembered, see `generation_floor`."""
    return Edit(
        change=Change(action="delete", kind="shard", name=f"{dataset}.{shard_id}"),
        path=layout.shard(dataset, shard_id),
        generation=_salvaged_generation(raw),
    )


def _imported(old: Shard, wanted: Shard) -> Shard:
    new = replace(_with_old_extra(old, wanted), pause=wanted.pause or old.pause)
    if wanted.leader != old.leader and wanted.generation <= old.generation:
        return replace(new, leader=old.leader, replicas=old.replicas, generation=old.generation)
    return replace(new, generation=max(wanted.generation, old.generation))


def _with_old_extra(old: Any, new: V) -> V:
    """The new value with the old one's unknown fields, so that equal documents give equal values."""
    if isinstance(old, type(new)) and old.extra:
        return replace(new, extra={**old.extra, **new.extra})
    return new


def _edit(path: str, stored: bytes | None, old: V | Problem | None, new: V) -> bytes | None:
    if old == new:
        return None
    document = (
        encode_cluster(new)
        if isinstance(new, Cluster)
        else encode_dataset(new)
        if isinstance(new, Dataset)
        else encode_shard(new)
    )
    return serialize(merged(type(new), stored, document), path)


def _change(
    kind: Literal["cluster", "dataset", "shard"], name: str, raw: bytes | None, old: V | Problem | None, new: V
) -> Change:
    if raw is None:
        return Change(action="create", kind=kind, name=name)
    if old is None or isinstance(old, Problem):
        return Change(action="update", kind=kind, name=name, note="what is stored is malformed")
    changed = tuple(f.name for f in fields(new) if getattr(old, f.name) != getattr(new, f.name))
    return Change(action="update", kind=kind, name=name, fields=changed)


def _as_edit(change: Change, path: str, data: bytes | None) -> Iterator[Edit]:
    if data is not None:
        yield Edit(change=change, path=path, data=data)


def _salvaged_generation(raw: bytes | None) -> int:
    """The generation in a stored document, even in one that is malformed otherwise."""
    try:
        found = parse(raw or b"", "").get("generation", 0)
    except TopologyError:
        return 0
    return found if type(found) is int and 0 <= found < 2**62 else 0


def _present(stored: bytes | None, path: str) -> bytes:
    if stored is None:
        raise NotFound("does not exist.", where=path, cure="`cdc-platform topology show` lists what there is.")
    return stored
