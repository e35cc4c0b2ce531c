"""Hypothesis strategies for topologies, wide where documents are: free text, every optional field, odd ids."""

from __future__ import annotations

from datetime import UTC, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from cdc_platform.documents.znodes import MAX_FLOOR
from cdc_platform.model.topology import (
    EMPTY,
    Address,
    BootstrapMode,
    Cluster,
    Credentials,
    Dataset,
    Engine,
    Limits,
    Pause,
    Shard,
    Table,
    TopicSpec,
    Topology,
)

# Any text that UTF-8 can hold; YAML and JSON escape what they must.
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
some_text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
dataset_names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
shard_ids = st.one_of(
    st.integers(0, 20).map("{:05d}".format),
    st.integers(0, 20).map(str),
    st.from_regex(r"[a-z0-9][a-z0-9_-]{0,5}", fullmatch=True),
    st.sampled_from(["null", "true", "no", "range", "id", "1e5", "0x1f", "1_0", "00-00", "007", "extra"]),
)
table_names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_$]{0,8}", fullmatch=True)
cluster_names = st.sampled_from(["main", "other", "0", "eu-1"])
hosts = st.from_regex(r"[a-z0-9]{1,6}(\.[a-z0-9]{1,4})?", fullmatch=True)
addresses = st.builds(Address, hosts, st.integers(1, 65535))
references = st.sampled_from(["${file:/run/secrets/db.properties:user}", "${env:DB_PASSWORD}"])
credentials = st.builds(Credentials, user=references, password=references)
_offsets = st.sampled_from([UTC, timezone(timedelta(hours=2)), timezone(-timedelta(hours=9, minutes=30))])
pauses = st.none() | st.builds(
    Pause, reason=some_text, author=some_text, until=st.none() | st.datetimes(timezones=_offsets)
)
# No field of any document begins with `x`, so these are unknown ones, and none is named like a secret.
unknown_names = st.from_regex(r"x[a-z ._0-9]{0,6}", fullmatch=True)
text_maps = st.dictionaries(unknown_names, text, max_size=2).map(lambda found: found or EMPTY)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(unknown_names, inner, max_size=3),
    max_leaves=5,
)
free_maps: st.SearchStrategy[Any] = st.dictionaries(unknown_names, json_values, max_size=2).map(
    lambda found: found or EMPTY
)

clusters = st.builds(
    Cluster,
    name=cluster_names,
    urls=st.lists(st.sampled_from(["http://w0:8083", "https://w1:8083/connect"]), min_size=1, max_size=2).map(tuple),
    capacity=st.integers(1, 5000),
    leader_dir=st.sampled_from(["/var/lib/cdc-platform/leaders", "/srv/leaders"]),
    labels=text_maps,
    metrics=text_maps,
    draining=st.booleans(),
    extra=free_maps,
)


@st.composite
def datasets(draw: st.DrawFn, name: str, cluster_choice: list[str]) -> Dataset:
    """A dataset that names only these clusters."""
    tables = draw(
        st.lists(
            st.builds(
                Table,
                name=table_names,
                schema=st.none() | table_names,
                key=st.lists(table_names, max_size=2).map(tuple),
            ),
            min_size=1,
            max_size=3,
            unique_by=lambda table: table.name,
        )
    )
    return Dataset(
        name=name,
        engine=draw(st.sampled_from(Engine)),
        tables=tuple(tables),
        clusters=tuple(draw(st.lists(st.sampled_from(cluster_choice), min_size=1, max_size=2))),
        credentials=draw(credentials),
        topic_pattern=draw(st.sampled_from(["cdc.{dataset}.{table}", "{table}_{dataset}"])),
        topics=draw(
            st.builds(TopicSpec, partitions=st.integers(1, 9), replication=st.integers(1, 4), config=text_maps)
        ),
        bootstrap=draw(st.sampled_from(BootstrapMode)),
        connector=draw(text_maps),
        limits=draw(st.builds(Limits, queue_events=st.integers(1, 9), bytes_per_second=st.none() | st.integers(1, 9))),
        verification=draw(free_maps),
        owners=tuple(draw(st.lists(text, max_size=2))),
        pause=draw(pauses),
        extra=draw(free_maps),
    )


@st.composite
def shards(draw: st.DrawFn, dataset: str, shard_id: str) -> Shard:
    """A shard; many share what differs only by the id, so that ranges form."""
    plain = draw(st.booleans())
    return Shard(
        dataset=dataset,
        id=shard_id,
        leader=Address("db", 3306) if plain else draw(addresses),
        database=f"d_{shard_id}".replace("-", "_") if plain else draw(table_names),
        replicas=() if plain else tuple(draw(st.lists(addresses, max_size=2))),
        generation=0 if plain else draw(st.integers(0, MAX_FLOOR)),
        connector=EMPTY if plain else draw(text_maps),
        pause=None if plain else draw(pauses),
        extra=EMPTY if plain else draw(free_maps),
    )


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """A valid topology without problems, its shards sorted by id."""
    found_clusters = draw(st.lists(clusters, min_size=1, max_size=2, unique_by=lambda cluster: cluster.name))
    names = draw(st.lists(dataset_names, max_size=2, unique=True))
    all_shards = {}
    for name in names:
        ids = sorted(draw(st.lists(shard_ids, max_size=8, unique=True)))
        all_shards[name] = tuple(draw(shards(name, shard_id)) for shard_id in ids)
    return Topology(
        clusters={cluster.name: cluster for cluster in found_clusters},
        datasets={name: draw(datasets(name, [cluster.name for cluster in found_clusters])) for name in names},
        shards=all_shards,
        pause=draw(pauses),
    )
