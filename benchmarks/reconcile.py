"""What one pass of the control plane costs: 10,000 shards in 4 Connect clusters.

    python -m benchmarks reconcile [--shards N] [--stack DIR]

Real ZooKeeper and Kafka; Connect is the protocol-true fake that the contract
tests hold to the real one, each cluster in a process of its own. Each figure
comes from a fresh process: cold is its first pass, warm the best of the next.
"Raw" reads the same bytes with plain clients, concurrently, and decodes them;
the warm ratio is the median over pairs of a pass and a raw reading.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource
from kazoo.client import KazooClient

from benchmarks.fleet import HEARTBEATS_A_SHARD, FleetSpec, configs_of, fleet, topology_of
from cdc_platform.clients.platform import Platform
from cdc_platform.connectors.config import DesiredConfigs
from cdc_platform.connectors.topics import desired_topics
from cdc_platform.local.lifecycle import down, up
from cdc_platform.local.stack import Stack, StackSpec
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

WARM_PASSES = 5

GOALS = {
    "pass, cold": ("seconds", 6.0),
    "pass, warm": ("seconds", 3.0),
    "pass against raw reads, warm": ("ratio", 1.3),
    "memory of the pass's process": ("MB", 500.0),
    "planning 10 % drift": ("seconds", 0.5),
    "reader, cold": ("seconds", 1.5),
    "reader against a serial one": ("times faster", 2.5),
    "reader, warm: znodes read": ("znodes", 0.0),
}


def main(arguments: list[str]) -> int:
    """Run all; prints a table and `goal met` or `goal missed: ...` as the last line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks reconcile", description=__doc__)
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--clusters", type=int, default=4)
    parser.add_argument("--stack", type=Path, help="use the running stack of this directory")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    spec = FleetSpec(shards=asked.shards, clusters=asked.clusters)
    found: dict[str, float] = {}
    with _stack(asked.stack) as stack, fleet(stack, spec, f"bench{spec.shards}x{spec.clusters}") as settings:
        _measured("seed", settings)  # the first pass ever records 10,000 shards as captured
        found |= _measured("raw", settings)
        found |= _measured("pass", settings)
        found["pass against raw reads, cold"] = found["pass, cold"] / found["raw reads, cold"]
        found |= _measured("ratio", settings)
        found |= _measured("reader", settings)
    for shards in (1_000, 3_000, 10_000):
        found[f"planning, nothing to change, {shards} shards"] = planning(shards, drift=0.0)
    per_shard = [found[f"planning, nothing to change, {n} shards"] / n for n in (1_000, 10_000)]
    found["planning a shard, 10,000 against 1,000"] = per_shard[1] / per_shard[0]
    found["planning 10 % drift"] = planning(10_000, drift=0.1)
    return _report(found, as_json=asked.json)


def _report(found: Mapping[str, float], *, as_json: bool) -> int:
    missed = [name for name, (_, goal) in GOALS.items() if name in found and _misses(name, found[name], goal)]
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", file=sys.stderr)
    if as_json:
        print(json.dumps(found, indent=2))
    for name, value in found.items():
        unit, goal = GOALS.get(name, ("", None))
        mark = "" if goal is None else f"   goal {'>=' if 'faster' in unit else '<='} {goal:g} {unit}"
        print(f"{name:48} {value:10.3f}{mark}")
    print("goal met" if not missed else f"goal missed: {', '.join(missed)}")
    return 1 if missed else 0


def _misses(name: str, value: float, goal: float) -> bool:
    return value < goal if "faster" in GOALS[name][0] else value > goal


@contextmanager
def _stack(given: Path | None) -> Iterator[Stack]:
    if given is not None:
        yield Stack.load(given)
        return
    directory = Path(tempfile.mkdtemp(prefix="cdc-bench-"))
    stack = up(StackSpec(directory=directory, workers=1, mariadb=False, postgres=False, owned=True))
    try:
        stack.stop("w0")
        yield stack
    finally:
        down(directory, purge=True)


def _measured(what: str, settings: Settings) -> dict[str, float]:
    """One measurement in a fresh process."""
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.reconcile", what, json.dumps(asdict(settings))],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    return found


def _timed(call: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    started = clock()
    call()
    return clock() - started


def _pass(platform: Platform) -> PassReport:
    """One pass, as entry points run it."""
    return reconciler.reconcile(platform, owner="benchmark", wait_for_lock=30.0, while_planning=large_state)


def seed(settings: Settings) -> dict[str, float]:
    """The passes that record what has been there all along."""
    with open_platform(settings) as platform:
        for _ in range(2):
            report = _pass(platform)
            print(report.sentence(), file=sys.stderr)
            for refusal in report.plan.refusals[:3]:
                print(refusal, file=sys.stderr)
    return {}


def passes(settings: Settings) -> dict[str, float]:
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
    return {
        "pass, cold": cold,
        "pass, cold, CPU": cold_cpu,
        "pass, warm": min(warm),
        "pass, warm, worst": max(warm),
        "pass, warm, CPU": cpu,
        **{f"pass, warm, phase {phase}": seconds for phase, seconds in best.phases.items()},
        "memory of the pass's process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def raw(settings: Settings) -> dict[str, float]:
    """The same reads by plain clients: all at once, each answer decoded, nothing decided."""
    reads = _RawReads(settings)
    cold = _timed(reads.all)
    return {"raw reads, cold": cold, "raw reads, warm": min(_timed(reads.all) for _ in range(WARM_PASSES))}


def ratio(settings: Settings) -> dict[str, float]:
    """Warm passes and raw reads in turn, so that both meet the same machine."""
    reads = _RawReads(settings)
    ratios: list[float] = []
    with open_platform(settings) as platform:

        def one() -> None:
            _pass(platform)

        one()
        reads.all()
        for _ in range(2 * WARM_PASSES + 1):
            ratios.append(_timed(one) / _timed(reads.all))
    return {"pass against raw reads, warm": statistics.median(ratios)}


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


def reader(settings: Settings) -> dict[str, float]:
    """The topology's reader against one that asks for a znode at a time."""
    serial = _timed(lambda: _serial_reader(settings))
    with open_platform(settings) as platform:
        cpu = time.process_time()
        cold = _timed(platform.topology.load)
        cpu = time.process_time() - cpu
        warm = _timed(platform.topology.load)
    return {
        "reader, serial": serial,
        "reader, cold": cold,
        "reader, cold, CPU": cpu,
        "reader, warm": warm,
        "reader against a serial one": serial / cold,
    }


def _serial_reader(settings: Settings) -> None:
    client = KazooClient(settings.zookeeper)
    client.start()
    root = settings.zookeeper_root
    for dataset in client.get_children(f"{root}/datasets"):
        base = f"{root}/datasets/{dataset}/shards"
        for shard in client.get_children(base):
            json.loads(client.get(f"{base}/{shard}")[0])
    client.stop()
    client.close()


def planning(shards: int, *, drift: float) -> float:
    """Seconds of `make_plan` alone, the ideal state's included; the best of five.

    It waits for nothing, so they are its CPU seconds, whatever else the machine does.
    """
    settings = Settings()
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

    gc.collect()
    return min(_timed(plan, time.process_time) for _ in range(5))


_CHILD = {"seed": seed, "pass": passes, "raw": raw, "ratio": ratio, "reader": reader}

if __name__ == "__main__":
    print(json.dumps(_CHILD[sys.argv[1]](Settings(**json.loads(sys.argv[2])))))
