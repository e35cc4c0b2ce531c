"""The audit frame: one row a shard and verification, as Parquet files with their history.

One file a call of `verify_shards`, in `<audit_dir>/<dataset>/<table>/`, named by
time and run, written under another name and then renamed. Many files are
merged into one now and then, history and all.
"""

from __future__ import annotations

import io
import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet

from cdc_platform.errors import CdcError, SettingsError
from cdc_platform.verification import verdict_tables as frames
from cdc_platform.verification.proof.verdicts import WORST_FIRST, ShardVerdict, Verdict

_TIME = "%Y%m%dT%H%M%S.%fZ"

# Files of a table before they are merged, and rows of history that are kept then.
_FILES = 500
_ROWS = 1_000_000


class AuditFrame:
    """The frames of one platform. `where` is a directory, or the URI of one that pyarrow reads (`s3://...`).

    Calls raise CdcError when files cannot be read or written.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        try:
            if "://" in where:
                self._fs, self._root = pyarrow.fs.FileSystem.from_uri(where)
            else:
                self._fs, self._root = pyarrow.fs.LocalFileSystem(), str(Path(where).absolute())
        except (pa.ArrowException, OSError, ValueError) as error:
            raise SettingsError(
                f"no files can be kept in {where!r}: {error}.",
                field="audit_dir",
                cure="Name a directory or a URI.",
            ) from error

    def write(self, verdicts: Sequence[ShardVerdict]) -> str | None:
        """Add the verdicts, all of one table; returns the file's path, None when there are none."""
        if not verdicts:
            return None
        first = verdicts[0]
        time = max(verdict.checked_at for verdict in verdicts).astimezone(UTC).strftime(_TIME)
        name = f"{time}-{_safe(first.run_id)}-{secrets.token_hex(3)}.parquet"
        path = self._put(first.dataset, first.table, name, frames.to_table(verdicts))
        self._merge(first.dataset, first.table)
        return path

    def latest(self, dataset: str, table: str, shards: Collection[str] | None = None) -> tuple[ShardVerdict, ...]:
        """The newest verdict of each shard, by shard; `shards` (default: all that are found) ends the search early."""
        chosen = None if shards is None else set(shards)
        found: list[Any] = []
        known: set[str] = set()
        for part in self._newest(dataset, table):
            found.append(part)
            known.update(part.column("shard").to_pylist())
            if chosen is not None and chosen <= known:
                break
        newest = frames.from_table(frames.last_of_each_shard(frames.concatenated(list(reversed(found)))))
        return _by_shard(verdict for verdict in newest if chosen is None or verdict.shard in chosen)

    def worst(self, dataset: str, tables: Iterable[str], shards: Collection[str]) -> dict[str, Verdict]:
        """The worst of the newest verdicts on each shard's tables; without shards that lack one on a table."""
        found: dict[str, list[Verdict]] = {shard: [] for shard in shards}
        names = tuple(tables)
        for table in names:
            for verdict in self.latest(dataset, table, shards):
                found[verdict.shard].append(verdict.verdict)
        worst = {shard: min(of, key=WORST_FIRST.index) for shard, of in found.items() if of}
        return {s: one for s, one in worst.items() if one is not Verdict.PROVEN or len(found[s]) == len(names)}

    def run(self, dataset: str, table: str, run_id: str) -> tuple[ShardVerdict, ...]:
        """The verdicts of one run, by shard."""
        parts = []
        for part in self._newest(dataset, table):
            of_run = [found == run_id for found in part.column("run_id").to_pylist()]
            if any(of_run):
                parts.append(part.filter(pa.array(of_run, pa.bool_())))
        return _by_shard(frames.from_table(frames.last_of_each_shard(frames.concatenated(list(reversed(parts))))))

    def history(self, dataset: str, table: str, *, files: int = _FILES + 1) -> tuple[ShardVerdict, ...]:
        """The verdicts of the last `files` files, oldest first."""
        parts = [part for part, _ in zip(self._newest(dataset, table), range(files), strict=False)]
        return tuple(frames.from_table(frames.concatenated(list(reversed(parts)))))

    def _put(self, dataset: str, table: str, name: str, rows: Any) -> str:
        folder = f"{self._root}/{dataset}/{table}"
        sink = io.BytesIO()
        pyarrow.parquet.write_table(rows, sink, compression="zstd")
        try:
            self._fs.create_dir(folder, recursive=True)
            with self._fs.open_output_stream(f"{folder}/{name}.new") as stream:
                stream.write(sink.getvalue())
            self._fs.move(f"{folder}/{name}.new", f"{folder}/{name}")
        except OSError as error:
            raise self._failed("written", error) from error
        return f"{folder}/{name}"

    def _names(self, dataset: str, table: str) -> list[str]:
        """Files, newest first."""
        folder = pyarrow.fs.FileSelector(f"{self._root}/{dataset}/{table}", allow_not_found=True)
        try:
            return sorted((i.path for i in self._fs.get_file_info(folder) if i.path.endswith(".parquet")), reverse=True)
        except OSError as error:
            raise self._failed("listed", error) from error

    def _newest(self, dataset: str, table: str) -> Iterator[Any]:
        for name in self._names(dataset, table):
            try:
                with self._fs.open_input_file(name) as stream:
                    table = pyarrow.parquet.read_table(stream)
            except FileNotFoundError:
                continue  # It was merged with others meanwhile.
            except (OSError, pa.ArrowException) as error:
                raise self._failed("read", error) from error
            if frames.version_of(table) > frames.VERSION:
                raise CdcError(
                    f"a newer release wrote it (version {frames.version_of(table)}, this one reads {frames.VERSION}).",
                    where=name,
                    cure="Use that release, or remove the file.",
                )
            yield table

    def _merge(self, dataset: str, table: str) -> None:
        names = self._names(dataset, table)
        if len(names) <= _FILES:
            return
        # Under the name of the newest of them, which comes before what is being written now.
        whole = frames.concatenated(list(reversed(list(self._newest(dataset, table)))))
        stem = names[0].rpartition("/")[2].removesuffix(".parquet")
        self._put(dataset, table, f"{stem}-whole.parquet", whole.slice(max(0, len(whole) - _ROWS)))
        try:
            for name in names:
                self._fs.delete_file(name)
        except OSError as error:
            raise self._failed("merged", error) from error

    def _failed(self, what: str, error: Exception) -> CdcError:
        return CdcError(f"verdicts could not be {what}: {error}.", where=self._where, field="audit_dir")


def _by_shard(verdicts: Any) -> tuple[ShardVerdict, ...]:
    return tuple(sorted(verdicts, key=lambda verdict: verdict.shard))


def _safe(run_id: str) -> str:
    return "".join(char if char.isalnum() or char in "._" else "_" for char in run_id)
