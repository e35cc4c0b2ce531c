"""Chunks on real servers: in the key's own order, and each as long as it was asked for, by however many connections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from cdc_platform.model.topology import Engine
from cdc_platform.verification.proof.connection_pool import Connections
from cdc_platform.verification.proof.scan import Scan
from tests.verification.proof.harness import MakeHarness

pytestmark = pytest.mark.stack


# Key columns, and the key of the n-th row; as text they sort otherwise.
_KEYS = {
    "integer": ("id bigint PRIMARY KEY", lambda n: f"{n - 500}"),
    "composite": ("a int, b varchar(20), PRIMARY KEY (a, b)", lambda n: f"{n // 7},'x{n % 7}'"),
    "decimal": ("id numeric(10,2) PRIMARY KEY", lambda n: f"{n}.50"),
}
# Keys whose order is the database's alone: by collation, by bytes, by the engine's own type.
_ORDERED: Mapping[str, tuple[str, Callable[[int], str]]] = {
    **_KEYS,
    "text": ("name varchar(40) PRIMARY KEY", lambda n: f"'{'aAbBßzé_'[n % 8]}{n % 13}-{n}'"),
    "uuid": ("u uuid PRIMARY KEY", lambda n: f"'{n * 2654435761 % 2**32:08x}-0000-4000-8000-{n:012x}'"),
    "binary": ("raw varbinary(20) PRIMARY KEY", lambda n: f"x'{n * 7919 % 65536:04x}00{n:04x}ff'"),
}


def _source(make_harness: MakeHarness, engine: Engine, kind: str) -> Any:
    """A source of 1,234 rows."""
    columns, key = _ORDERED[kind]
    harness = make_harness(engine)
    rows = ",".join(f"({key(n)})" for n in range(1234))
    if engine is Engine.POSTGRES:
        columns = columns.replace("varbinary(20)", "bytea")
        rows = rows.replace("x'", "'\\x")
    if engine is Engine.MYSQL:
        columns = columns.replace("uuid", "char(36)")
    shard = harness.add_shard("00000", f"CREATE TABLE t ({columns})", f"INSERT INTO t VALUES {rows}")
    if engine is Engine.POSTGRES:
        harness.own(shard, "t")
    return harness.outside().source(harness.dataset, shard, harness.tables[0])


@pytest.mark.parametrize("kind", _KEYS)
@pytest.mark.parametrize("engine", list(Engine))
def test_completeness_reads_chunks_of_the_size_asked_for(make_harness: MakeHarness, engine: Engine, kind: str) -> None:
    source = _source(make_harness, engine, kind)
    assert source.inspect().shape is not None
    after, words = None, set[int]()
    sizes: list[int] = []
    while not sizes or after is not None:
        until = source.chunk_end(after, 100)
        found = source.read_chunk(after, until)
        sizes.append(len(found.keys))
        words.update(found.keys.tolist())
        after = until
    source.close()
    assert sizes == [100] * 12 + [34]
    assert len(words) == 1234


@pytest.mark.parametrize(
    "kind", [kind if kind == "text" else pytest.param(kind, marks=pytest.mark.slow) for kind in _ORDERED]
)
@pytest.mark.parametrize("engine", list(Engine))
def test_completeness_reads_ranges_of_keys_by_several_connections(
    make_harness: MakeHarness, tmp_path: Path, engine: Engine, kind: str
) -> None:
    source = _source(make_harness, engine, kind)
    shape = source.inspect().shape
    assert shape is not None
    seen = []
    for most in (1, 3):
        scan = Scan(tmp_path / str(most), ("run", "d", "t", "0"), shape)
        read: Counter[int] = Counter()
        with Connections(most).pool(_Counted(source, read), "there") as pool:
            scan.run(pool, lambda rows: None, chunk_rows=20)
        assert scan.rows == 1234 and len(scan.chunks) == sum(read.values()) == 62
        assert pool.size == most
        assert len(read) == 1 if most == 1 else len(read) > 1
        rows = scan.source_rows(0, 1 << 64)
        # Every row in the chunk of its place in the key's order.
        seen.append(set(zip(rows.keys.tolist(), rows.rows.tolist(), rows.chunks.tolist(), strict=True)))
    source.close()
    assert seen[0] == seen[1] and len(seen[0]) == 1234


class _Counted:
    """Connections to one source, and how many chunks each has read."""

    def __init__(self, source: Any, read: Counter[int]) -> None:
        self._source, self._read = source, read

    def another(self) -> _Counted:
        return _Counted(self._source.another(), self._read)

    def read_chunk(self, *where: Any) -> Any:
        found = self._source.read_chunk(*where)
        self._read[id(self)] += 1
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)
