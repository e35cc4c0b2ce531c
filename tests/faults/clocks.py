"""Processes whose clock is wrong: a library put before libc adds to the time of day, and to nothing else.

Made by the C compiler that is there. Wall clock only (CLOCK_REALTIME, gettimeofday, time): what waits by the
monotonic clock, as JVM and Python do, waits as ever. MariaDB waits by the wall clock, so its skew is that of
its sessions (SET timestamp), which is the time its binlog events carry.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from cdc_platform.local.stack import Stack

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long skew(void) {
    const char *text = getenv("CLOCK_SKEW");
    return text ? atol(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *found) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, found);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) found->tv_sec += skew();
    return failed;
}

int gettimeofday(struct timeval *found, void *zone) {
    struct timespec now;
    int failed = clock_gettime(CLOCK_REALTIME, &now);
    if (!failed) { found->tv_sec = now.tv_sec; found->tv_usec = now.tv_nsec / 1000; }
    return failed;
}

time_t time(time_t *found) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (found) *found = now.tv_sec;
    return now.tv_sec;
}
"""


def skew(directory: Path, seconds: int) -> dict[str, str]:
    """The environment in which a process is that much ahead. Skips the test where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("a wrong clock needs a C compiler")
    library = directory / "clock.so"
    if not library.exists():
        source = directory / "clock.c"
        source.write_text(_SOURCE)
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return {"LD_PRELOAD": str(library), "CLOCK_SKEW": str(seconds)}


@contextmanager
def skewed(stack: Stack, service: str, environment: dict[str, str]) -> Iterator[None]:
    """The service is restarted with that environment, and at the end of the block with its own."""
    launch = stack.launches[service]
    wrong = replace(stack, launches={**stack.launches, service: replace(launch, env={**launch.env, **environment})})
    stack.stop(service)
    try:
        wrong.start(service, timeout=180)
        yield
    finally:
        if service in stack.running():
            stack.stop(service)
        stack.start(service, timeout=180)
