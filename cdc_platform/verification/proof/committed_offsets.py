"""Has the topic got to a position? By the connectors' committed offsets, and by nothing else.

Connect commits an offset after Kafka has acknowledged all records up to it. So
once the committed offset covers a position, all events before that position are
in the topic, below the end offsets that are asked for afterwards. That a later
event is in the topic proves nothing: other partitions may be behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cdc_platform.clients.platform import Platform
from cdc_platform.errors import ConnectRebalancing, NotFound, Unavailable
from cdc_platform.model.positions import Committed, Position
from cdc_platform.model.topology import Cluster, Dataset, Shard

_POLL_SECONDS = 1.0
_ASK_AT_ONCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectorProgress:
    """What a shard's connector had committed when it was asked last.

    `found` is False when no cluster of the dataset has the connector. `problem`
    is why it could not be asked. `caught_up_at` is the (monotonic) time when it covered
    the target positions, None while it does not.
    """

    committed: Committed | None = None
    found: bool = True
    problem: str | None = None
    caught_up_at: float | None = None


class ConnectorOffsets:
    """The committed offsets of a dataset's connectors."""

    def __init__(self, platform: Platform, dataset: Dataset, clusters: Mapping[str, Cluster]) -> None:
        self._platform = platform
        self._dataset = dataset
        self._clusters = [clusters[name] for name in dataset.clusters if name in clusters]
        self._home: dict[str, str] = {}

    def committed(self, shard: Shard) -> ConnectorProgress:
        """What the shard's connector has committed."""
        problems = []
        # The cluster that had it last time is asked first.
        last = self._home.get(shard.id)
        for cluster in sorted(self._clusters, key=lambda cluster: cluster.name != last):
            try:
                offsets = self._platform.connect(cluster).offsets(shard.name)
            except NotFound:
                continue
            except (Unavailable, ConnectRebalancing) as error:
                problems.append(str(error))
                continue
            self._home[shard.id] = cluster.name
            return ConnectorProgress(committed=Committed.answered(self._dataset.engine, offsets))
        if problems:
            return ConnectorProgress(problem="; ".join(problems))
        return ConnectorProgress(found=False)

    def wait(
        self,
        targets: Sequence[tuple[Shard, Sequence[Position]]],
        seconds: float,
        report: Callable[[int, int], None],
        beyond: Callable[[Shard, Committed], Committed] = lambda _, committed: committed,
    ) -> dict[str, ConnectorProgress]:
        """Shard id to what its connector had committed when it covered all target positions, or when time was up.

        `beyond` (see `Source`) is asked about what is the same as when it was asked before.
        """
        end = time.monotonic() + seconds
        waiting = {shard.id: (shard, positions) for shard, positions in targets}
        found: dict[str, ConnectorProgress] = {}
        with ThreadPoolExecutor(max_workers=_ASK_AT_ONCE, thread_name_prefix="offsets") as pool:
            while waiting:
                asked = list(waiting.values())
                answers = pool.map(self.committed, [shard for shard, _ in asked])
                for (shard, positions), answer in zip(asked, answers, strict=True):
                    before, found[shard.id] = found.get(shard.id), answer
                    committed = answer.committed
                    if committed and before == answer and not all(committed.reached(target) for target in positions):
                        committed = beyond(shard, committed)
                    if not answer.found:
                        del waiting[shard.id]
                    elif committed and not committed.busy and all(committed.reached(target) for target in positions):
                        found[shard.id] = ConnectorProgress(committed=committed, caught_up_at=time.monotonic())
                        del waiting[shard.id]
                report(len(targets) - len(waiting), len(targets))
                if not waiting or time.monotonic() >= end:
                    break
                time.sleep(min(_POLL_SECONDS, max(0.0, end - time.monotonic())))
        return found
