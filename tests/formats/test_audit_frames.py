"""The audit frames of an earlier release, read by the code of now."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from cdc_platform.errors import CdcError
from cdc_platform.verification.audit_frame import AuditFrame
from cdc_platform.verification.proof.verdicts import ShardVerdict
from tests.formats import values
from tests.formats.releases import RELEASES


@pytest.fixture(params=RELEASES, ids=lambda path: path.name)
def frames(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(request.param / "audit", tmp_path / "audit"))


def test_verdicts_and_their_history(frames: Path) -> None:
    frame = AuditFrame(str(frames))
    assert frame.history("pins", "pins") == (values.PROVEN, values.MISMATCHED, values.HEALED)
    assert frame.latest("pins", "pins") == (values.PROVEN, values.HEALED)
    assert frame.latest("pins", "pins", ["00001"]) == (values.HEALED,)
    assert frame.run("pins", "pins", "run-1") == (values.PROVEN, values.MISMATCHED)


def test_columns_of_another_release_are_left_out_and_missing_ones_are_empty(frames: Path) -> None:
    """Of one version, columns that another release has beside ours, or lacks, are all that may differ."""
    newest = max(frames.rglob("*.parquet"))
    table = pyarrow.parquet.read_table(newest)
    table = table.append_column("proven_by", pa.array(["x"])).drop_columns(["samples", "lag_s"])
    pyarrow.parquet.write_table(table, newest)
    frame = AuditFrame(str(frames))
    healed: tuple[ShardVerdict, ...] = frame.latest("pins", "pins", ["00001"])
    assert healed == (values.HEALED,)
    assert frame.history("pins", "pins")[:2] == (values.PROVEN, values.MISMATCHED)


def test_a_frame_of_a_newer_version_is_refused_by_name(frames: Path) -> None:
    newest = max(frames.rglob("*.parquet"))
    table = pyarrow.parquet.read_table(newest)
    pyarrow.parquet.write_table(table.replace_schema_metadata({"cdc.version": "2"}), newest)
    with pytest.raises(CdcError, match=rf"{newest}: a newer release wrote it \(version 2, this one reads 1\)"):
        AuditFrame(str(frames)).latest("pins", "pins")
