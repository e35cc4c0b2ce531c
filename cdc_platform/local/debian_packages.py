"""A Debian package and all it depends on, unpacked beside the stack's other programs; nothing is installed.

The machine's own apt fetches it, with the mirror, proxies and logins that are configured there, from
a suite that the machine need not have among its sources. apt holds each file against the signed index
of the suite (apt-secure(8)), so none is pinned here: a suite that moves drops what it had. State,
lists and cache of that apt are in a directory of its own, and it needs no root.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import msgspec

from cdc_platform.errors import StackError
from cdc_platform.local.artifacts import Progress, sha256

_MANIFEST = ".packages.json"
# Beside it; as old as the last start of a program of the package that went well.
_RAN = ".ran"
_KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
)
# A package's maintainer scripts want perl; its programs do not, and nothing is installed.
_NOT_WANTED = "perl"
_FETCHED_WITHIN = 300.0
_RENEWED_AFTER = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """What was unpacked. `packages` maps the file name of each package to its SHA-256 in hex."""

    root: Path
    version: str
    packages: Mapping[str, str]

    @property
    def loader(self) -> Path:
        """The dynamic loader among the packages: their libraries are newer than the machine's.

        Raises:
            StackError: there is none, or more than one.
        """
        found = sorted(self.root.glob("usr/lib/*/ld-linux*.so.*"))
        if len(found) != 1:
            raise StackError(
                f"{len(found)} dynamic loaders, not one.", where=str(self.root), cure="Remove that directory."
            )
        return found[0]

    def command(self, program: str) -> tuple[str, ...]:
        """How a program of the packages is run, its path as in `usr/sbin/mysqld`. Raises StackError."""
        return str(self.loader), "--library-path", str(self.loader.parent), str(self.root / program)


def provide(programs: Path, package: str, *, suite: str, progress: Progress | None = None) -> Unpacked:
    """The package, from `programs`, else fetched. With it there no network is used.

    Two processes that call this at once wait for each other.

    Raises:
        StackError: this is no Debian, no mirror has the suite or the package, or it could not be written.
    """
    programs.mkdir(parents=True, exist_ok=True)
    with _one_process(programs / f".{package}.lock"):
        found = newest(programs, package)
        return found or _fetch(programs, package, suite, progress)


def renew(programs: Path, package: str, *, suite: str, progress: Progress | None = None) -> Unpacked:
    """What the suite has now, fetched where it is not there yet: from now on `provide` gives it.

    The suite is asked once a day. Of the other packages only the one that ran last is kept.

    Raises:
        StackError: as `provide`; what is there stays.
    """
    programs.mkdir(parents=True, exist_ok=True)
    with _one_process(programs / f".{package}.lock"):
        known = newest(programs, package)
        if known is not None and time.time() - (known.root / _MANIFEST).stat().st_mtime < _RENEWED_AFTER:
            return known
        found = _fetch(programs, package, suite, progress)
        kept = _latest(programs, package, _RAN)
        for manifest in programs.glob(f"{package}-*/{_MANIFEST}"):
            if manifest.parent not in (found.root, kept and kept.root):
                shutil.rmtree(manifest.parent)
        return found


def note_ran(root: Path) -> None:
    """Keep in mind that a program of the package in `root` has started."""
    (root / _RAN).touch()


def fall_back(programs: Path, package: str) -> Unpacked | None:
    """The package of which a program ran last: from now on `provide` gives it. None, and nothing done, if none ran."""
    with _one_process(programs / f".{package}.lock"):
        found = _latest(programs, package, _RAN)
        if found is not None:
            (found.root / _MANIFEST).touch()
        return found


def newest(programs: Path, package: str) -> Unpacked | None:
    """The one that was unpacked last, None without one."""
    return _latest(programs, package, _MANIFEST)


def _latest(programs: Path, package: str, file: str) -> Unpacked | None:
    """The package of which that file is the youngest."""
    files = sorted(programs.glob(f"{package}-*/{file}"), key=lambda path: path.stat().st_mtime_ns)
    if not files:
        return None
    root = files[-1].parent
    found = msgspec.json.decode((root / _MANIFEST).read_bytes(), type=_Manifest)
    return Unpacked(root=root, version=found.version, packages=found.packages)


class _Manifest(msgspec.Struct):
    version: str
    packages: dict[str, str]


def _fetch(programs: Path, package: str, suite: str, progress: Progress | None) -> Unpacked:
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise _not_to_be_had(package, suite, f"this machine has no {program}")
    with tempfile.TemporaryDirectory(prefix=f".{package}-", dir=programs) as scratch:
        apt = _Apt(Path(scratch), suite)
        wanted, problem = apt.files(package)
        if not wanted:
            raise _not_to_be_had(package, suite, problem)
        here = _there_already(programs, package, wanted)
        if here is not None:
            return here
        files = apt.download(package, [file.split("_")[0] for file in wanted])
        if progress:
            for path in files:
                progress(path.name, path.stat().st_size, path.stat().st_size)
        return _unpack(programs, Path(scratch) / "root", package, files)


def _there_already(programs: Path, package: str, wanted: Sequence[str]) -> Unpacked | None:
    """The one unpacked from the package's own file among these; it counts as the newest from now on."""
    own = {file for file in wanted if file.startswith(f"{package}_")}
    for manifest in programs.glob(f"{package}-*/{_MANIFEST}"):
        found = msgspec.json.decode(manifest.read_bytes(), type=_Manifest)
        if own <= found.packages.keys():
            manifest.touch()
            return Unpacked(root=manifest.parent, version=found.version, packages=found.packages)
    return None


def _unpack(programs: Path, scratch: Path, package: str, files: Sequence[Path]) -> Unpacked:
    scratch.mkdir()
    for path in files:
        done = subprocess.run(["dpkg-deb", "--extract", path, scratch], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise StackError(
                f"{path.name} cannot be unpacked: {done.stderr.strip()}.",
                where=str(programs),
                cure="See its free space.",
            )
    (own,) = (path.name for path in files if path.name.startswith(f"{package}_"))
    version = unquote(own.split("_")[1])
    manifest = _Manifest(version=version, packages={path.name: sha256(path) for path in files})
    (scratch / _MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    target = programs / f"{package}-{version.replace(':', '.')}"
    shutil.rmtree(target, ignore_errors=True)
    scratch.replace(target)
    return Unpacked(root=target, version=manifest.version, packages=manifest.packages)


class _Apt:
    """An apt that knows one suite, and of no package that is installed."""

    def __init__(self, home: Path, suite: str) -> None:
        self._home, self._suite = home, suite
        self._config = home / "apt.conf"
        for folder in ("state/lists/partial", "cache/archives/partial", "sources", "packages"):
            (home / folder).mkdir(parents=True)
        (home / "status").touch()
        # The machine's own configuration holds as well, proxies and logins among it; but what it
        # does after an update is meant for the machine's own lists.
        self._config.write_text(
            f"""#clear APT::Update;
Dir::Etc::SourceList "/dev/null";
Dir::Etc::SourceParts "{home / "sources"}";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "{home / "state"}";
Dir::State::status "{home / "status"}";
Dir::Cache "{home / "cache"}";
APT::Sandbox::User "";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "2";
Debug::NoLocking "true";
"""
        )

    def files(self, package: str) -> tuple[tuple[str, ...], str]:
        """The package's file and those that it depends on, `NAME_VERSION_ARCHITECTURE.deb`; none with the reason."""
        keyring = next((path for path in _KEYRINGS if path.exists()), None)
        if keyring is None:
            return (), "Debian's keyring is not there"
        problem = "this machine's apt has no mirror of Debian"
        for mirror in _mirrors():
            (self._home / "sources" / "suite.sources").write_text(
                f"Types: deb\nURIs: {mirror}\nSuites: {self._suite}\nComponents: main\n"
                f"Targets: Packages\nSigned-By: {keyring}\n"
            )
            updated = self._run("apt-get", "update", "-qq")
            if updated.returncode != 0:
                problem = _last_line(updated)
                continue
            wanted = self._run("apt-get", "install", "--print-uris", "-qq", "-y", "--no-install-recommends", package)
            if wanted.returncode != 0:
                problem = _last_line(wanted)
                continue
            found = (line.split()[1] for line in wanted.stdout.splitlines() if line.startswith("'"))
            return tuple(file for file in found if _NOT_WANTED not in file.split("_")[0]), ""
        return (), problem

    def download(self, package: str, names: Sequence[str]) -> tuple[Path, ...]:
        """Fetch these packages. Raises StackError with apt's words."""
        target = self._home / "packages"
        done = self._run("apt-get", "download", "-qq", *names, cwd=target)
        if done.returncode != 0:
            raise _not_to_be_had(package, self._suite, _last_line(done))
        return tuple(sorted(target.glob("*.deb")))

    def _run(self, *argv: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [argv[0], "-c", str(self._config), *argv[1:]],
                cwd=cwd, capture_output=True, text=True, check=False, timeout=_FETCHED_WITHIN,
                env={**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise StackError(
                f"`{argv[0]} {argv[1]}` was not done after {_FETCHED_WITHIN:.0f} s.",
                where=f"Debian's suite {self._suite}",
                cure="Check the network and apt's proxy settings.",
            ) from error


def _mirrors() -> tuple[str, ...]:
    """The archives that the machine's own apt reads, those of security updates left out."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    )
    found = dict.fromkeys(line.strip() for line in listed.stdout.splitlines())
    return tuple(uri for uri in found if uri and "security" not in uri)


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines()
    return lines[0].removeprefix("E: ").rstrip(".") if lines else f"apt ended with code {done.returncode}"


def _not_to_be_had(package: str, suite: str, why: str) -> StackError:
    return StackError(
        f"{package} is not to be had from Debian's suite {suite}: {why}.",
        cure="Name a server program of your own by its option.",
    )


@contextlib.contextmanager
def _one_process(lock: Path) -> Iterator[None]:
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
