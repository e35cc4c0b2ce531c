"""One question to the leaders of many shards: grouped by server, so many at once, for so many seconds."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

from cdc_platform.connectors.identity import Identity, identity
from cdc_platform.errors import CdcError, SourceUnavailable
from cdc_platform.model.topology import Address, Dataset, Shard
from cdc_platform.settings import Settings

T = TypeVar("T")

# Asks shards of one dataset that have the same leader; by shard (`<dataset>.<shard>`), an error being an answer.
Question = Callable[[Dataset, Sequence[tuple[Shard, Identity]]], Mapping[str, T | CdcError]]

THREADS = 16


def ask_leaders(
    question: Question[T],
    settings: Settings,
    shards: Iterable[tuple[Dataset, Shard]],
    *,
    seconds: float,
    most: int | None = None,
) -> tuple[dict[str, T], dict[str, CdcError]]:
    """What the leaders of these shards answered within the seconds, and why others did not.

    The order is another one each time, so that no server is always the last. `most`: shards of a server that one
    connection asks; the others are asked beside it.
    """
    groups: dict[tuple[str, Address], list[tuple[Shard, Identity]]] = defaultdict(list)
    datasets: dict[str, Dataset] = {}
    for dataset, shard in shards:
        datasets[dataset.name] = dataset
        groups[dataset.name, shard.leader].append((shard, identity(settings, dataset, shard)))
    parts = [
        (datasets[name], own[at : at + (most or len(own))])
        for (name, _), own in groups.items()
        for at in range(0, len(own), most or len(own))
    ]
    pool = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="source")
    try:
        asked = {pool.submit(question, *part): part for part in random.sample(parts, len(parts))}
        done = wait(asked, timeout=seconds).done
        answered: dict[str, T] = {}
        unanswered: dict[str, CdcError] = {
            shard.name: SourceUnavailable("it was not asked in time.", where=f"shard {shard.name}: {shard.leader}")
            for _, own in asked.values()
            for shard, _ in own
        }
        for answers in (future.result() for future in done):
            for name, answer in answers.items():
                if isinstance(answer, CdcError):
                    unanswered[name] = answer
                else:
                    answered[name] = answer
                    del unanswered[name]
        return answered, unanswered
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
