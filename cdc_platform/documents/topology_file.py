"""The topology file: how people without their own tooling fill ZooKeeper. See docs/topology.md."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from cdc_platform.documents.fields import Fields, refuse_plain_secrets
from cdc_platform.documents.shard_ranges import compact, expand
from cdc_platform.documents.topology_fields import (
    Document,
    decode_cluster,
    decode_dataset,
    decode_pause,
    decode_shard,
    encode_cluster,
    encode_dataset,
    encode_pause,
    encode_shard,
)
from cdc_platform.documents.yaml_text import MAX_BYTES, YamlText, dump
from cdc_platform.errors import TopologyError
from cdc_platform.model.topology import EMPTY, Cluster, Dataset, Shard, Topology


def load_yaml(path: Path, *, known_clusters: Collection[str] = ()) -> Topology:
    """Read a topology file.

    `known_clusters` are clusters that datasets may name though the file does
    not define them (those already stored).

    Raises:
        TopologyError: names file and line, field and cure.
    """
    cure = "Give the path of a topology file; examples/topology.yaml is one."
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise TopologyError("is too large.", where=str(path), cure=f"Use {MAX_BYTES} bytes at most.")
        text = data.decode()
    except OSError as error:
        raise TopologyError(f"cannot be read: {error.strerror}.", where=str(path), cure=cure) from None
    except UnicodeDecodeError:
        raise TopologyError("is not UTF-8 text.", where=str(path), cure=cure) from None
    return parse_yaml(text, where=str(path), known_clusters=known_clusters)


def parse_yaml(text: str, *, where: str = "topology", known_clusters: Collection[str] = ()) -> Topology:
    """The topology in this text; like `load_yaml`."""
    source = YamlText(text, where)
    try:
        return _topology(source.value, where, known_clusters)
    except TopologyError as error:
        line = source.line(error.field or "")
        if error.where != where or line is None:
            raise
        raise TopologyError(error.message, where=f"{where}:{line}", field=error.field, cure=error.cure) from None


def _topology(raw: Any, where: str, known_clusters: Collection[str]) -> Topology:
    if raw is None:
        raise TopologyError(
            "holds nothing.", where=where, cure="Name `clusters` and `datasets`; examples/topology.yaml is a start."
        )
    refuse_plain_secrets(raw, where=where)
    fields = Fields(raw, where=where)
    clusters: dict[str, Cluster] = {}
    for name, document in fields.inner("clusters").raw.items():
        clusters[name] = decode_cluster(name, document, where=where, path=f"clusters.{name}", strict=True)
    datasets: dict[str, Dataset] = {}
    shards: dict[str, tuple[Shard, ...]] = {}
    for name, document in fields.inner("datasets").raw.items():
        path = f"datasets.{name}"
        dataset = decode_dataset(name, document, where=where, path=path, strict=True)
        for index, cluster in enumerate(dataset.clusters):
            if cluster not in clusters and cluster not in known_clusters:
                known = ", ".join(sorted({*clusters, *known_clusters})) or "(none)"
                raise TopologyError(
                    f"there is no cluster {cluster!r}.",
                    where=where,
                    field=f"{path}.clusters[{index}]",
                    cure=f"Define it under `clusters`, or use one of {known}.",
                )
        datasets[name] = dataset
        shards[name] = _shards(name, document.get("shards"), where, f"{path}.shards")
    pause = fields.raw["pause"] if fields.has("pause") else None
    fields.refuse_unknown()
    return Topology(
        clusters=clusters or EMPTY,
        datasets=datasets or EMPTY,
        shards=shards or EMPTY,
        pause=None if pause is None else decode_pause(pause, where=where, path="pause", strict=True),
    )


def _shards(dataset: str, raw: Any, where: str, path: str) -> tuple[Shard, ...]:
    documents = expand({} if raw is None else raw, where=where, path=path)
    found = [
        decode_shard(dataset, shard_id, document, where=where, path=at, strict=True)
        for shard_id, at, document in documents
    ]
    return tuple(sorted(found, key=lambda shard: shard.id))


def dump_yaml(topology: Topology) -> str:
    """The topology as a file that `load_yaml` reads back to an equal value.

    Raises:
        TopologyError: the topology has problems. A file without the broken
            shards would delete them when it is imported.
    """
    if topology.problems:
        first = topology.problems[0]
        text, _, cure = first.message.partition(" Cure: ")
        raise TopologyError(
            f"{len(topology.problems)} stored documents are malformed, the first: {text}",
            where=f"{first.kind} {first.name}",
            cure=f"{cure or 'Fix or delete it.'} Then export again.",
        )
    document: Document = {}
    if topology.pause:
        document["pause"] = encode_pause(topology.pause)
    if topology.clusters:
        document["clusters"] = {
            name: _with_extra(encode_cluster(cluster), cluster) for name, cluster in topology.clusters.items()
        }
    if topology.datasets:
        document["datasets"] = {name: _dataset(topology, name) for name in topology.datasets}
    return dump(document)


def _dataset(topology: Topology, name: str) -> Document:
    dataset = topology.datasets[name]
    document = _with_extra(encode_dataset(dataset), dataset)
    shards = [(shard.id, _with_extra(encode_shard(shard), shard)) for shard in topology.shards.get(name, ())]
    if shards:
        document["shards"] = compact(shards)
    return document


def _with_extra(document: Document, value: Cluster | Dataset | Shard) -> Document:
    """Unknown fields move under `extra`: elsewhere in the file an unknown field is a mistake."""
    if not value.extra:
        return document
    known = {key: entry for key, entry in document.items() if key not in value.extra}
    return known | {"extra": dict(value.extra)}
