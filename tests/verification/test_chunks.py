"""Chunks on real servers: in the key's own order, and each as long as it was asked for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cdc_platform.topology import Engine
from tests.verification.ground import Ground

pytestmark = pytest.mark.stack

MakeGround = Callable[..., Ground]

# Key columns, and the key of the n-th row; as text they sort otherwise.
_KEYS = {
    "integer": ("id bigint PRIMARY KEY", lambda n: f"{n - 500}"),
    "composite": ("a int, b varchar(20), PRIMARY KEY (a, b)", lambda n: f"{n // 7},'x{n % 7}'"),
    "decimal": ("id numeric(10,2) PRIMARY KEY", lambda n: f"{n}.50"),
}


@pytest.mark.parametrize("kind", _KEYS)
@pytest.mark.parametrize("engine", [Engine.MARIADB, Engine.POSTGRES])
def test_completeness_reads_chunks_of_the_size_asked_for(make_ground: MakeGround, engine: Engine, kind: str) -> None:
    columns, key = _KEYS[kind]
    ground = make_ground(engine)
    rows = ",".join(f"({key(n)})" for n in range(1234))
    shard = ground.add_shard("00000", f"CREATE TABLE t ({columns})", f"INSERT INTO t VALUES {rows}")
    if engine is Engine.POSTGRES:
        ground.own(shard, "t")
    source = ground.outside().source(ground.dataset, shard, ground.tables[0])
    assert source.inspect().shape is not None
    after, sizes, words = None, [], set[int]()
    while not sizes or after is not None:
        until = source.chunk_end(after, 100)
        found = source.read_chunk(after, until)
        sizes.append(len(found.keys))
        words.update(found.keys.tolist())
        after = until
    source.close()
    assert sizes == [100] * 12 + [34]
    assert len(words) == 1234
