"""Every link of a Markdown file to another file or heading leads somewhere, and each file and folder it names exists.

`python .ci/check_links.py [FILE ...]`, by default all Markdown files that git knows. Prints a line for each link,
path of a module (`reconciler/apply.py`, also in pictures) and folder in backticks (`planning/health/`) that leads
nowhere, and ends with 1 if there is any. Addresses elsewhere (`https:`, `mailto:`) are not asked for.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
_REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:\s+<?(\S+?)>?\s*$")
_HEADING = re.compile(r"^ {0,3}#{1,6}\s+(.*?)\s*#*\s*$")
_PATH = re.compile(r"(?<![\w./:-])[\w.-]+(?:/[\w.-]+)+\.py\b|(?<=`)(?:docs|examples|deploy)/[\w./-]+(?=`)")
_FOLDER = re.compile(r"`([a-z_]+(?:/[a-z_]+)*)/`")
# Folders that are made at run time, and prefixes of keys of the state topic.
_MADE = ("alert", "dist", "leaders", "outbox", "secrets")
_ELSEWHERE = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")


def broken_links(path: Path) -> Iterator[str]:
    """`FILE:LINE: what is wrong`, one for each link of the file that leads nowhere."""
    for number, line in _prose(path):
        targets = [*_LINK.findall(line), *_REFERENCE.findall(line)]
        for target in targets:
            wrong = None if _ELSEWHERE.match(target) else _wrong(path, unquote(target))
            if wrong:
                yield f"{_shown(path)}:{number}: {wrong}"
    for number, line in enumerate(path.read_text().splitlines(), 1):
        for name in _PATH.findall(line):
            if not any((root / name).exists() for root in (ROOT, ROOT / "cdc_platform", path.parent)):
                yield f"{_shown(path)}:{number}: there is no file {name}"
        for name in _FOLDER.findall(line):
            if name not in _MADE and not any((root / name).is_dir() for root in (ROOT, ROOT / "cdc_platform")):
                yield f"{_shown(path)}:{number}: there is no folder {name}"


def _shown(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def _wrong(source: Path, target: str) -> str | None:
    name, _, heading = target.partition("#")
    file = (ROOT / name[1:] if name.startswith("/") else source.parent / name) if name else source
    if not file.exists():
        return f"there is no file {target}"
    if heading and file.suffix == ".md" and heading not in _headings(file):
        return f"{file.name} has no heading #{heading}"
    return None


def _headings(path: Path) -> set[str]:
    """Anchors as they are made from headings: lower case, punctuation gone, blanks as hyphens, repeats numbered."""
    found: dict[str, int] = {}
    anchors = set()
    for _, line in _prose(path):
        if match := _HEADING.match(line):
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match.group(1))
            anchor = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            count = found.get(anchor, 0)
            anchors.add(f"{anchor}-{count}" if count else anchor)
            found[anchor] = count + 1
    return anchors


def _prose(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines without those of fenced code."""
    fenced = False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        elif not fenced:
            yield number, re.sub(r"`[^`]*`", "", line) if _HEADING.match(line) is None else line


def main(arguments: list[str]) -> int:
    """Check the files named, or all of them."""
    if arguments:
        files = [Path(name).resolve() for name in arguments]
    else:
        command = ["git", "ls-files", "-co", "--exclude-standard", "*.md"]
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        files = [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).exists()]
    wrong = [line for path in files for line in broken_links(path)]
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
