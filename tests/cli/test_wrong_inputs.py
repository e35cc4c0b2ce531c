"""Sixty and more wrong inputs: each answer names what, where and the way out, in one error, without a traceback."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from cdc_platform.cli.main import main
from cdc_platform.clients.platform import Platform
from cdc_platform.settings import Settings
from tests.defs.harness import Harness, topology

ERROR, USAGE = 1, 64

TOPOLOGY = """
clusters: {main: {urls: ["http://connect:8083"]}}
datasets:
  pins:
    engine: mariadb
    tables: [pins]
    clusters: [main]
    credentials: {user: "${file:/s/pins/login.properties:user}", password: "${file:/s/pins/login.properties:password}"}
    shards: {range: 00000-00001, leader: "db:3306", database: "pins_{shard}"}
"""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A command line and what its answer must hold. `files` are written beside it, `{here}` is their directory."""

    run: str
    says: tuple[str, ...]
    code: int = ERROR
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    settings: str | bytes | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    connects: bool = False  # really


def usage(run: str, *says: str) -> Case:
    return Case(run=run, says=says, code=USAGE)


def error(run: str, *says: str) -> Case:
    return Case(run=run, says=("Cure: ", *says))


def setting(text: str, *says: str) -> Case:
    return Case(run="topology show", says=("settings.toml", "Cure: ", *says), settings=text)


def variable(name: str, value: str, *says: str) -> Case:
    return Case(run="topology show", says=(name, "Cure: ", *says), env={name: value})


def imported(before: str, after: str, *says: str) -> Case:
    assert before in TOPOLOGY
    files = {"t.yaml": TOPOLOGY.replace(before, after, 1)}
    return Case(run="topology import {here}/t.yaml", says=("t.yaml", "Cure: ", *says), files=files)


def content(text: str | bytes, *says: str) -> Case:
    return Case(run="topology import {here}/t.yaml", says=("t.yaml", "Cure: ", *says), files={"t.yaml": text})


NEW = "topology new shop --engine mariadb --table t --connect http://c:8083 --shards 0-1 --database 'd{shard}' "
NEW += "--leader db:3306"


def new(before: str, after: str, *says: str) -> Case:
    assert before in NEW
    return error(NEW.replace(before, after, 1), *says)


CASES = [
    # Commands and options.
    usage("stats", "No such command 'stats'", "Did you mean 'status'?"),
    usage("verif pins", "Did you mean 'verify'?"),
    setting('zookeeper = "http://zk:2181"', "zookeeper: 'http://zk:2181' is not an address", "HOST:PORT"),
    setting('zookeeper = "zk-1:2181,zk-2:99999"', "'zk-2:99999' is not an address"),
    setting('zookeeper = "zk-1:2181,"', "'' is not an address"),
    setting('zookeeper = "  "', "zookeeper: is empty"),
    setting("connect_timeout = inf", "connect_timeout: must be a finite number"),
    error("pause --reason ' '", "--reason: is empty"),
    usage("--json status", "Write --json after the command"),
    usage("--config x.toml status", "Settings are not options", "CDC_PLATFORM_CONFIG=FILE"),
    usage("help status", "Write `cdc-platform status --help`"),
    usage("help", "Write `cdc-platform --help`"),
    usage("topology imprt x", "Did you mean 'import'?"),
    usage("stack dwn", "Did you mean 'down'?"),
    usage("status --jsn", "--jsn", "Did you mean '--json'?"),
    usage("--verbos status", "'--verbose'"),
    usage("verify", "Missing argument 'DATASET'"),
    usage("bootstrap", "Missing argument 'DATASET'"),
    usage("topology set-leader pins 00000", "Missing argument 'HOST:PORT'"),
    usage("apply --wait soon", "--wait", "'soon' is not a duration", "90s, 30m"),
    usage("apply --wait -3", "--wait", "is not a duration"),
    usage("plan --allow-deletes many", "--allow-deletes", "'many'"),
    usage("plan --allow-deletes -1", "--allow-deletes", "-1"),
    usage("bootstrap pins --mode everything", "--mode", "incremental"),
    usage("bootstrap pins --max-rows-per-s 0", "--max-rows-per-s", "0"),
    usage("bootstrap pins --mode position --position 00000", "--position", "SHARD=POSITION"),
    usage("pause pins", "Missing option '--reason'"),
    usage("pause pins --reason r --until tomorrow", "--until", "30m, 2h, 1d"),
    usage("pause pins --reason r --until 2020-01-01T00:00:00+00:00", "--until", "in the past"),
    usage("pause pins --reason r --until 2999-01-01T00:00:00", "--until", "UTC offset"),
    usage("topology discover --every 0s", "--every", "too short"),
    usage("exporter --port 70000", "--port", "70000"),
    usage("worker-properties", "Missing argument 'CLUSTER'"),
    usage("worker-properties main --set novalue", "--set", "NAME=VALUE"),
    usage("stack up --workers 0", "--workers", "0"),
    usage("stack up --port kafka.kafka=x --dir {here}/s", "--port", "NAME=PORT"),
    usage("stack up --without oracle", "--without", "postgres"),
    usage("demo --wait ever", "--wait", "is not a duration"),
    usage("apply /no/such/plan.json", "/no/such/plan.json", "does not exist"),
    usage("repair pins --table pins", "Say what to repair"),
    usage("repair pins 0 --key 00000:1 --table pins", "Say what to repair"),
    usage("repair pins 0", "Name one table by --table: pins, boards"),
    usage("topology set-leader pins 0-1 db:3306", "Name one SHARD"),
    # Datasets, tables, shards, runs.
    error("status pns", "there is no dataset 'pns'", "Did you mean 'pins'?"),
    error("status pins 7", "no shard '7'", "topology show pins"),
    error("status pins 00000-00003", "'00002', '00003'"),
    error("status pins ,", "no shard ','"),
    error("verify pins --table pin", "no table 'pin'", "Did you mean 'pins'?"),
    error("verify boards", "there is no dataset 'boards'", "Use one of pins"),
    error("verify pins 00009", "no shard '00009'"),
    error("verify pins --shards 0,5", "no shard '5'"),
    error("repair pins 1-4 --table pins", "'00002', '00003', '00004'"),
    error("repair pins --table pins --key 00000", "'00000' is not a key", "SHARD:VALUE"),
    error("repair pins --table pins --key 00009:1", "no shard '00009'"),
    error("repair pins --table pins --from-verdict cli-1", "cli-1", "--from-verdict"),
    error("repair pins --table pins --continue r1", "'r1'", "--continue"),
    error("backfill pins 00001-00002", "no shard '00002'"),
    error("backfill pins --table bords", "no table 'bords'", "Did you mean 'boards'?"),
    error("backfill pns", "Did you mean 'pins'?"),
    error("backfill pins --where 'DROP TABLE pins'", "condition"),
    error("backfill pins --from 3", "key_column"),
    error("backfill --continue nothing", "'nothing'", "Unfinished are: none"),
    error("snapshot pause nothing", "'nothing'", "Unfinished are: none"),
    error("backfill --pause nothing", "'nothing'", "Unfinished are: none"),
    usage("snapshot pause", "Missing argument 'RUN'"),
    usage("snapshot stp x", "Did you mean 'stop'?"),
    usage("completion tcsh", "'tcsh'", "bash"),
    usage("--demo stack status", "leave --demo out"),
    error("bootstrap pins --failed-of r9", "there is no run 'r9'"),
    error("bootstrap pins --mode position", "positions", "SHARD=POSITION"),
    error("bootstrap pins --mode position --position 9=0-1-5", "no shard '9'"),
    error("pause pins 5 --reason r", "no shard '5'"),
    error("resume pns", "pns"),
    error("topology show pns", "there is no dataset 'pns'", "Did you mean 'pins'?"),
    error("topology set-leader pins 9 db:3306", "no shard '9'"),
    error("topology set-leader pins 0 db", "'db' is not a valid address", "HOST:PORT"),
    error("topology set-leader pins 0 db:99999", "99999 is not a TCP port"),
    error("topology discover pns", "Did you mean 'pins'?"),
    # Files.
    error("topology import /no/such.yaml", "/no/such.yaml"),
    error("topology import {here}", "Is a directory", "examples/topology.yaml"),
    usage("topology import ''", "the name is empty"),
    usage("topology export --out ''", "--out", "the name is empty"),
    usage("report --out /no/such/page.html", "--out", "'/no/such' is not a directory"),
    usage("plan --out {here}", "--out", "is a directory"),
    usage("init --out ''", "--out", "the name is empty"),
    usage("stack up --dir /dev/null", "--dir", "'/dev/null' is not a directory"),
    usage("demo --dir ''", "--dir", "the name is empty"),
    usage("apply {here}", "is a directory"),
    Case(run="apply {here}/p.json", says=("p.json", "is not a plan"), files={"p.json": '{"fingerprint": 5}'}),
    content("", "holds nothing", "examples/topology.yaml"),
    content(b"\xff\xfe" + TOPOLOGY.encode("utf-16-le"), "is not UTF-8 text"),
    content(TOPOLOGY.encode() + b"# K\xf6ln", "is not UTF-8 text"),
    content("a" * (32 * 2**20 + 1), "is too large", "33554432 bytes"),
    content("a: &a [x]\nb: [*a, *a]", "YAML alias"),
    content("[" * 3000, "nested too deeply"),
    content("- pins", "must be a mapping of fields, but is a list"),
    content("apiVersion: kafka.strimzi.io/v1beta2\nkind: KafkaConnector", "apiVersion: no such field"),
    content(TOPOLOGY + "datasets: {}\n", "'datasets' is there twice"),
    content(TOPOLOGY + "---\nclusters: {}\n", "a second YAML document"),
    imported("http://connect:8083", "http://connect:80830", "'http://connect:80830' is not a URL"),
    imported("http://connect:8083", "connect:8083", "'connect:8083' is not a URL"),
    imported("db:3306", "db:3306:3306", "'db:3306' is not a valid host"),
    imported("db:3306", "db:0", "0 is not a TCP port"),
    imported("pins:\n", "p\u0456ns:\n", "'\u0456' is CYRILLIC SMALL LETTER BYELORUSSIAN-UKRAINIAN I", "Use a to z"),
    imported("00000-00001", "00000-99999999", "is not a valid range"),
    imported("tables: [pins]", "tables: pins", "must be a list, but is text"),
    imported("tables: [pins]", "tables: [pins, pins]", "named twice"),
    imported("    engine:", "    engine: mysql\n    engine:", "'engine' is there twice"),
    imported("    engine:", "    topics: {replication: 0}\n    engine:", "0 is out of range"),
    imported("    engine:", "    limits: {max_rows_per_s: -5}\n    engine:", "max_rows_per_s: no such field"),
    imported("${file:/s/pins/login.properties:password}", "hunter2", "credentials.password", "not a reference"),
    # First files.
    new("--leader db:3306", "--leader db", "--leader: 'db' is not a valid address"),
    new("--leader db:3306", "--leader db:99999", "--leader: 99999 is not a TCP port"),
    new("--shards 0-1", "--shards 5-1", "ends before it begins"),
    new("--shards 0-1", "--shards ''", "is not a valid range"),
    new("new shop", "new 'my shop'", "'my shop' is not a valid dataset"),
    new("http://c:8083", "c:8083", "'c:8083' is not a URL"),
    new("--table t", "--table ''", "'' is not a valid table"),
    new("--leader db:3306", "--leader db:3306 --secrets-dir s", "--secrets-dir: 's' must be absolute"),
    usage(NEW + " --replication 99999", "--replication", "99999"),
    error("init --kafka k: --out {here}/n.toml", "kafka.bootstrap.servers: 'k:' is not an address"),
    error("init --zookeeper http://zk:2181 --out {here}/n.toml", "'http://zk:2181' is not an address"),
    error("init --secrets-dir here --out {here}/n.toml", "must be absolute directories"),
    error("grants mariadb --user \"a'b\"", "is not a plain name"),
    error("grants postgres --table 'a;drop'", "is not a plain name"),
    usage("grants oracle", "'oracle'", "'postgres'"),
    error("worker-properties 'a b'", "'a b' is not a valid cluster"),
    error("worker-properties main --leader-dir here", "must be an absolute path"),
    usage("worker-properties main --leader-dir ''", "--leader-dir", "is empty"),
    usage("worker-properties main --port 99999", "--port", "99999"),
    usage("agent --zookeeper z:1 --worker w0 --connect-url http://c:1 --settings /no/such.toml", "/no/such.toml"),
    error("agent --zookeeper '' --worker w0 --connect-url http://c:1", "--zookeeper: '' is not an address"),
    error("agent --zookeeper http://z:1 --worker w0 --connect-url http://c:1", "--zookeeper: 'http://z:1'"),
    error("agent --zookeeper z:1 --worker w0 --connect-url http://c:99999", "--connect-url", "is not a URL"),
    error("agent --zookeeper z:1 --worker 'a b' --connect-url http://c:1", "'a b' is not a valid worker id"),
    error("exporter --host 256.1.1.1", "256.1.1.1", "Choose another --host"),
    usage("lake rn pins", "Did you mean 'run'?"),
    usage("pause pins --reason r --until 0s", "too short"),
    usage("pause pins --reason r --until 2026-13-45T00:00:00+00:00", "is not a time"),
    usage("backfill pins --max-rows-per-s nan", "--max-rows-per-s", "'nan'"),
    error("status PINS", "there is no dataset 'PINS'", "Did you mean 'pins'?"),
    error("repair pins --table pins --key '00000:[1'", "'00000:[1' is not a key"),
    Case(run="apply {here}/p.json", says=("p.json", "is not a plan", "plan --out"), files={"p.json": "[]"}),
    imported("mariadb", "oracle", "datasets.pins.engine", "oracle"),
    imported("00000-00001", "00001-00000", "range", "ends before it begins"),
    imported("db:3306", "db", "leader", "HOST:PORT"),
    imported("tables: [pins]", "tables: []", "pins"),
    imported("pins_{shard}", "pins_{shrd}", "database", "{shard}"),
    imported("clusters: [main]", "clusters: [mian]", "mian"),
    imported("urls: [", "urls: [nowhere, ", "clusters.main.urls", "nowhere"),
    imported("    engine:", "   engine:", "t.yaml:"),
    imported("tables: [pins]", "tablez: [pins]", "tablez"),
    # Settings: in the file, and in the environment.
    setting('zookeper = "x:1"', "zookeper", "Did you mean 'zookeeper'?"),
    setting("zookeeper = 5", "zookeeper", "must be text"),
    setting("max_deletes = 'many'", "max_deletes", "whole number"),
    setting("batch_size = -1", "batch_size", "must not be negative"),
    setting('zookeeper_password = "hunter2"', "zookeeper_password", "reference to a secret"),
    setting("zookeeper = [", "not valid TOML"),
    setting("zookeeper = 'z\u043eo:2181'", "'\u043e' is CYRILLIC SMALL LETTER O"),
    setting("kafka = {'bootstrap.servers' = 'k:999999'}", "kafka.bootstrap.servers: 'k:999999' is not an address"),
    setting("state_topic = 'a b'", "state_topic: 'a b' is not a topic name"),
    setting("zookeeper = 'a:1'\nzookeeper = 'b:1'", "not valid TOML", "Cannot overwrite a value"),
    Case(run="topology show", says=("is not UTF-8 text", "Cure: "), settings=b"\xff\xfez\x00"),
    setting("kafka = {}", "kafka", "bootstrap.servers"),
    variable("CDC_PLATFORM_CONFIG", "/no/such.toml", "/no/such.toml", "does not exist"),
    variable("CDC_PLATFORM_CONFIG", "{here}", "is a directory"),
    variable("CDC_PLATFORM_MAX_DELETES", "few", "whole number"),
    variable("CDC_PLATFORM_KAFKA", "k:", "'k:' is not an address"),
    variable("CDC_PLATFORM_ZOOKEEPER", "", "is empty"),
    Case(
        run="topology show",
        says=("127.0.0.1:1", "does not answer", "Cure: ", "No settings file was found", "CDC_PLATFORM_ZOOKEEPER"),
        env={"CDC_PLATFORM_ZOOKEEPER": "127.0.0.1:1"},
        connects=True,
    ),
]  # fmt: skip


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Harness:
    """A platform in memory, and a working directory without a settings file."""
    harness = Harness(settings=Settings(audit_dir=str(tmp_path / "audit"), cache_dir=str(tmp_path / "cache")))
    found = topology(pins=2)
    harness.put(replace(found, datasets={"pins": found.datasets["pins"]}, shards={"pins": found.shards["pins"]}))

    @contextmanager
    def open_platform(settings: Settings) -> Iterator[Platform]:
        with harness.platform() as platform:
            yield platform

    @contextmanager
    def nothing(*_: object) -> Iterator[object]:
        with harness.platform() as platform:
            yield type("Snapshots", (), {"platform": platform, "writer": staticmethod(lambda name: platform.state)})

    for module in ("status", "plan_and_apply", "verify", "run_progress"):
        monkeypatch.setattr(f"cdc_platform.cli.{module}.open_platform", open_platform)
    monkeypatch.setattr("cdc_platform.wiring.open_platform", open_platform)
    monkeypatch.setattr("cdc_platform.wiring.open_snapshots", nothing)
    for module in ("run_progress", "snapshot"):
        monkeypatch.setattr(f"cdc_platform.cli.{module}.open_snapshots", nothing)
    monkeypatch.setattr("cdc_platform.cli.snapshot.open_platform", open_platform)
    monkeypatch.setattr("cdc_platform.cli.set_leader.open_leaders", nothing)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("CDC_PLATFORM_")]:
        monkeypatch.delenv(name)
    return harness


def write(path: Path, text: str | bytes) -> None:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    "case",
    CASES,
    ids=lambda case: f"{case.run} {case.settings or ''}{dict(case.env) or ''}"[:80].encode("ascii", "replace").decode(),
)
def test_a_wrong_input_is_one_error_with_the_way_out(
    case: Case, harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in case.files.items():
        write(tmp_path / name, text)
    if case.settings is not None:
        write(tmp_path / "settings.toml", case.settings)
        monkeypatch.setenv("CDC_PLATFORM_CONFIG", str(tmp_path / "settings.toml"))
    for name, value in case.env.items():
        monkeypatch.setenv(name, value.replace("{here}", str(tmp_path)))
    if not case.connects:
        for module in ("topology", "set_leader"):
            monkeypatch.setattr(f"cdc_platform.cli.{module}.topology_store", lambda settings: harness.store())
    done = CliRunner().invoke(main, shlex.split(case.run.replace("{here}", str(tmp_path))))
    assert isinstance(done.exception, SystemExit) and done.exit_code == case.code, (done.output, done.exception)
    assert [part for part in case.says if part not in done.stderr] == [], done.stderr
    assert "Traceback" not in done.output and done.stdout == "", done.output
    assert sum("Error: " in line for line in done.stderr.splitlines()) == 1, done.stderr
    if case.code == ERROR:
        assert done.stderr.strip().splitlines()[-1].startswith("Error: "), done.stderr


def test_there_are_sixty_and_more() -> None:
    assert len({repr(case) for case in CASES}) == len(CASES) >= 60
