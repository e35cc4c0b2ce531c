"""`cdc-platform worker-properties`: print the recommended properties of a Connect worker."""

from __future__ import annotations

import json

import click

from cdc_platform.cli.grammar import old_option
from cdc_platform.cli.output import echo
from cdc_platform.connectors.java_properties import render
from cdc_platform.connectors.jmx_export import jmx_exporter_config
from cdc_platform.connectors.permitted_options import client_options
from cdc_platform.connectors.worker_properties import JVM_FLAGS, WorkerSpec, reasons, recommended
from cdc_platform.errors import BadInput
from cdc_platform.model.topology import LEADER_DIR, is_cluster_name
from cdc_platform.settings import Settings


@click.command(name="worker-properties")
@click.argument("cluster", required=False)
@old_option("--cluster", "old_cluster", "worker-properties CLUSTER")
@click.option("--bootstrap", help="Kafka as workers reach it [default: the platform's own setting].")
@click.option("--plugin-path", "plugin_path", multiple=True, help="Directory with the Debezium plugins.")
@click.option("--leader-dir", help="Directory of the leader files, the same on each worker.")
@click.option("--secrets-dir", "secrets_dirs", multiple=True, help="Directory with secrets files.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where the REST server listens.")
@click.option("--port", default=8083, show_default=True, type=click.IntRange(1, 65535), help="Its port.")
@click.option("--advertised-host", help="How other workers reach it [default: --host].")
@click.option("--group-id", help="Connect's group.id [default: cdc-connect-CLUSTER].")
@click.option(
    "--replication", default=3, show_default=True, type=click.IntRange(1, 32767), help="Of Connect's internal topics."
)
@click.option("--https", is_flag=True, help="Serve the REST API over TLS (listeners.https.ssl.* by --set).")
@click.option("--set", "extra", multiple=True, metavar="NAME=VALUE", help="One more property, or another value.")
@click.option("--jmx-exporter", is_flag=True, help="Print the Prometheus JMX agent's file instead.")
@click.option("--json", "as_json", is_flag=True, help="Print name, value and reason as JSON.")
def worker_properties(
    cluster: str | None,
    old_cluster: str | None,
    bootstrap: str | None,
    plugin_path: tuple[str, ...],
    leader_dir: str | None,
    secrets_dirs: tuple[str, ...],
    host: str,
    port: int,
    advertised_host: str | None,
    group_id: str | None,
    replication: int,
    https: bool,
    extra: tuple[str, ...],
    jmx_exporter: bool,
    as_json: bool,
) -> None:
    """Print the properties that a worker of the Connect cluster CLUSTER should run with, and why."""
    if jmx_exporter:
        click.echo(jmx_exporter_config(), nl=False)
        return
    cluster = cluster or old_cluster
    if cluster is None:
        raise click.UsageError("Missing argument 'CLUSTER'.")
    if not is_cluster_name(cluster):
        cure = "Use its name in the topology: a to z, 0 to 9, _ and -."
        raise BadInput(f"{cluster!r} is not a valid cluster.", field="CLUSTER", cure=cure)
    for option, given in (("--leader-dir", leader_dir), ("--bootstrap", bootstrap)):
        if given is not None and not given.strip():
            raise click.BadParameter("it is empty.", param_hint=option)
    for pair in extra:
        if not pair.partition("=")[0] or "=" not in pair:
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE.", param_hint="--set")
    settings = Settings.load()
    kafka = dict(settings.worker_kafka)
    reached = kafka.pop("bootstrap.servers", settings.kafka["bootstrap.servers"])
    spec = WorkerSpec(
        cluster=cluster,
        bootstrap_servers=bootstrap or reached,
        https=https,
        kafka=kafka,
        client_options=client_options(settings.permitted_connector_options),
        plugin_path=plugin_path or ("/usr/share/java",),
        leader_dir=leader_dir or LEADER_DIR,
        secrets_dirs=secrets_dirs,
        host=host,
        port=port,
        advertised_host=advertised_host,
        group_id=group_id,
        replication=replication,
        extra={name: value for name, _, value in (pair.partition("=") for pair in extra)},
    )
    if as_json:
        rows = [{"name": p.name, "value": p.value, "reason": p.reason} for p in recommended(spec)]
        echo(json.dumps({"properties": rows}, indent=2))
    else:
        properties = {p.name: p.value for p in recommended(spec)}
        echo(f"# Start the worker with KAFKA_OPTS={' '.join(JVM_FLAGS)}")
        click.echo(render(properties, reasons(spec)), nl=False)
