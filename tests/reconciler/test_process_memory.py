"""The collector of the process: as it was once the last caller is through, whatever order they leave in."""

from __future__ import annotations

import gc
from contextlib import ExitStack

import pytest

from cdc_platform.reconciler.process_memory import rarer_collections


def test_collections_are_as_before_after_the_last_caller() -> None:
    before = gc.get_threshold()
    one, other = ExitStack(), ExitStack()
    one.enter_context(rarer_collections())
    assert gc.get_threshold() == (0, *before[1:])
    other.enter_context(rarer_collections(100_000))
    assert gc.get_threshold() == (100_000, *before[1:])
    one.close()
    assert gc.get_threshold() == (100_000, *before[1:])
    other.close()
    assert gc.get_threshold() == before


def test_collections_are_as_before_after_an_error() -> None:
    before = gc.get_threshold()
    with pytest.raises(ValueError), rarer_collections():
        raise ValueError
    assert gc.get_threshold() == before
