"""The Markdown files of the repository: their links, anchors and code spans."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
SPAN = re.compile(r"`([^`\n]+)`")


def pages() -> list[Path]:
    """All Markdown files that people read, without those of dependencies and generated folders."""
    here = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    return sorted(here)


def prose(page: Path) -> str:
    """A page's text without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        base = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
        anchor, again = base, 0
        while anchor in found:
            again += 1
            anchor = f"{base}-{again}"
        found.add(anchor)
    return found


def links(page: Path) -> Iterator[str]:
    """Targets of a page's inline links and images."""
    for match in LINK.finditer(prose(page)):
        yield match[1]


def spans(page: Path) -> Iterator[str]:
    """A page's code spans, outside of fenced blocks."""
    for match in SPAN.finditer(prose(page)):
        yield match[1]
