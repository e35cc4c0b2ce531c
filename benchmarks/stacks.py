"""The stack that a benchmark runs on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.form import Form
from cdc_platform.local.stack import Stack
from tests.conftest import own_stack


@contextlib.contextmanager
def stack_of(form: Form, **parts: Any) -> Iterator[Stack]:
    """The running stack that was asked for, or one of the benchmark's own with these parts."""
    if form.stack is not None:
        yield Stack.load(Path(form.stack))
        return
    with own_stack(**parts) as stack:
        yield stack
