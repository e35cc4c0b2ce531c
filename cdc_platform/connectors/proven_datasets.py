"""The datasets that would prove what watched connectors capture, with connectors of the platform's own. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from cdc_platform.connectors.adoption import Adoptable
from cdc_platform.connectors.tables import DEFAULT_SCHEMA
from cdc_platform.errors import TopologyError
from cdc_platform.model.secret_references import is_reference
from cdc_platform.model.topology import Address, Cluster, Credentials, Dataset, Engine, Shard, Table, Topology

SECRETS_DIR = "/etc/cdc-platform/secrets"

# (Schema, empty where the engine has none; table) of each.
_Tables = tuple[tuple[str, str], ...]


def proven_datasets(
    cluster: Cluster, connectors: Sequence[Adoptable], taken: Iterable[str] = ()
) -> tuple[Topology, dict[str, str]]:
    """A topology with datasets for these connectors, and why some are in none, by name.

    Connectors with the same tables and login are shards of one dataset. Logins are the references of the
    connectors' configs, else one that is to be filled.

    Args:
        cluster: where they run.
        connectors: from their configs.
        taken: names that datasets have already.
    """
    left: dict[str, str] = {}
    groups: dict[tuple[Engine, _Tables, tuple[str, ...]], list[Adoptable]] = defaultdict(list)
    for one in connectors:
        if one.tables is None:
            left[one.name] = "its tables are named by patterns: name them in a dataset of your own"
        elif one.database is None:
            left[one.name] = "it reads several databases: make a dataset with a shard for each"
        elif one.host is None:
            left[one.name] = "its server is a reference: name the leader in a dataset of your own"
        else:
            tables = tuple(sorted(t if one.engine is Engine.POSTGRES else ("", t[1]) for t in one.tables))
            both = is_reference(one.user) and is_reference(one.password)
            login: tuple[str, ...] = (one.user, one.password) if both else ()
            groups[one.engine, tables, login].append(one)
    names = set(taken)
    datasets: dict[str, Dataset] = {}
    shards: dict[str, tuple[Shard, ...]] = {}
    for (_, same_tables, same_login), members in sorted(groups.items(), key=lambda item: item[1][0].name):
        name = _free(_dataset_name([one.name for one in members]), names)
        names.add(name)
        try:
            datasets[name], shards[name] = _dataset(name, cluster, members, same_tables, same_login)
        except TopologyError as error:
            left |= {one.name: str(error) for one in members}
            datasets.pop(name, None)
    return Topology(clusters={cluster.name: cluster}, datasets=datasets, shards=shards), left


def _dataset(
    name: str,
    cluster: Cluster,
    members: Sequence[Adoptable],
    tables: tuple[tuple[str, str], ...],
    login: tuple[str, ...],
) -> tuple[Dataset, tuple[Shard, ...]]:
    file = f"{SECRETS_DIR}/{name}/login.properties"
    user, password = login or (f"${{file:{file}:user}}", f"${{file:{file}:password}}")
    dataset = Dataset(
        name=name,
        engine=members[0].engine,
        tables=tuple(Table(name=t, schema=s if s and s != DEFAULT_SCHEMA else None) for s, t in tables),
        clusters=(cluster.name,),
        credentials=Credentials(user=user, password=password),
    )
    made = []
    for number, one in enumerate(sorted(members, key=lambda one: one.name)):
        assert one.host is not None
        assert one.database is not None
        made.append(Shard(dataset=name, id=f"{number:05}", leader=Address.parse(one.host), database=one.database))
    return dataset, tuple(made)


def _dataset_name(names: Sequence[str]) -> str:
    """What the connectors' names have in common, as the name of a dataset."""
    text = _common_start(names)
    text = re.sub(r"[^a-z0-9]+", "_", text.lower())
    text = re.sub(r"(_(connector|source|shard|cdc))*_?[0-9]*_?$", "", text).strip("_")
    return re.sub(r"^[^a-z]+", "", text)[:36] or "adopted"


def _common_start(names: Sequence[str]) -> str:
    """The text that all of them begin with; the first name where they have nothing in common."""
    first, last = min(names), max(names)
    same = next((at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    return first[:same] or first


def _free(name: str, taken: set[str]) -> str:
    found, number = name, 2
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    return found
