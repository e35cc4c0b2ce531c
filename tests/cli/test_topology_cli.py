"""`cdc-platform topology`, `pause`, `resume`: one clear error for each mistake, and nothing changed by it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cdc_platform.cli.main import main
from cdc_platform.clients.zookeeper.topology_store import ZooKeeperTopologyStore
from cdc_platform.connectors.config import problems
from cdc_platform.documents import load_yaml
from cdc_platform.model.topology import Address, Topology
from cdc_platform.settings import Settings
from cdc_platform.testing import InMemoryTopologyStore
from tests.own_secrets import SECRETS_DIRS

EXAMPLE = Path(__file__).parents[2] / "examples" / "topology.yaml"

Run = Callable[..., Result]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> InMemoryTopologyStore:
    made = InMemoryTopologyStore()
    monkeypatch.setattr("cdc_platform.cli.topology.topology_store", lambda settings: made)
    monkeypatch.setattr("cdc_platform.cli.set_leader.topology_store", lambda settings: made)
    return made


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Result:
        own = {"COLUMNS": "200", "CDC_PLATFORM_SECRETS_DIRS": SECRETS_DIRS[0]}
        return CliRunner().invoke(main, list(arguments), env=own, catch_exceptions=False)

    return call


@pytest.fixture
def imported(store: InMemoryTopologyStore, run: Run) -> InMemoryTopologyStore:
    assert run("topology", "import", str(EXAMPLE)).exit_code == 0
    return store


def test_the_example_is_a_valid_topology_of_12_shards() -> None:
    found = load_yaml(EXAMPLE)
    assert {name: len(shards) for name, shards in found.shards.items()} == {"pins": 8, "orders": 4}
    assert problems(found, Settings(secrets_dirs=SECRETS_DIRS)) == ()


def test_import_show_export_import(store: InMemoryTopologyStore, run: Run, tmp_path: Path) -> None:
    dry = run("topology", "import", str(EXAMPLE), "--dry-run")
    assert dry.exit_code == 2 and dry.output.endswith("15 changes would be made\n")
    assert store.load() == Topology()
    done = run("topology", "import", str(EXAMPLE), "--json")
    assert len(json.loads(done.output)["changes"]) == 15
    shown = run("topology", "show")
    assert "pins" in shown.output and "mariadb" in shown.output and "connect-0" in shown.output
    assert "pins_00007" in run("topology", "show", "pins").output
    document = json.loads(run("topology", "show", "orders", "--json").output)
    assert document["datasets"].keys() == {"orders"}
    assert document["datasets"]["orders"]["shards"]["00003"]["leader"] == "postgres-primary:5432"
    out = tmp_path / "export.yaml"
    assert run("topology", "export", "--out", str(out)).exit_code == 0
    assert run("topology", "export").output == out.read_text()
    assert load_yaml(out) == store.load()
    assert run("topology", "import", str(out)).output == "0 changes made\n"


def test_one_shard_less_is_a_delete_that_is_named(imported: InMemoryTopologyStore, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "less.yaml"
    file.write_text(EXAMPLE.read_text().replace("00000-00007", "00000-00006"))
    assert run("topology", "import", str(file)).output.startswith("delete shard pins.00007\n1 change made\nNext: ")


def test_many_deletes_need_their_number(imported: InMemoryTopologyStore, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "less.yaml"
    file.write_text(EXAMPLE.read_text().replace("00000-00007", "00000-00001"))
    before = imported.load()
    refused = run("topology", "import", str(file))
    assert refused.exit_code == 1
    assert "6 documents would be deleted" in refused.output and "--allow-deletes 6" in refused.output
    assert imported.load() == before
    assert run("topology", "import", str(file), "--allow-deletes", "6").exit_code == 0
    assert len(imported.load().shards["pins"]) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            ("engine: mariadb", "engine: oracle"),
            "datasets.pins.engine: 'oracle' is not a known engine. Cure: Use one of",
        ),
        (("owners: [team:pins]", "connector: {topic.prefix: x}"), "Cure: "),
        (("clusters: [main]", "clusters: [gone]"), "no cluster 'gone'"),
        (("{file:/run/secrets/pins/mariadb.properties:password}", "hunter2"), "is not a reference"),
        (("database: pins_{shard}", "database: pins"), "database pins of "),
    ],
)
def test_a_bad_file_changes_nothing(
    imported: InMemoryTopologyStore, run: Run, tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    file = tmp_path / "bad.yaml"
    text = EXAMPLE.read_text()
    assert change[0] in text
    file.write_text(text.replace(change[0], change[1], 1).replace("replication: 1", "replication: 3"))
    before = imported.load()
    refused = run("topology", "import", str(file))
    assert refused.exit_code == 1
    assert refused.output.startswith(f"Error: {file}")
    assert words in refused.output and "hunter2" not in refused.output
    assert imported.load() == before


def test_an_absent_file_is_a_clear_error(store: InMemoryTopologyStore, run: Run) -> None:
    refused = run("topology", "import", "absent.yaml")
    assert refused.exit_code == 1
    assert "absent.yaml: cannot be read: No such file or directory. Cure: " in refused.output


def test_set_leader(imported: InMemoryTopologyStore, run: Run) -> None:
    refused = run("topology", "set-leader", "pins", "00003", "mariadb-replica:3306")
    assert refused.exit_code == 2 and "is not fit to lead: reachable" in refused.output and "--force" in refused.output
    assert imported.load().shard("pins", "00003").generation == 0
    moved = run("topology", "set-leader", "pins", "00003", "mariadb-replica:3306", "--force")
    assert "skipped by --force: reachable" in moved.output
    assert "pins.00003: leader mariadb-primary:3306 -> mariadb-replica:3306, generation 1" in moved.output
    assert imported.load().shard("pins", "00003").leader == Address("mariadb-replica", 3306)
    assert "leads already" in run("topology", "set-leader", "pins", "00003", "mariadb-replica:3306").output
    for arguments in (
        ("pins", "00099", "h:1"),
        ("nothing", "00000", "h:1"),
        ("pins", "..", "h:1"),
        ("pins", "a/b", "h:1"),
    ):
        refused = run("topology", "set-leader", *arguments)
        assert refused.exit_code == 1 and refused.output.startswith("Error: ") and "Cure: " in refused.output
    assert "not a valid address" in run("topology", "set-leader", "pins", "00000", "h").output


def test_pause_and_resume(imported: InMemoryTopologyStore, run: Run) -> None:
    paused = run("pause", "--reason", "we [move] racks", "--author", "ann", "--until", "2h")
    assert paused.exit_code == 0 and "by ann: we [move] racks" in paused.output
    assert run("pause", "pins", "--reason", "r").exit_code == 0
    assert run("pause", "pins", "00001", "--reason", "r", "--until", "2999-01-01T00:00:00+00:00").exit_code == 0
    found = imported.load()
    assert found.pause and found.pause.until and found.dataset("pins").pause and found.shard("pins", "00001").pause
    assert "we [move] racks" in run("topology", "show").output
    assert "paused until 2999-01-01" in run("topology", "show", "pins").output
    for arguments in ((), ("pins",), ("pins", "00001")):
        assert "is not paused" in run("resume", *arguments).output
    found = imported.load()
    assert not (found.pause or found.dataset("pins").pause or found.shard("pins", "00001").pause)


@pytest.mark.parametrize("until", ["yesterday", "2h30", "2030-01-01T00:00:00", "2020-01-01T00:00:00+00:00", "-1h"])
def test_a_bad_expiry_is_refused(imported: InMemoryTopologyStore, run: Run, until: str) -> None:
    refused = run("pause", "--reason", "r", f"--until={until}")
    assert refused.exit_code == 64 and "--until" in refused.output
    assert imported.load().pause is None


def test_problems_are_shown_and_stop_an_export(imported: InMemoryTopologyStore, run: Run) -> None:
    imported.zookeeper.write("/cdc/datasets/pins/shards/00003", b"oops")
    assert (
        "shard pins.00003 is left alone: /cdc/datasets/pins/shards/00003: is no JSON" in run("topology", "show").output
    )
    refused = run("topology", "export")
    assert refused.exit_code == 1 and "Then export again" in refused.output
    assert refused.output.count("Cure:") == 1
    imported.zookeeper.write("/cdc/datasets/pins", b"oops")
    shown = run("topology", "show", "pins")
    assert shown.exit_code == 0 and "dataset pins is left alone" in shown.output


def test_an_empty_file_is_refused_and_a_dataset_without_its_cluster_says_what_to_do(
    imported: InMemoryTopologyStore, run: Run, tmp_path: Path
) -> None:
    empty = tmp_path / "empty.yaml"
    empty.write_text("# nothing yet\n")
    refused = run("topology", "import", str(empty))
    assert refused.exit_code == 1 and "holds nothing" in refused.output and "Cure:" in refused.output
    imported.zookeeper.write("/cdc/clusters/main", b"oops")
    shown = " ".join(run("topology", "show", "pins").output.split())
    assert "names cluster 'main', which is malformed. Cure: Fix or import the cluster" in shown


@pytest.fixture
def real(zookeeper: str, root: str, raw: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[ZooKeeperTopologyStore]:
    monkeypatch.setenv("CDC_PLATFORM_ZOOKEEPER", zookeeper)
    monkeypatch.setenv("CDC_PLATFORM_ZOOKEEPER_ROOT", root)
    made = ZooKeeperTopologyStore(zookeeper, root=root)
    yield made
    made.close()


@pytest.mark.stack
def test_the_commands_work_on_a_real_zookeeper(real: ZooKeeperTopologyStore, run: Run) -> None:
    assert run("topology", "import", str(EXAMPLE)).exit_code == 0
    assert run("topology", "set-leader", "pins", "00003", "other:3306", "--force").exit_code == 0
    assert run("pause", "pins", "--reason", "r").exit_code == 0
    found = real.load()
    assert found.shard("pins", "00003").generation == 1 and found.dataset("pins").pause


def test_zookeeper_away_is_one_clear_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "cdc_platform.cli.topology.topology_store",
        lambda settings: ZooKeeperTopologyStore("127.0.0.1:1", timeout=0.5),
    )
    refused = run("topology", "show")
    assert refused.exit_code == 1
    assert refused.output.startswith("Error: 127.0.0.1:1: ZooKeeper does not answer: ")
