"""Ask the sources of doubtful shards whether they still let the dataset's user in."""

from __future__ import annotations

import logging
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import timedelta

from cdc_platform.clients.platform import Platform
from cdc_platform.clients.sources.logs import SourceLogs
from cdc_platform.errors import CdcError, SourceRejected
from cdc_platform.model.naming import ShardName
from cdc_platform.model.observed import ObservedState
from cdc_platform.model.topology import Address, Dataset, Shard, Topology
from cdc_platform.planning.health.liveness import LivenessPolicy, doubtful, silence_limit
from cdc_platform.reconciler.report import DatasetHealth

log = logging.getLogger(__name__)

_THREADS = 16
# A server that refuses a login says so at once; one that is away is another incident, and not waited for.
_SECONDS = 5.0


def ask_sources(platform: Platform, observed: ObservedState, policy: LivenessPolicy) -> dict[str, str | None]:
    """What the sources said, by shard: None for let in, else their refusal; see `ObservedState.logins`.

    One login for each leader and dataset that has a shard of which `doubtful` doubts, with the dataset's own
    user, as the control plane resolves it. Takes five seconds at most: who did not answer by then is left out.
    """
    if platform.sources is None:
        return {}
    asked: dict[tuple[str, Address], list[tuple[Dataset, Shard]]] = defaultdict(list)
    for dataset, shard in _doubted(observed, policy):
        asked[dataset.name, shard.leader].append((dataset, shard))
    # In any order: hosts that do not answer must not always hide the same others.
    groups = random.sample(list(asked.values()), len(asked))
    pool = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="login")
    try:
        answers = wait([pool.submit(_ask, platform.sources, group) for group in groups], timeout=_SECONDS).done
        return {name: said for answer in answers for name, said in answer.result().items()}
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def ask_leaders(
    platform: Platform, topology: Topology, health: Mapping[str, DatasetHealth]
) -> dict[str, DatasetHealth]:
    """The health with what the leaders of shards that are down say to the dataset's own user: the cause, if it is them.

    One login for each leader and dataset; takes five seconds at most.
    """
    sources = platform.sources
    if sources is None:
        return dict(health)
    asked: dict[tuple[str, Address], Shard] = {}
    down = {found.shard for one in health.values() for found in one.down}
    for dataset, shard in topology.all_shards():
        if shard.name in down:
            asked.setdefault((dataset.name, shard.leader), shard)
    pool = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="login")
    try:
        answers = {pool.submit(_problem, sources, topology.datasets[key[0]], s): key for key, s in asked.items()}
        done, late = wait(answers, timeout=_SECONDS)
        said = {answers[answer]: answer.result() for answer in done}
        said |= {answers[answer]: f"{answers[answer][1]} does not answer within {_SECONDS:.0f} s" for answer in late}
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    causes = {
        shard.name: cause
        for dataset, shard in topology.all_shards()
        if shard.name in down and (cause := said.get((dataset.name, shard.leader)))
    }
    return {
        name: replace(
            one,
            down=tuple(
                replace(found, reason=f"{found.reason}; its database, asked now: {causes[found.shard]}")
                if found.shard in causes
                else found
                for found in one.down
            ),
        )
        for name, one in health.items()
    }


def _problem(sources: SourceLogs, dataset: Dataset, shard: Shard) -> str | None:
    try:
        sources.check(dataset, shard)
    except CdcError as error:
        return str(error)
    return None


def _ask(sources: SourceLogs, group: Sequence[tuple[Dataset, Shard]]) -> dict[str, str | None]:
    """The answer to the first of the group, for all of it; empty without one."""
    try:
        sources.check(*group[0])
    except SourceRejected as error:
        said: str | None = error.message
    except CdcError as error:
        log.warning("whether %s lets the dataset's user in is not known: %s", group[0][1].leader, error)
        return {}
    else:
        said = None
    return {shard.name: said for _, shard in group}


def _doubted(observed: ObservedState, policy: LivenessPolicy) -> list[tuple[Dataset, Shard]]:
    running: dict[str, tuple[str, timedelta]] = {}
    limits = {dataset.name: silence_limit(dataset, policy) for dataset in observed.topology.datasets.values()}
    for cluster in observed.clusters.values():
        for connector in (cluster.connectors or {}).values():
            dataset = ShardName.parse(connector.name).dataset
            if connector.running and dataset in limits:
                running[connector.name] = (connector.tasks[0].worker, limits[dataset])
    names = doubtful(running, observed.heartbeats, observed.workers, observed.taken_at)
    return [(dataset, shard) for dataset, shard in observed.topology.all_shards() if shard.name in names]
