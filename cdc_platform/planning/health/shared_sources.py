"""Which shards read one database, by what the servers say of themselves. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from cdc_platform.connectors.shared_databases import accepts_shared
from cdc_platform.model.topology import Dataset, Topology


def readers_of_one(topology: Topology, places: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Each shard that shares its database, to the others: those of its dataset, and of datasets with a table in common.

    `places` has server and database of shards, as `SourceFacts.place`; a dataset that accepts it is left out.
    """
    by_place: dict[str, list[tuple[str, Dataset]]] = defaultdict(list)
    for dataset, shard in topology.all_shards():
        if (place := places.get(shard.name)) and not accepts_shared(dataset):
            by_place[place].append((shard.name, dataset))
    return {
        name: others
        for together in by_place.values()
        if len(together) > 1
        for name, dataset in together
        if (others := tuple(other for other, of in together if other != name and _both_capture(dataset, of)))
    }


def _both_capture(one: Dataset, other: Dataset) -> bool:
    return one.name == other.name or bool(_tables(one) & _tables(other))


def _tables(dataset: Dataset) -> set[tuple[str, str]]:
    return {(table.schema or "public", table.name) for table in dataset.tables}
