"""Read the whole picture of one pass, concurrently and under a deadline."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from cdc_platform.clients.platform import Platform
from cdc_platform.errors import KafkaRejected, KafkaUnavailable, Unavailable
from cdc_platform.state import ObservedCluster, ObservedTopic, Picture
from cdc_platform.topology import Cluster, Topology


def look(platform: Platform) -> Picture:
    """The picture now.

    A Connect cluster or Kafka that cannot be read is marked unknown in the
    picture. ZooKeeper is what all else hangs on: without it there is no picture.

    Raises:
        ZooKeeperUnavailable: the topology could not be read as a whole.
    """
    topology = platform.topology.load()
    with ThreadPoolExecutor(max_workers=max(2, len(topology.clusters) + 1), thread_name_prefix="look") as pool:
        topics = pool.submit(_topics, platform)
        clusters = list(pool.map(lambda c: look_at_cluster(platform, c), topology.clusters.values()))
        return Picture(
            taken_at=datetime.now(UTC),
            topology=topology,
            clusters={cluster.name: cluster for cluster in clusters},
            topics=topics.result(),
        )


def look_at_cluster(platform: Platform, cluster: Cluster) -> ObservedCluster:
    """One Connect cluster's connectors, or why they could not be read."""
    try:
        return ObservedCluster(name=cluster.name, connectors=platform.connect(cluster).connectors())
    except Unavailable as error:
        return ObservedCluster(name=cluster.name, connectors=None, problem=str(error))


def look_again(platform: Platform, topology: Topology) -> dict[str, ObservedCluster]:
    """The Connect clusters only, after a plan was applied."""
    return {cluster.name: look_at_cluster(platform, cluster) for cluster in topology.clusters.values()}


def _topics(platform: Platform) -> dict[str, ObservedTopic] | None:
    try:
        return dict(platform.kafka.topics())
    except (KafkaUnavailable, KafkaRejected):
        return None
