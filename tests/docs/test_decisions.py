import re
import runpy
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "decisions"
INDEX = runpy.run_path(str(FOLDER / "index.py"))


def test_the_index_is_current() -> None:
    made = INDEX["index"](INDEX["decisions"]())
    assert (FOLDER / "README.md").read_text() == made, "Run: python docs/decisions/index.py"


def test_decisions_that_code_and_docs_refer_to_exist() -> None:
    numbers = {page.number for page in INDEX["decisions"]()}
    listed = subprocess.run(["git", "ls-files", "*.py", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    reference = re.compile(r"(?:decisions?[ /]|\[)(0\d{3})\b")
    referred = {
        (name, match[1])
        for name in listed.stdout.splitlines()
        if (ROOT / name).exists() and name != "docs/decisions/README.md"
        for match in reference.finditer((ROOT / name).read_text())
    }
    assert len(referred) > 20
    assert {(name, number) for name, number in referred if number not in numbers} == set()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# 0001 A title\n", "begins with front matter"),
        ("---\ndate: 2026-01-01\n---\n# 0001 A title\n", "needs status"),
        ("---\nstatus: superseded\ndate: 2026-01-01\n---\n# 0001 A title\n", "go together"),
        ("---\nstatus: accepted\ndate: 2026-01-01\n---\n# 0001 Another title\n", "0001-another-title.md"),
    ],
)
def test_a_page_that_is_not_in_form_is_refused(tmp_path: Path, text: str, said: str) -> None:
    page = tmp_path / "0001-a-title.md"
    page.write_text(text)
    with pytest.raises(ValueError, match=said):
        INDEX["read"](page)


def test_a_superseded_page_needs_its_successor(tmp_path: Path) -> None:
    page = tmp_path / "0001-a-title.md"
    page.write_text('---\nstatus: superseded\ndate: 2026-01-01\nsuperseded-by: "0002"\n---\n# 0001 A title\n')
    with pytest.raises(ValueError, match="0002, which does not exist"):
        INDEX["index"](INDEX["decisions"](tmp_path))
