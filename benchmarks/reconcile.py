"""One pass of the control plane, and the same reads done raw: 10,000 shards in 4 Connect clusters.

Real ZooKeeper and Kafka; Connect is the protocol-true fake that the contract
tests hold to the real one, each cluster in a process of its own. Each figure
comes from a fresh process: cold is its first pass, warm are the next ones.
"Raw" reads the same bytes with plain clients, concurrently, and decodes them. Planning is
compared with rendering all configurations and comparing them with those observed.
"""

from __future__ import annotations

import gc
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource
from kazoo.client import KazooClient

from benchmarks.fleet import HEARTBEATS_A_SHARD, SECRETS, FleetSpec, configs_of, fleet, topology_of
from benchmarks.form import Form, Goal
from benchmarks.stacks import stack_of
from cdc_platform.clients.platform import Platform
from cdc_platform.connectors.config import DesiredConfigs
from cdc_platform.connectors.topics import desired_topics
from cdc_platform.model.observed import ObservedCluster, ObservedConnector, ObservedState, ObservedTask, ObservedTopic
from cdc_platform.model.topology import Cluster
from cdc_platform.planning.canary import RolledOut
from cdc_platform.planning.drift import digest_of
from cdc_platform.planning.inputs import PassPolicy
from cdc_platform.planning.memory import Memory
from cdc_platform.planning.planner import make_plan
from cdc_platform.reconciler import run_pass as reconciler
from cdc_platform.reconciler.desired_state import desired_state, with_problems
from cdc_platform.reconciler.observe import CONFIGS_A_PASS
from cdc_platform.reconciler.process_memory import large_state
from cdc_platform.reconciler.report import PassReport
from cdc_platform.settings import Settings
from cdc_platform.wiring import open_platform

# In one process, one after another.
WARM_PASSES = 5

SIZES = {"shards": (10_000, 4_000), "clusters": (4, 4), "rounds": (3, 2), "warm": (11, 5)}

PASS_GOAL = Goal(at_most=1.3)


def run(form: Form) -> None:
    """Passes and raw reads by turns, then planning alone."""
    spec = FleetSpec(shards=form.count("shards"), clusters=form.count("clusters"))
    passes, raws = list[dict[str, Any]](), list[dict[str, Any]]()
    with (
        stack_of(form, workers=1, mariadb=False, postgres=False) as stack,
        fleet(stack, spec, f"bench{spec.shards}x{spec.clusters}") as settings,
    ):
        if form.stack is None:
            stack.stop("w0")
        _measured("seed", settings)  # the first pass ever records all shards as captured
        for _ in range(form.count("rounds")):
            raws.append(_measured("raw", settings))
            passes.append(_measured("pass", settings))
        warm = _measured("ratio", settings, str(form.count("warm")))
    raw = "the same reads, raw"
    form.compare("cold pass", "s", [one["cold"] for one in passes], [one["cold"] for one in raws],
                 other_side=raw, goal=PASS_GOAL)  # fmt: skip
    form.compare("warm pass", "s", warm["pass"], warm["raw"], other_side=raw, goal=PASS_GOAL)
    form.compare("memory of the process", "MB", [one["memory"] for one in passes], [one["memory"] for one in raws],
                 other_side=raw, goal=Goal(at_most=2.0))  # fmt: skip
    form.figure("cold pass", "CPU s", [one["cold_cpu"] for one in passes])
    form.figure("warm pass", "CPU s", [one["warm_cpu"] for one in passes])
    for phase in passes[0]["phases"]:
        form.figure(f"warm pass, {phase}", "s", [one["phases"][phase] for one in passes])
    few, many = spec.shards // 10, spec.shards
    for name, drift, goal in (
        ("planning, nothing to change", 0.0, Goal(at_most=3.0)),
        ("planning, 10 % drift", 0.1, Goal(at_most=3.5)),
    ):
        plan, configs = planning(many, drift=drift)
        form.in_turn(name, "CPU s", plan, configs, other_side="configurations rendered and compared", rounds=5,
                     goal=goal)  # fmt: skip
    small, large = planning(few, drift=0.0)[0], planning(many, drift=0.0)[0]
    form.in_turn(
        f"planning a shard of {many:,}", "CPU us", lambda: large() * 1e6 / many, lambda: small() * 1e6 / few,
        other_side=f"of {few:,}", rounds=5, goal=Goal(at_most=1.5),
    )  # fmt: skip


def _measured(what: str, settings: Settings, *more: str) -> dict[str, Any]:
    """One measurement in a fresh process."""
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.reconcile", what, json.dumps(asdict(settings)), *more],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return found


def _timed(call: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    started = clock()
    call()
    return clock() - started


def _pass(platform: Platform) -> PassReport:
    """One pass, as entry points run it."""
    return reconciler.reconcile(platform, owner="benchmark", wait_for_lock=30.0, while_planning=large_state)


def seed(settings: Settings) -> dict[str, Any]:
    """The passes that record what has been there all along."""
    with open_platform(settings) as platform:
        for _ in range(2):
            report = _pass(platform)
            print(report.sentence(), file=sys.stderr)
            for refusal in report.plan.refusals[:3]:
                print(refusal, file=sys.stderr)
    return {}


def passes(settings: Settings) -> dict[str, Any]:
    """A cold pass, warm ones, and what they needed."""
    with open_platform(settings) as platform:
        reports = []

        def one() -> None:
            reports.append(_pass(platform))

        cpu = time.process_time()
        cold = _timed(one)
        cold_cpu = time.process_time() - cpu
        cpu = time.process_time()
        warm = [_timed(one) for _ in range(WARM_PASSES)]
        cpu = (time.process_time() - cpu) / WARM_PASSES
    for report in reports:
        # A pass that saw only a part would be a fast one.
        assert not report.plan.actions and not report.plan.refusals, report.sentence()
    best = reports[1 + warm.index(min(warm))]
    return {"cold": cold, "cold_cpu": cold_cpu, "warm_cpu": cpu, "phases": dict(best.phases), "memory": _memory()}


def raw(settings: Settings) -> dict[str, Any]:
    """The same reads by plain clients: all at once, each answer decoded, nothing decided."""
    reads = _RawReads(settings)
    cold = _timed(reads.all)
    for _ in range(WARM_PASSES):
        reads.all()
    return {"cold": cold, "memory": _memory()}


def ratio(settings: Settings, rounds: str) -> dict[str, Any]:
    """Warm passes and raw reads in turn, so that both meet the same machine."""
    reads = _RawReads(settings)
    found: dict[str, list[float]] = {"pass": [], "raw": []}
    with open_platform(settings) as platform:

        def one() -> None:
            _pass(platform)

        one()
        reads.all()
        for _ in range(int(rounds)):
            found["pass"].append(_timed(one))
            found["raw"].append(_timed(reads.all))
    return found


def _memory() -> float:
    """The most that was resident, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class _RawReads:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.http: httpx.Client | None = None
        self.zookeeper: KazooClient | None = None
        self.clusters: list[dict[str, Any]] = []
        self.shards = 0
        self.next_state = 0

    def all(self) -> None:
        self._topology()
        if self.http is None:
            self.http = httpx.Client(trust_env=False, timeout=30.0)
        with ThreadPoolExecutor(32) as pool:
            reads = [pool.submit(self._connectors, cluster["urls"][0]) for cluster in self.clusters]
            reads += [pool.submit(self._metrics, url) for c in self.clusters for url in c["metrics"].values()]
            reads += [pool.submit(self._topics), pool.submit(self._heartbeats), pool.submit(self._state)]
            for read in reads:
                read.result()

    def _topology(self) -> None:
        """Once: a warm reader re-reads nothing."""
        if self.zookeeper is not None:
            return
        client = self.zookeeper = KazooClient(self.settings.zookeeper)
        client.start()
        root = self.settings.zookeeper_root
        for name in client.get_children(f"{root}/clusters"):
            self.clusters.append(json.loads(client.get(f"{root}/clusters/{name}")[0]))
        for dataset in client.get_children(f"{root}/datasets"):
            base = f"{root}/datasets/{dataset}/shards"
            waiting = [client.get_async(f"{base}/{shard}") for shard in client.get_children(base)]
            for answer in waiting:
                json.loads(answer.get()[0])
                self.shards += 1

    def _connectors(self, url: str) -> None:
        assert self.http is not None
        msgspec.json.decode(self.http.get(f"{url}/connectors?expand=info&expand=status").content)
        msgspec.json.decode(self.http.get(f"{url}/connectors").content)

    def _metrics(self, url: str) -> None:
        assert self.http is not None
        self.http.get(url).text.splitlines()

    def _topics(self) -> None:
        client = AdminClient(dict(self.settings.kafka))
        found = client.list_topics(timeout=30).topics
        own = [n for n in found if f"{self.settings.platform}." in n or n.startswith("cdc.")]
        own = own[: CONFIGS_A_PASS + 20]  # as many as a look reads
        for at in range(0, len(own), 250):
            resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in own[at : at + 250]]
            for future in client.describe_configs(resources).values():
                future.result()

    def _heartbeats(self) -> None:
        self._consume(self.settings.heartbeat_topic, HEARTBEATS_A_SHARD * self.shards)

    def _state(self) -> None:
        """Once as a whole: a warm reader goes on where it was."""
        self.next_state = self._consume(self.settings.state_topic, None, self.next_state)

    def _consume(self, topic: str, newest: int | None, start: int = 0) -> int:
        consumer = Consumer({**self.settings.kafka, "group.id": "raw", "enable.partition.eof": True})
        end: int = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10)[1]
        consumer.assign([TopicPartition(topic, 0, start if newest is None else max(0, end - newest))])
        done = False
        while not done:
            for message in consumer.consume(10_000, 0.05):
                error = message.error()
                if error is None:
                    message.key(), message.value(), message.headers(), message.timestamp()
                elif error.code() == KafkaError._PARTITION_EOF:
                    done = True
        consumer.close()
        return end


def planning(shards: int, *, drift: float) -> tuple[Callable[[], float], Callable[[], float]]:
    """`make_plan` alone, the desired state's included; and the raw work in it. Both return their CPU seconds.

    They wait for nothing, so that what else the machine does matters less.
    """
    settings = Settings(secrets_dirs=(SECRETS,))
    spec = FleetSpec(shards=shards, drift=drift)
    clusters = [Cluster(name=f"c{n}", urls=("http://127.0.0.1:1",)) for n in range(spec.clusters)]
    topology = topology_of(spec, clusters)
    worker = "10.0.0.1:8083"
    picture = ObservedState(
        taken_at=datetime.now(UTC),
        topology=topology,
        clusters={
            cluster: ObservedCluster(
                name=cluster,
                connectors={
                    name: ObservedConnector(
                        name=name,
                        # As it comes from the wire: equal strings, but not the same objects.
                        config=msgspec.json.decode(msgspec.json.encode({**config, "name": name})),
                        state="RUNNING",
                        worker=worker,
                        tasks=(ObservedTask(id=0, state="RUNNING", worker=worker),),
                    )
                    for name, config in configs.items()
                },
            )
            for cluster, configs in configs_of(topology, settings, drift).items()
        },
        topics={
            topic.name: ObservedTopic(
                name=topic.name, partitions=topic.partitions, replication=topic.replication, config=topic.config
            )
            for topic in desired_topics(topology, settings)
        },
    )

    # The configuration is no new one, so that what drifted is put right at once.
    done = {name: RolledOut(digest=digest_of(d, DesiredConfigs(settings))) for name, d in topology.datasets.items()}

    def plan() -> None:
        checked = with_problems(topology, settings)
        desired = desired_state(checked, settings)
        planned = make_plan(replace(picture, topology=checked), desired, Memory({RolledOut: done}), PassPolicy())
        assert len(planned.plan.actions) == round(shards * drift), planned.plan.sentence()

    def configs() -> None:
        render = DesiredConfigs(settings)
        differing = 0
        for dataset, shard in topology.all_shards():
            for name, cluster in picture.clusters.items():
                found = (cluster.connectors or {}).get(shard.name)
                if found is not None:
                    wanted = {**render(dataset, shard, topology.clusters[name]), "name": shard.name}
                    differing += wanted != found.config
        assert differing == round(shards * drift), differing

    def timed(call: Callable[[], None]) -> float:
        gc.collect()
        return _timed(call, time.process_time)

    return lambda: timed(plan), lambda: timed(configs)


_CHILD: dict[str, Callable[..., dict[str, Any]]] = {"seed": seed, "pass": passes, "raw": raw, "ratio": ratio}

if __name__ == "__main__":
    what, given, *more = sys.argv[1:]
    print(json.dumps(_CHILD[what](msgspec.json.decode(given, type=Settings), *more)))
