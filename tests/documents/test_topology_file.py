"""The topology file: what it holds, and what is refused with file, line, field and cure."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings

from cdc_platform.documents import dump_yaml, load_yaml, parse_yaml
from cdc_platform.errors import TopologyError
from cdc_platform.model.topology import Address, BootstrapMode, Engine, Problem, Topology
from tests.documents.strategies import topologies

GOOD = """\
clusters:
  main: {urls: ["http://connect:8083"]}
datasets:
  pins:
    engine: mariadb
    tables: [pins, {name: boards, key: [owner, id]}]
    clusters: [main]
    credentials: {user: "${file:/run/secrets/db:user}", password: "${env:DB_PASSWORD}"}
    bootstrap: snapshot
    shards:
      "00000": {leader: "db-0:3306", replicas: ["db-1:3306"], database: pins_00000}
"""


def refused(text: str) -> TopologyError:
    with pytest.raises(TopologyError) as caught:
        parse_yaml(text, where="t.yaml")
    assert caught.value.cure, "each error says how to cure it"
    return caught.value


@given(topologies())
@settings(max_examples=60, deadline=None)
def test_round_trip_is_identity(topology: Topology) -> None:
    assert parse_yaml(dump_yaml(topology)) == topology


def test_fields_are_read(tmp_path: Path) -> None:
    file = tmp_path / "topology.yaml"
    file.write_text(GOOD)
    topology = load_yaml(file)
    dataset = topology.dataset("pins")
    assert (dataset.engine, dataset.bootstrap) == (Engine.MARIADB, BootstrapMode.SNAPSHOT)
    assert [(table.name, table.key) for table in dataset.tables] == [("pins", ()), ("boards", ("owner", "id"))]
    shard = topology.shard("pins", "00000")
    assert (shard.leader, shard.replicas) == (Address("db-0", 3306), (Address("db-1", 3306),))


def test_the_file_in_the_documentation_is_right() -> None:
    page = (Path(__file__).parents[2] / "docs" / "topology.md").read_text()
    example = page.split("```yaml\n")[1].split("```")[0]
    shards = parse_yaml(example).shards["pins"]
    assert len(shards) == 10_000
    assert shards[-1].connector == {"max.queue.size": "512"}


def test_ids_are_text_as_written_even_without_quotes() -> None:
    text = GOOD.replace('"00000":', "00007:")
    assert [shard.id for shard in parse_yaml(text).shards["pins"]] == ["00007"]


def test_ranges_write_10_000_shards_in_one_line() -> None:
    line = '    shards: {range: "00000-09999", leader: "db-{shard}.internal:3306", database: "pins_{shard}"}\n'
    text = GOOD[: GOOD.index("    shards:")] + line
    topology = parse_yaml(text)
    assert len(topology.shards["pins"]) == 10_000
    assert topology.shard("pins", "01234").leader == Address("db-01234.internal", 3306)
    assert len(dump_yaml(topology).splitlines()) < 20
    assert parse_yaml(dump_yaml(topology)) == topology


def test_ranges_and_single_shards_mix_in_a_list() -> None:
    text = (
        GOOD[: GOOD.index("    shards:")]
        + """\
    shards:
      - {range: "eu-00-eu-02", leader: "a:1", database: "p_{shard}"}
      - {id: "us-00", leader: "b:2", database: p}
"""
    )
    text = text.replace("p_{shard}", "p")
    assert [shard.id for shard in parse_yaml(text).shards["pins"]] == ["eu-00", "eu-01", "eu-02", "us-00"]


@pytest.mark.parametrize(
    ("change", "line", "field", "words"),
    [
        (("mariadb", "oracle"), 5, "datasets.pins.engine", "not a known engine"),
        (("mariadb", "maria"), 5, "datasets.pins.engine", "Did you mean 'mariadb'?"),
        (("bootstrap:", "bootstrp:"), 9, "datasets.pins.bootstrp", "Did you mean 'bootstrap'?"),
        (("replicas:", "replica:"), 11, 'datasets.pins.shards.00000.replica', "Did you mean 'replicas'?"),
        (("clusters: [main]", "clusters: [mian]"), 7, "datasets.pins.clusters[0]", "no cluster 'mian'"),
        (("db-0:3306", "db-0"), 11, "datasets.pins.shards.00000.leader", "HOST:PORT"),
        (("db-1:3306", "db-1:0"), 11, "datasets.pins.shards.00000.replicas[0]", "not a TCP port"),
        (("database: pins_00000", "database: 42"), 11, "datasets.pins.shards.00000.database", 'in quotes: "42"'),
        (("database: pins_00000", "database: true"), 11, "datasets.pins.shards.00000.database", "true or false"),
        (("snapshot", "sometimes"), 9, "datasets.pins.bootstrap", "Use one of"),
        (("[pins, ", "[pins, pins, "), 6, "datasets.pins.tables", "named twice"),
        (("tables: [pins,", "tables: [3,"), 6, "datasets.pins.tables[0]", "must name a table"),
        (("tables: [pins, {name: boards, key: [owner, id]}]", "tables: pins"), 6, "datasets.pins.tables", "a list"),
        (("engine: mariadb\n    ", ""), 4, "datasets.pins.engine", "missing"),
        (("pins:\n", "Pins:\n"), 4, "datasets.Pins.dataset", "not a valid dataset"),
        (("clusters: [main]", "clusters: [main]\n    clusters: [main]"), 8, "datasets.pins", "twice"),
        (("datasets:", "datasetz:"), 3, "datasetz", "Did you mean 'datasets'?"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_line_field_and_cure(
    change: tuple[str, str], line: int, field: str, words: str
) -> None:
    assert change[0] in GOOD
    error = refused(GOOD.replace(change[0], change[1], 1))
    assert (error.where, error.field) == (f"t.yaml:{line}", field)
    assert words in str(error)


def test_duplicate_shard_ids_are_refused_in_mapping_and_list() -> None:
    single = '      "00000": {leader: "db-0:3306", database: p}\n'
    assert "twice" in refused(GOOD + single).message
    head = GOOD[: GOOD.index("    shards:")]
    ranges = (
        head + '    shards: [{range: "00-07", leader: "a:1", database: p}, {id: "05", leader: "a:1", database: p}]\n'
    )
    error = refused(ranges)
    assert "'05' is there twice" in error.message
    assert error.field == "datasets.pins.shards[1]"


@pytest.mark.parametrize("value", ["00000", "00007-00000", "a-b", "00-000", "0-99999999999999999999"])
def test_a_bad_range_is_refused(value: str) -> None:
    head = GOOD[: GOOD.index("    shards:")]
    error = refused(f'{head}    shards: {{range: "{value}", leader: "a:1", database: p}}\n')
    assert error.field == "datasets.pins.shards.range"


def test_a_brace_that_is_no_shard_is_refused() -> None:
    head = GOOD[: GOOD.index("    shards:")]
    error = refused(head + '    shards: {range: "0-1", leader: "a:1", database: "p_{id}"}\n')
    assert "Use {shard} only." in str(error)


@pytest.mark.parametrize(
    "secret", ['password: "hunter2"', "password: hunter2", 'password: "${file:/x:y}hunter2"', "password: [hunter2]"]
)
def test_a_literal_secret_is_refused_and_not_printed(secret: str) -> None:
    error = refused(GOOD.replace('password: "${env:DB_PASSWORD}"', secret))
    assert error.field is not None and error.field.removesuffix("[0]") == "datasets.pins.credentials.password"
    assert "hunter2" not in str(error)


@pytest.mark.parametrize(
    "line",
    [
        '    connector: {database.password: "hunter2"}\n',
        '    connector: {producer.override.ssl.key.passphrase: "hunter2"}\n',
        '    extra: {api_key: "hunter2"}\n',
        '    verification: {token: "hunter2"}\n',
    ],
)
def test_a_secret_elsewhere_is_refused_and_not_printed(line: str) -> None:
    error = refused(GOOD.replace("    bootstrap: snapshot\n", line))
    assert "looks like a secret" in error.message
    assert "hunter2" not in str(error)


def test_a_password_in_a_url_is_refused_and_not_printed() -> None:
    error = refused(GOOD.replace("http://connect", "http://me:hunter2@connect"))
    assert error.field == "clusters.main.urls[0]"
    assert "hunter2" not in str(error)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &x [1]\nb: *x\n", "alias"),
        ("a: !!python/object/apply:os.system ['true']\n", "tag"),
        ("a: !!binary aGk=\n", "tag"),
        ("{a: 1}\n---\n{b: 2}\n", "second YAML document"),
        ("a: [" * 1000, "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        ("a: [1\n", "not valid YAML"),
        ("a: \x00\n", "not valid YAML"),
        ("? [1, 2]\n: 3\n", "key must be text"),
        ("just text", "must be a mapping"),
        ("- 1\n", "must be a mapping"),
        ("datasets: {a: {b: 1, b: 2}}\n", "twice"),
        ("clusters: 1\n", "must be a mapping"),
    ],
)
def test_hostile_yaml_is_refused_quickly(text: str, words: str) -> None:
    begun = time.monotonic()
    error = refused(text)
    assert words in error.message
    assert error.where and error.where.startswith("t.yaml")
    assert time.monotonic() - begun < 5


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    bomb = "a: &a [x, x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(20)
    )
    assert "alias" in refused(bomb).message


def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match=r"cannot be read: .*Cure: ") as caught:
        load_yaml(tmp_path / "absent.yaml")
    assert caught.value.where == str(tmp_path / "absent.yaml")
    (tmp_path / "latin").write_bytes(b"\xff\xfe\x00x")
    with pytest.raises(TopologyError, match="UTF-8"):
        load_yaml(tmp_path / "latin")
    with pytest.raises(TopologyError, match="cannot be read"):
        load_yaml(tmp_path)
    with pytest.raises(TopologyError, match="too large"):
        load_yaml(Path("/dev/zero"))


def test_an_empty_file_is_refused_and_an_empty_document_is_an_empty_topology() -> None:
    for text in ("", "# nothing yet\n", "---\n"):
        assert "holds nothing" in refused(text).message
    assert parse_yaml("{}") == Topology()


def test_clusters_already_stored_may_be_named() -> None:
    text = GOOD[GOOD.index("datasets:") :]
    assert "no cluster 'main'" in refused(text).message
    assert parse_yaml(text, known_clusters=["main"]).dataset("pins").clusters == ("main",)


def test_a_topology_with_problems_is_not_dumped() -> None:
    broken = Topology(problems=(Problem("shard", "pins.00003", "is no JSON."),))
    with pytest.raises(TopologyError, match=r"pins\.00003"):
        dump_yaml(broken)
