"""The scripts of `make lint` find what they are for."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / ".ci"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links_to_missing_files_headings_and_folders_are_named(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# One heading: a `code` word\n```\n# not a heading\n```\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[fine](there.md#one-heading-a-code-word) [elsewhere](https://example.org/x) [itself](#title)\n"
        "# Title\n"
        "[gone](gone.md)\n"
        "[no heading](there.md#not-a-heading)\n"
        "`reconciler/apply.py` `reconciler/gone.py` `planning/health/` `planner/`\n"
        "```\n[in code](gone.md) -> planning/gone.py\n```\n"
    )
    done = subprocess.run(
        [sys.executable, SCRIPTS / "check_links.py", page], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"{page}:3: there is no file gone.md",
        f"{page}:4: there.md has no heading #not-a-heading",
        f"{page}:5: there is no file reconciler/gone.py",
        f"{page}:5: there is no folder planner",
        f"{page}:7: there is no file planning/gone.py",
    ]


def test_a_wording_may_become_rarer_but_not_more_frequent() -> None:
    phrases = script("check_phrases")
    assert list(phrases.occurrences("It begins anew;\nnobody mends a commander.")) == [
        (1, "anew"),
        (2, "nobody"),
        (2, "mend"),
    ]
    granted = {"a.py": {"anew": 2}, "b.py": {"told": 1}}
    assert phrases.grown({"a.py": {"anew": 1}}, granted) == []
    assert phrases.grown({"a.py": {"anew": 3}, "c.py": {"told": 1}}, granted) == [
        ("a.py", "anew", 3, 2),
        ("c.py", "told", 1, 0),
    ]


def test_skips_are_counted_by_reason(tmp_path: Path) -> None:
    report = tmp_path / "3.11.xml"
    report.write_text(
        '<testsuites><testsuite><testcase name="a"/><testcase name="b"><skipped message="no docker"/></testcase>'
        '<testcase name="c"><skipped message="no docker"/></testcase></testsuite></testsuites>'
    )
    command: list[str | Path] = [sys.executable, SCRIPTS / "count_skips.py", report, tmp_path / "missing.xml"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["3.11: 2 skipped: no docker", "skips: 2 on 3.11"]


@pytest.mark.parametrize(
    ("mysql", "mariadb", "code", "said"),
    [
        (9, 10, 0, "MySQL passed 9 of MariaDB's 10 (90.0%)"),
        (8, 10, 1, "MySQL passed 8 of MariaDB's 10 (80.0%); at least 90% must pass"),
        (3, 0, 1, "MySQL passed 3 of MariaDB's 0: nothing to compare with"),
    ],
)
def test_mysql_must_pass_nine_tenths_of_what_mariadb_passes(
    mysql: int, mariadb: int, code: int, said: str, tmp_path: Path
) -> None:
    one = '<testcase><properties><property name="engine" value="{}"/></properties>{}</testcase>'
    report = tmp_path / "3.11.xml"
    report.write_text(
        "<testsuites><testsuite><testcase/>"
        + one.format("mysql", "") * mysql
        + one.format("mariadb", "") * mariadb
        # None of these passed.
        + "".join(one.format("mysql", f"<{outcome}/>") for outcome in ("failure", "error", "skipped")) * 5
        + "</testsuite></testsuites>"
    )
    command: list[str | Path] = [sys.executable, SCRIPTS / "compare_engines.py", report]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, said + "\n")
    report.unlink()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "cannot be read" in done.stdout
