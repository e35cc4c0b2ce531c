"""Writes README.md beside it, the index of the decisions: `python docs/decisions/index.py`."""

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

FOLDER = Path(__file__).parent
HEADER = """# Decisions
Why things are as they are. Each page has a status and a date; numbers are never reused. A page that no longer holds
stays, with the number of the one that replaced it. A new one takes the next free number in the range of its subject,
and its file name is its title. Made by `python docs/decisions/index.py`; a test holds it current.

| no. | decision | date | status |
|---|---|---|---|
"""


@dataclass(frozen=True)
class Decision:
    """One page: its front matter and its heading."""

    number: str
    title: str
    file: str
    status: str
    date: str
    superseded_by: str | None
    absorbs: tuple[str, ...]


def slug(title: str) -> str:
    """The file name that a title asks for, without number and suffix."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower().replace("'", "")).strip("-")


def read(page: Path) -> Decision:
    """Raises ValueError where front matter or heading are not as they must be."""
    match = re.match(r"---\n(.*?)\n---\n# (\d{4}) ([^\n]+)\n", page.read_text(), re.DOTALL)
    if match is None:
        raise ValueError(f"{page.name}: begins with front matter between two lines '---', then '# NNNN Title'")
    front = yaml.safe_load(match[1])
    unknown = front.keys() - {"status", "date", "superseded-by", "absorbs"}
    if unknown or front.get("status") not in ("accepted", "superseded") or "date" not in front:
        raise ValueError(f"{page.name}: needs status (accepted or superseded) and date; unknown: {sorted(unknown)}")
    if (front["status"] == "superseded") != ("superseded-by" in front):
        raise ValueError(f"{page.name}: 'superseded' and superseded-by go together")
    if page.name != (name := f"{match[2]}-{slug(match[3])}.md"):
        raise ValueError(f"{page.name}: its title asks for the file name {name}")
    return Decision(
        number=match[2],
        title=match[3],
        file=page.name,
        status=front["status"],
        date=str(front["date"]),
        superseded_by=front.get("superseded-by"),
        absorbs=tuple(front.get("absorbs", ())),
    )


def decisions(folder: Path = FOLDER) -> list[Decision]:
    """All pages of the folder, by number."""
    return [read(page) for page in sorted(folder.glob("[0-9][0-9][0-9][0-9]-*.md"))]


def index(pages: list[Decision]) -> str:
    """The text of README.md. Raises ValueError where a number has two pages or a reference none."""
    files = {page.number: page.file for page in pages}
    if len(files) != len(pages):
        raise ValueError("Two decisions have one number")
    lines = []
    for page in pages:
        status = page.status
        if page.superseded_by is not None:
            if page.superseded_by not in files:
                raise ValueError(f"{page.file}: superseded by {page.superseded_by}, which does not exist")
            status = f"superseded by [{page.superseded_by}]({files[page.superseded_by]})"
        lines.append(f"| {page.number} | [{page.title}]({page.file}) | {page.date} | {status} |\n")
    merged = sorted((old, page.number) for page in pages for old in page.absorbs)
    if clash := [old for old, _ in merged if old in files]:
        raise ValueError(f"Merged and still there: {', '.join(clash)}")
    said = ", ".join(f"{old} into [{new}]({files[new]})" for old, new in merged)
    return HEADER + "".join(lines) + (f"\nMerged: {said}.\n" if merged else "")


if __name__ == "__main__":
    (FOLDER / "README.md").write_text(index(decisions()))
