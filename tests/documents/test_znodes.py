"""Znodes: hostile bytes cost one document, unknown fields survive, equal values are not written again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_platform.documents import Layout
from cdc_platform.documents.edits import edit_cluster, edit_dataset, edit_shard
from cdc_platform.documents.topology_fields import (
    decode_cluster,
    decode_dataset,
    decode_shard,
    encode_cluster,
    encode_dataset,
    encode_shard,
)
from cdc_platform.documents.znodes import (
    MAX_BYTES,
    assemble,
    read_cluster,
    read_dataset,
    read_pause,
    read_shard,
    serialize,
)
from cdc_platform.errors import SettingsError, TopologyError
from cdc_platform.model.topology import Cluster, Dataset, Problem, Shard, Topology
from tests.documents.strategies import json_values, topologies

LAYOUT = Layout()
SHARD = b'{"leader":"db:3306","database":"pins_00000"}'

GARBAGE = [
    b"",
    b"  ",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"\xff\xfe",
    b"\x00",
    b'{"leader":"db:3306"}',
    b'{"leader":"db","database":"p"}',
    b'{"leader":"db:3306","database":"p; DROP TABLE x"}',
    b'{"leader":"evil\\nport=1:3306","database":"p"}',
    b'{"leader":"${env:SECRET}:3306","database":"p"}',
    b'{"leader":"db:3306","database":"p","generation":-1}',
    b'{"leader":"db:3306","database":"p","generation":1e3}',
    b'{"leader":"db:3306","database":"p","generation":true}',
    b'{"leader":"db:3306","database":"p","generation":' + b"9" * 5000 + b"}",
    b'{"leader":"db:3306","database":"p","x":NaN}',
    b'{"leader":"db:3306","database":"p","replicas":"db-1:3306"}',
    b'{"leader":"db:3306","database":"p","pause":{"reason":"r"}}',
    b'{"leader":"db:3306","database":"p","pause":{"reason":"r","author":"a","until":"2030-01-01T00:00:00"}}',
    b'{"leader":"db:3306","database":"p","connector":{"a":"\\ud800"}}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"leader":"db:3306","database":"p","x":"' + b"y" * MAX_BYTES + b'"}',
]


@pytest.mark.parametrize("data", GARBAGE, ids=lambda data: data[:40].decode(errors="replace"))
def test_garbage_in_a_shard_znode_is_a_problem_with_its_path(data: bytes) -> None:
    found = read_shard(LAYOUT, "pins", "00000", data)
    assert isinstance(found, Problem)
    assert (found.kind, found.name) == ("shard", "pins.00000")
    assert found.message.startswith("/cdc/datasets/pins/shards/00000: ")
    assert "Cure: " in found.message
    assert len(found.message) < 1000


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_a_value_or_a_problem(data: bytes) -> None:
    assert isinstance(read_shard(LAYOUT, "pins", "00000", data), Shard | Problem)
    assert isinstance(read_dataset(LAYOUT, "pins", data), Dataset | Problem)
    assert isinstance(read_cluster(LAYOUT, "main", data), Cluster | Problem)
    pause, problem = read_pause(LAYOUT, data)
    assert pause is not None, "somebody meant to pause: garbage must not resume the platform"
    assert (problem is None) or problem.kind == "platform"


def test_an_unreadable_pause_holds() -> None:
    pause, problem = read_pause(LAYOUT, b"oops")
    assert pause is not None and "unreadable" in pause.reason
    assert problem is not None and "/cdc/control/pause" in problem.message


@given(topologies(), st.data())
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read_and_unknown_fields_survive(topology: Topology, data: st.DataObject) -> None:
    unknown: dict[str, Any] = {"future_field": data.draw(json_values)}
    for cluster in topology.clusters.values():
        stored = serialize(encode_cluster(cluster), "")
        assert read_cluster(LAYOUT, cluster.name, stored) == cluster
        assert edit_cluster(LAYOUT, stored, cluster) is None, "equal: nothing to write"
        changed = Cluster(name=cluster.name, urls=("http://new:1",))
        written = edit_cluster(LAYOUT, json.dumps(encode_cluster(cluster) | unknown).encode(), changed)
        assert written is not None and json.loads(written)["future_field"] == unknown["future_field"]
    for dataset in topology.datasets.values():
        stored = serialize(encode_dataset(dataset), "")
        assert read_dataset(LAYOUT, dataset.name, stored) == dataset
        assert edit_dataset(LAYOUT, stored, dataset) is None
    for _, shard in topology.all_shards():
        stored = serialize(encode_shard(shard), "")
        assert read_shard(LAYOUT, shard.dataset, shard.id, stored) == shard
        assert edit_shard(LAYOUT, stored, shard, None) is None


def test_unknown_fields_survive_inside_nested_documents() -> None:
    stored = {
        "engine": "mariadb",
        "clusters": ["main"],
        "tables": ["pins", {"name": "boards", "key": ["id"], "hint": 1}],
        "credentials": {"user": "${env:U}", "password": "${env:P}", "rotated": "2030"},
        "topics": {"partitions": 4, "tier": "cold"},
        "limits": {"burst": 3},
    }
    old = read_dataset(LAYOUT, "pins", json.dumps(stored).encode())
    assert isinstance(old, Dataset)
    new = Dataset(
        name="pins",
        engine=old.engine,
        clusters=("main", "second"),
        tables=old.tables,
        credentials=old.credentials,
        topics=old.topics,
    )
    written = edit_dataset(LAYOUT, json.dumps(stored).encode(), new)
    assert written is not None
    document = json.loads(written)
    assert document["clusters"] == ["main", "second"]
    assert document["tables"][1] == {"name": "boards", "key": ["id"], "hint": 1}
    assert document["credentials"]["rotated"] == "2030"
    assert document["topics"] == {"partitions": 4, "tier": "cold"}
    assert document["limits"] == {"burst": 3}


def test_a_dataset_whose_cluster_is_gone_is_a_problem_and_keeps_its_shards_for_failover() -> None:
    good = read_shard(LAYOUT, "pins", "00000", SHARD)
    bad = read_shard(LAYOUT, "pins", "00001", b"{")
    dataset = read_dataset(
        LAYOUT,
        "pins",
        b'{"engine":"mariadb","tables":["t"],"clusters":["main"],'
        b'"credentials":{"user":"${env:U}","password":"${env:P}"}}',
    )
    found = assemble(clusters={}, datasets={"pins": dataset}, shards={"pins": [bad, good]})
    assert not found.datasets
    assert [(problem.kind, problem.name) for problem in found.problems] == [
        ("dataset", "pins"),
        ("shard", "pins.00001"),
    ]
    assert "names cluster 'main', which is not there" in found.problems[0].message
    assert found.shards["pins"] == (good,)
    assert list(found.all_shards()) == []


@pytest.mark.parametrize(
    ("kind", "decode"),
    [
        (Cluster, lambda raw: decode_cluster("c", raw, where="", strict=True)),
        (Dataset, lambda raw: decode_dataset("d", raw, where="", strict=True)),
        (Shard, lambda raw: decode_shard("d", "s", raw, where="", strict=True)),
    ],
)
def test_every_field_of_a_value_has_its_place_in_the_document(kind: type, decode: Callable[[Any], Any]) -> None:
    documents: dict[type, dict[str, object]] = {
        Cluster: {"urls": ["http://c:1"]},
        Dataset: {
            "engine": "mariadb",
            "tables": ["t"],
            "clusters": ["main"],
            "credentials": {"user": "${env:U}", "password": "${env:P}"},
        },
        Shard: {"leader": "h:1", "database": "p"},
    }
    needed = documents[kind]
    decode(needed)
    for field in fields(kind):
        if field.name not in ("name", "id", "dataset", "left_out"):  # the last is what passes add
            decode({field.name: None} | needed)  # an unknown field is refused
    with pytest.raises(TopologyError, match="no such field"):
        decode({"unheard_of": None} | needed)


def test_a_document_too_large_for_a_znode_is_refused() -> None:
    with pytest.raises(TopologyError, match="too many for a znode"):
        serialize({"a": "x" * MAX_BYTES}, "/cdc/x")


@pytest.mark.parametrize("root", ["", "cdc", "/", "/cdc/", "//cdc", "/cdc/../x", "/cd c"])
def test_a_bad_root_is_refused(root: str) -> None:
    with pytest.raises(SettingsError):
        Layout(root)
