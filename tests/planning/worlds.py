"""Small worlds for the planner: builders of values, strategies, and a simulator of Connect and Kafka."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from cdc_platform.model.observed import (
    CLUSTER_KEY,
    OWNER_KEY,
    ObservedCluster,
    ObservedConnector,
    ObservedState,
    ObservedTask,
    ObservedTopic,
    TopicRequest,
)
from cdc_platform.model.topology import Address, Cluster, Credentials, Dataset, Engine, Shard, Table, Topology
from cdc_platform.planning.actions import (
    AddPartitions,
    AlterTopic,
    CreateConnector,
    CreateTopic,
    DeleteConnector,
    MigrateConnector,
    RestartConnector,
    ResumeConnector,
    StopAndResumeConnector,
    UpdateConnector,
)
from cdc_platform.planning.inputs import DesiredState, Planned
from cdc_platform.planning.memory import Memory
from cdc_platform.planning.plan import Plan
from cdc_platform.planning.records import Record

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CREDENTIALS = Credentials(user="${env:DB_USER}", password="${env:DB_PASSWORD}")


def dataset(name: str = "pins", clusters: tuple[str, ...] = ("main",), **fields: object) -> Dataset:
    defaults: dict[str, object] = {
        "name": name,
        "engine": Engine.MARIADB,
        "tables": (Table(name="pins"), Table(name="boards")),
        "clusters": clusters,
        "credentials": CREDENTIALS,
    }
    return Dataset(**(defaults | fields))  # type: ignore[arg-type]


def shard(dataset: str, number: int, **fields: object) -> Shard:
    defaults: dict[str, object] = {
        "dataset": dataset,
        "id": f"{number:05d}",
        "leader": Address(f"db-{number % 3}", 3306),
        "database": f"{dataset}_{number:05d}",
    }
    return Shard(**(defaults | fields))  # type: ignore[arg-type]


def cluster(name: str = "main", **fields: object) -> Cluster:
    return Cluster(**({"name": name, "urls": ("http://127.0.0.1:8083",)} | fields))  # type: ignore[arg-type]


def topology(datasets: Sequence[tuple[Dataset, int]], *clusters: Cluster) -> Topology:
    return Topology(
        datasets={d.name: d for d, _ in datasets},
        shards={d.name: tuple(shard(d.name, n) for n in range(count)) for d, count in datasets},
        clusters={c.name: c for c in clusters or (cluster(),)},
    )


def config_of(dataset: Dataset, shard: Shard, cluster: Cluster) -> Mapping[str, str]:
    return {
        OWNER_KEY: "cdc",
        CLUSTER_KEY: cluster.name,
        "topic.prefix": shard.name,
        "leaders": cluster.leader_dir,
        **dataset.connector,
    }


TOPICS = (TopicRequest(name="cdc.pins.pins", partitions=4, replication=3, config={"cleanup.policy": "compact"}),)
WANTED = DesiredState(topics=TOPICS, config_of=config_of)


def connector(
    name: str,
    config: Mapping[str, str],
    *,
    state: str = "RUNNING",
    task: str | None = "RUNNING",
    worker: str = "w0:8083",
    trace: str | None = None,
) -> ObservedConnector:
    tasks = (ObservedTask(id=0, state=task, worker=worker, trace=trace),) if task else ()
    return ObservedConnector(name=name, config=config, state=state, worker=worker, tasks=tasks)


def picture(
    topology: Topology,
    clusters: Mapping[str, Mapping[str, ObservedConnector] | None] | None = None,
    topics: Mapping[str, ObservedTopic] | str | None = "empty",
) -> ObservedState:
    held = clusters if clusters is not None else {name: {} for name in topology.clusters}
    return ObservedState(
        taken_at=NOW,
        topology=topology,
        clusters={
            name: ObservedCluster(name=name, connectors=connectors, problem=None if connectors is not None else "down")
            for name, connectors in held.items()
        },
        topics={} if isinstance(topics, str) else topics,
    )


def after(before: Memory, planned: Planned, *kinds: type[Record]) -> Memory:
    """What the pass after this one remembers; with `kinds`, only these changed."""
    records: dict[type[Record], dict[str, Any]] = {kind: dict(found) for kind, found in before.records.items()}
    for kind, name, record in planned.changes.items():
        if not kinds or kind in kinds:
            records.setdefault(kind, {})[name] = record
    return Memory(
        {
            kind: {name: record for name, record in found.items() if record is not None}
            for kind, found in records.items()
        }
    )


def simulate(before: ObservedState, plan: Plan) -> ObservedState:
    """What Connect and Kafka would show after the plan was applied without a fault."""
    clusters = {name: dict(c.connectors) for name, c in before.clusters.items() if c.connectors is not None}
    topics = dict(before.topics or {})
    for action in plan.actions:
        match action:
            case CreateTopic(topic=t):
                topics[t.name] = ObservedTopic(
                    name=t.name, partitions=t.partitions, replication=t.replication, config=dict(t.config)
                )
            case AddPartitions():
                topics[action.topic] = replace(topics[action.topic], partitions=action.total)
            case AlterTopic():
                held = topics[action.topic]
                wanted = {key: value for key, (_, value) in action.changes.items()}
                topics[action.topic] = replace(held, config={**(held.config or {}), **wanted})
            case CreateConnector() | UpdateConnector():
                old = clusters[action.cluster].get(action.name)
                fresh = connector(action.name, {**action.config, "name": action.name})
                state = old.state if old and old.state in ("PAUSED", "STOPPED") else "RUNNING"
                clusters[action.cluster][action.name] = replace(fresh, state=state)
            case RestartConnector() | ResumeConnector() | StopAndResumeConnector():
                old = clusters[action.cluster][action.name]
                clusters[action.cluster][action.name] = connector(action.name, old.config)
            case MigrateConnector():
                del clusters[action.source][action.name]
                clusters[action.target][action.name] = connector(action.name, action.config)
            case DeleteConnector():
                del clusters[action.cluster][action.name]
            case _:
                raise AssertionError(f"the simulator does not know how to {action.sentence()}")
    return replace(
        before,
        topics=topics if before.topics is not None else None,
        clusters={
            name: replace(c, connectors=clusters[name]) if name in clusters else c
            for name, c in before.clusters.items()
        },
    )


@st.composite
def worlds(draw: st.DrawFn) -> ObservedState:
    """Topologies of 1 to 3 datasets and 1 to 3 clusters, with any drift a hand or a crash could make."""
    names = draw(st.lists(st.sampled_from(["east", "main", "west"]), min_size=1, max_size=3, unique=True))
    clusters = [cluster(n, capacity=draw(st.integers(1, 12)), draining=draw(st.booleans())) for n in names]
    sizes: list[tuple[Dataset, int]] = []
    for name in draw(st.lists(st.sampled_from(["pins", "orders", "users"]), min_size=1, max_size=3, unique=True)):
        allowed = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))
        override = draw(st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["1", "2"]), max_size=2))
        sizes.append((dataset(name, tuple(allowed), connector=override), draw(st.integers(0, 6))))
    ideal = topology(sizes, *clusters)
    held: dict[str, dict[str, ObservedConnector] | None] = {}
    everyone = [s for _, s in ideal.all_shards()]
    strays = [shard("pins", n) for n in (90, 91)]
    for c in clusters:
        if draw(st.integers(0, 9)) == 0:
            held[c.name] = None
            continue
        inside: dict[str, ObservedConnector] = {}
        for s in everyone + strays:
            if not draw(st.booleans()):
                continue
            owner = ideal.datasets.get(s.dataset) or dataset(s.dataset)
            config = dict(config_of(owner, s, c))
            drift = draw(st.sampled_from(["none", "value", "extra", "missing", "stranger"]))
            if drift == "value":
                config["leaders"] = "/elsewhere"
            elif drift == "extra":
                config["left"] = "over"
            elif drift == "missing":
                del config["topic.prefix"]
            elif drift == "stranger":
                del config[OWNER_KEY]
            state = draw(st.sampled_from(["RUNNING", "RUNNING", "FAILED", "PAUSED", "STOPPED"]))
            task = draw(st.sampled_from(["RUNNING", "FAILED"])) if state == "RUNNING" else None
            inside[s.name] = connector(s.name, config, state=state, task=task, trace="Connection refused")
        held[c.name] = inside
    topics = draw(
        st.sampled_from(
            [
                None,
                {},
                {TOPICS[0].name: ObservedTopic(name=TOPICS[0].name, partitions=2, replication=1)},
                {TOPICS[0].name: ObservedTopic(name=TOPICS[0].name, partitions=9, replication=3)},
            ]
        )
    )
    return picture(ideal, held, topics)
