"""What a plain installation has, and what is said of an extra that is missing: one sentence, before anything runs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main as benchmarks
from cdc_platform import wiring
from cdc_platform.cli.main import main
from cdc_platform.errors import EXTRAS, ExtraMissing, missing_extra
from cdc_platform.settings import AlertTarget, Settings
from cdc_platform.snapshots.request import Load, Request, RunKind
from cdc_platform.snapshots.run_lifecycle import open_run

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "cdc_platform"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Distributions that are imported by another name than their own.
IMPORTED_AS = {
    "confluent-kafka": "confluent_kafka",
    "great-expectations": "great_expectations",
    "kafka-python": "kafka.net.compat",
    "mysql-connector-python": "mysql.connector",
    "prometheus-client": "prometheus_client",
    "pyyaml": "yaml",
}
# Come with one of ours: httpx, dagster, great-expectations.
BROUGHT = {"httpcore", "pydantic", "requests", "pandas"}
# The tool of maintainers that needs the extra `dev`.
MAINTAINERS = {("cdc_platform/local/relock.py", "jgo")}
# Rooms that are only entered with an extra, by the guards that are tested below.
BEHIND_A_GUARD = {
    "cdc_platform/clients/kafka/quotas.py": "quotas",
    "cdc_platform/local": "local",
    "cdc_platform/cli/demo.py": "local",
    "cdc_platform/cli/stack.py": "local",
}


def modules(requirements: list[str]) -> set[str]:
    """The names that these distributions are imported by; extras of our own left out."""
    names = [re.split(r"[\[<>=!~; ]", text, maxsplit=1)[0] for text in requirements]
    return {IMPORTED_AS.get(name, name.replace("-", "_")) for name in names if name != "cdc-platform"}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """The third-party modules that a file imports, and whether it does so when it is loaded."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [str(node.module)]
        else:
            continue
        for name in names:
            first = name.partition(".")[0]
            if first not in sys.stdlib_module_names and first != "cdc_platform":
                yield first, node.col_offset == 0


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_what_is_looked_for_is_what_the_extra_installs(extra: str) -> None:
    assert set(EXTRAS[extra]) == modules(PROJECT["optional-dependencies"][extra])


def test_every_extra_is_looked_for() -> None:
    assert set(PROJECT["optional-dependencies"]) - {"all", "dev"} == set(EXTRAS)


def test_all_has_every_extra_of_a_user() -> None:
    (text,) = PROJECT["optional-dependencies"]["all"]
    assert set(text.partition("[")[2].rstrip("]").split(",")) == set(EXTRAS)


def test_versions_are_ranges() -> None:
    every = [*PROJECT["dependencies"], *(text for extra in PROJECT["optional-dependencies"].values() for text in extra)]
    assert [text for text in every if "==" in text] == []


def test_a_plain_installation_has_what_is_imported() -> None:
    plain = modules(PROJECT["dependencies"]) | BROUGHT
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = str(path.relative_to(ROOT))
        extras = [extra for room, extra in BEHIND_A_GUARD.items() if name.startswith(room)]
        of_extras = {each.partition(".")[0] for extra in extras for each in EXTRAS[extra]}
        anywhere = {each.partition(".")[0] for found in EXTRAS.values() for each in found}
        for module, at_load in imports(path):
            if (name, module) in MAINTAINERS:
                continue
            if module not in plain | of_extras | (set() if at_load else anywhere):
                wrong.append(f"{name}: {module}")
    assert wrong == []


def take_away(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the extra's modules missing, as in an environment without it."""
    for name in EXTRAS[extra]:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_the_sentence_has_the_command(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    take_away(extra, monkeypatch)
    problem = missing_extra(extra)
    assert problem is not None
    assert problem.cure == f"Install it: `pip install 'cdc-platform[{extra}]'`."
    assert all(name in problem.message for name in EXTRAS[extra])


def test_an_extra_that_is_there_is_not_missed() -> None:
    assert missing_extra("local") is None


@pytest.mark.parametrize("arguments", [["stack", "up", "--workers", "2"], ["stack"], ["demo", "--exit"], ["demo"]])
def test_the_local_stack_without_its_extra(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    take_away("local", monkeypatch)
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1
    assert done.output.startswith("Error: the extra 'local' is not installed: ")
    assert done.output.endswith("Cure: Install it: `pip install 'cdc-platform[local]'`.\n")
    assert len(done.output.splitlines()) == 1


def test_help_lists_commands_whose_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    take_away("local", monkeypatch)
    done = CliRunner().invoke(main, ["--help"])
    assert done.exit_code == 0
    assert "pip install 'cdc-platform[local]'" in next(line for line in done.output.splitlines() if "  stack " in line)


def test_alert_routes_without_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    take_away("alerts", monkeypatch)
    routed = Settings(alerts={"ops": AlertTarget(url="${file:/nowhere:url}")})
    watched = Settings(alerts={"dog": AlertTarget(url="${file:/nowhere:url}", watchdog=True)})
    for settings in (Settings(), watched):
        with wiring.open_platform(settings) as platform, wiring.open_alerts(platform):
            pass
    with (
        wiring.open_platform(routed) as platform,
        pytest.raises(ExtraMissing, match=r"cdc-platform\[alerts\]"),
        wiring.open_alerts(platform),
    ):
        pytest.fail("opened")


def test_a_byte_rate_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    take_away("quotas", monkeypatch)
    request = Request(kind=RunKind.BACKFILL, dataset="pins", load=Load(max_bytes_per_s=1000))
    # Nothing listens where the settings point: that it is not the error says that nothing was asked before.
    with (
        wiring.open_platform(Settings()) as platform,
        wiring.open_snapshots(platform) as snapshots,
        pytest.raises(ExtraMissing, match=r"cdc-platform\[quotas\]"),
    ):
        open_run(snapshots, request, "r1")


def test_all_commands_but_the_local_stacks_load_without_extras() -> None:
    absent = [name for found in EXTRAS.values() for name in found]
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({absent}))\n"
        "import cdc_platform.definitions\n"
        "from cdc_platform.cli.main import COMMANDS, NEEDS, main\n"
        "assert {name for name in COMMANDS if main.get_command(None, name).callback.__name__ == 'say'} == set(NEEDS)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("extra", "arguments"), [("bench", ["duplicates"]), ("local", ["reconcile"])])
def test_benchmarks_without_their_extra(
    extra: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    take_away(extra, monkeypatch)
    assert benchmarks(arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"Error: the extra '{extra}' is not installed: ")
