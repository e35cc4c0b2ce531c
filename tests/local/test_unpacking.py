"""Archives that would leave their directory are refused, also by what Python before 3.11.4 is given."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from cdc_platform.local import unpacking

LINK, FILE = tarfile.SYMTYPE, tarfile.REGTYPE
# Name, type and target of each member.
HOSTILE: dict[str, list[tuple[str, bytes, str]]] = {
    "chain of links": [("d/e", LINK, ".."), ("f", LINK, "d/e/.."), ("f/evil", FILE, "")],
    "link out": [("f", LINK, "../.."), ("f/evil", FILE, "")],
    "through a link": [("d/x", FILE, ""), ("f", LINK, "d"), ("f/evil", FILE, "")],
    "over a link": [("d", LINK, "e"), ("d", FILE, "")],
    "absolute": [("/tmp/evil", FILE, "")],
    "hard link out": [("f", tarfile.LNKTYPE, "../../etc/passwd")],
    "parent": [("../evil", FILE, "")],
}


def _tar(members: list[tuple[str, bytes, str]]) -> tarfile.TarFile:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, kind, target in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            tar.addfile(member)
    data.seek(0)
    return tarfile.open(fileobj=data)


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE)
def test_nothing_is_written_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: list[tuple[str, bytes, str]]
) -> None:
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    target = tmp_path / "a" / "b"
    target.mkdir(parents=True)
    with _tar(members) as tar, pytest.raises(tarfile.TarError):
        unpacking._extract(tar, target)
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b"]


# A Python that has filters is not asked to do without them, but here.
@pytest.mark.filterwarnings("ignore:Python 3.14 will:DeprecationWarning")
def test_links_within_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    with _tar([("lib/x.so.1", FILE, ""), ("lib/x.so", LINK, "x.so.1"), ("bin/p", LINK, "../lib/x.so.1")]) as tar:
        unpacking._extract(tar, tmp_path)
    assert (tmp_path / "lib/x.so").resolve() == (tmp_path / "bin/p").resolve() == tmp_path / "lib/x.so.1"
