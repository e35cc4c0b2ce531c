"""From what the leaders said to findings. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

from cdc_platform.connectors.identity import Identity
from cdc_platform.model.topology import Dataset, Shard
from cdc_platform.planning.doctor.examination import Examination
from cdc_platform.planning.doctor.findings import DoctorFinding, merged
from cdc_platform.planning.doctor.servers import server_findings
from cdc_platform.planning.doctor.shards import differences, shard_findings, shared_databases
from cdc_platform.planning.doctor.tables import hidden_columns, table_findings

# The shards that were examined, by name.
Examined = Mapping[str, tuple[Dataset, Shard, Identity, Examination]]


def judge(examined: Examined, of_table: Callable[[str], bool] = bool) -> tuple[DoctorFinding, ...]:
    """All that is wrong with these shards, the worst first; `of_table`: which tables are asked about.

    Raises OverrideRefused.
    """
    accepted = {dataset.name: dataset.accepted_hazards for dataset, *_ in examined.values()}
    found: dict[str, list[DoctorFinding]] = defaultdict(list)
    for one in _findings(examined):
        if not one.table or of_table(one.table):
            found[one.dataset].append(one)
    return tuple(one for dataset, own in sorted(found.items()) for one in merged(own, accepted[dataset]))


def _findings(examined: Examined) -> Iterator[DoctorFinding]:
    datasets: dict[str, tuple[Dataset, dict[str, Examination]]] = {}
    for dataset, shard, own, seen in examined.values():
        yield from shard_findings(dataset, shard, own, seen)
        yield from table_findings(dataset, shard, seen)
        yield from hidden_columns(dataset, shard, seen)
        datasets.setdefault(dataset.name, (dataset, {}))[1][shard.id] = seen
    for dataset, shards in datasets.values():
        yield from shared_databases(dataset, shards)
        yield from differences(dataset, shards)
    yield from server_findings(
        {name: (dataset, shard, seen, own.slot or "") for name, (dataset, shard, own, seen) in examined.items()}
    )
