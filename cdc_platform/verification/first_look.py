"""What is wrong with tables before anything is captured: each dataset's first shard is asked.

A table that has no key, or that the dataset's user may not see, is taken by a plan like any other, and is never whole.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing

from cdc_platform.errors import CdcError
from cdc_platform.model.topology import Dataset, Shard, Topology
from cdc_platform.planning.plan import Finding
from cdc_platform.verification.ports import VerificationPorts

_THREADS = 16


def first_look(ports: VerificationPorts, topology: Topology, *, seconds: float = 5.0) -> tuple[Finding, ...]:
    """One finding for each table that could not be bootstrapped or proven, and for each server that did not say.

    Args:
        seconds: nothing is waited for longer; a server that has not answered by then is named.
    """
    off = {problem.name for problem in topology.problems}
    asked = [
        (dataset, topology.shards[name][0])
        for name, dataset in sorted(topology.datasets.items())
        if topology.shards.get(name) and name not in off
    ]
    pool = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="first-look")
    try:
        answers = {pool.submit(_look, ports, *pair): pair for pair in asked}
        done, late = wait(answers, timeout=seconds)
        found = [finding for answer in done for finding in answer.result()]
        found += [
            Finding(
                subject=answers[answer][1].name,
                text=f"{answers[answer][1].leader} has not answered within {seconds:.0f} s: tables were not looked at",
            )
            for answer in late
        ]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return tuple(sorted(found, key=lambda finding: (finding.subject, finding.text)))


def _look(ports: VerificationPorts, dataset: Dataset, shard: Shard) -> list[Finding]:
    found: list[Finding] = []
    for table in dataset.tables:
        try:
            with closing(ports.source(dataset, shard, table)) as source:
                problems = source.inspect().problems
        except CdcError as error:
            return [*found, Finding(subject=shard.name, text=f"its tables were not looked at: {error}")]
        if problems:
            text = f"cannot be bootstrapped or proven as it is (shard {shard.id}): {'; '.join(problems)}"
            found.append(Finding(subject=f"{dataset.name}.{table.name}", text=text))
    return found
