"""A lake of a test's own, and the proof's datasets on the real stack, for tests of what readers see."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdc_platform.lake.policy import LakePolicy
from tests.verification.conftest import make_harness

__all__ = ["make_harness"]


@pytest.fixture
def policy(tmp_path: Path) -> LakePolicy:
    """Two buckets, catalog and files in one directory."""
    (tmp_path / "lake").mkdir()
    return LakePolicy(catalog=f"sqlite:///{tmp_path}/lake/catalog.db", warehouse=f"file://{tmp_path}/lake", buckets=2)
