"""Every setting with its type, default, environment variable and meaning: docs/settings.md, and the file of `init`.

`python -m cdc_platform.documents.settings_reference > docs/settings.md` writes the page.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, get_type_hints

from cdc_platform.settings import CONFIG_ENV, CONFIG_FILE, ENV_PREFIX, FILE_ONLY, AlertTarget, Settings

MEANINGS: Mapping[str, str] = {
    "platform": "Name of the platform, in the topics, slots and connectors that it makes.",
    "zookeeper": "ZooKeeper's servers, HOST:PORT, joined by commas.",
    "zookeeper_root": "The znode below which the platform keeps everything.",
    "zookeeper_user": "User of ZooKeeper's digest authentication; empty: none.",
    "zookeeper_password": "Its password, as a reference to a secret.",
    "zookeeper_readers": "Ids `USER:HASH` of digest authentication that may read what we write, such as agents'.",
    "zookeeper_ca": "PEM file with the authority of ZooKeeper's certificates: TLS, verified; empty: no TLS.",
    "kafka": "How the control plane reaches Kafka: librdkafka options, `bootstrap.servers` at least.",
    "worker_kafka": "How Connect workers reach it, where that differs: Java client properties.",
    "state_topic": "The topic with the platform's own records.",
    "heartbeat_topic": "The topic with the connectors' heartbeats.",
    "secrets_dirs": "Directories below which datasets' secrets lie, each in a directory of the dataset's name.",
    "source_hosts": "Hosts of leaders and replicas; no login goes elsewhere; `*` is any text, at the end without dots.",
    "source_ca": "PEM file with the authority of the source servers' certificates: TLS is then demanded and verified.",
    "source_truststore": "The same for connectors of MariaDB and MySQL, a PKCS12 file on workers; empty: Java's own.",
    "source_truststore_password": "Its password, as a reference to a secret.",
    "postgres_auth": "How Postgres servers may ask for a password, as libpq's `require_auth`.",
    "permitted_connector_options": "Further connector options that datasets may set; `*` is any text.",
    "permitted_topics": "Names of topics that datasets may have, beside `<platform>.*`; `*` is any text.",
    "adopted_topics": "Existing topics that passes may change though they did not make them; `*` is any text.",
    "permitted_lakes": "Catalogs and warehouses of datasets' lakes (docs/lake.md); `*` is names and directories.",
    "permit_sql_conditions": "Conditions of backfills may be any SQL, with the rights of the connector's user.",
    "permit_launch_overrides": "Who launches a pass may set `allow_deletes` and `accept_shrink`.",
    "connect_timeout": "Seconds for one request to a Connect worker.",
    "connect_user": "User of the workers' REST API; empty: none. Sent over https, or to loopback, only.",
    "connect_password": "Its password, as a reference to a secret.",
    "connect_ca": "PEM file with the authority that signed the workers' certificates; empty: the public ones.",
    "connect_hosts": "Hosts of the URLs of Connect workers; nothing is sent to others; `*` as in source_hosts.",
    "connect_logins": "Logins of single Connect clusters, `[connect_logins.CLUSTER]` with `user` and `password`.",
    "pass_budget": "Seconds that a pass may take: what has not begun by then is left to the next one.",
    "max_deletes": "So much a pass or an import deletes without `--allow-deletes`: this many connectors,",
    "max_delete_fraction": "or this share of all, whichever is more.",
    "batch_size": "Most connectors that a pass changes at once in one Connect cluster.",
    "cache_dir": "Directory of the proof's caches and the local stack's programs. Losing it costs time only.",
    "audit_dir": "Directory of the verdicts' history, or a URI that pyarrow reads (`s3://...`).",
    "alerts": "Routes of alerts, a table each: docs/alerts.md.",
    "dagster_url": "Dagster's address, for the links in alerts; empty: no links.",
    "runbook_url": "The runbook's address, for the links in alerts; empty: no links.",
    "leader_probe": "Who is asked for the leaders by `topology discover`: the name of an entry point.",
}  # fmt: skip

_TYPES = {str: "text", int: "whole number", float: "number", bool: "true or false"}
# Defaults that depend on the user.
_SHOWN = {"cache_dir": "~/.cache/cdc-platform", "audit_dir": "~/.local/share/cdc-platform/audit"}


def page() -> str:
    """docs/settings.md."""
    rows = "\n".join(_rows())
    return f"""# Settings
Read from the TOML file that `{CONFIG_ENV}` names, else from `{CONFIG_FILE}` in the working directory, else defaults;
on top of it from the environment. An unknown name, a wrong type and a password in plain text are refused by name.
`cdc-platform init` writes a file with all of them. Secrets are references: `${{file:/PATH:KEY}}` or `${{env:NAME}}`.

In the environment `kafka` and `worker_kafka` are HOST:PORT, and lists have one entry.

| setting | environment | type | default | meaning |
|---|---|---|---|---|
{rows}

## A route of alerts
`[alerts.NAME]`, in the file only. What the fields choose: [alerts](alerts.md).

| field | type | default |
|---|---|---|
{chr(10).join(f"| `{f.name}` | {_type(AlertTarget, f)} | {_default(f)} |" for f in fields(AlertTarget))}

<!-- Written by `python -m cdc_platform.documents.settings_reference`; a test compares them. -->
"""


def toml(chosen: Mapping[str, Any]) -> str:
    """A settings file: the chosen settings, and all others with their defaults as comments."""
    parts = [f"# cdc-platform's settings. {CONFIG_ENV} names this file; the meaning of all: docs/settings.md.\n"]
    for setting in fields(Settings):
        if setting.name in FILE_ONLY:
            continue
        value = chosen.get(setting.name, _default_value(setting))
        line = f"{setting.name} = {_toml(value)}"
        parts.append(f"\n# {MEANINGS[setting.name]}\n{'' if setting.name in chosen else '# '}{line}\n")
    return "".join(parts)


def _rows() -> Iterator[str]:
    for setting in fields(Settings):
        name = setting.name
        variable = "" if name in FILE_ONLY else f"`{ENV_PREFIX}{name.upper()}`"
        yield f"| `{name}` | {variable} | {_type(Settings, setting)} | {_default(setting)} | {MEANINGS[name]} |"


def _type(owner: type[Any], setting: Field[Any]) -> str:
    kind = get_type_hints(owner)[setting.name]
    if kind in _TYPES:
        return _TYPES[kind]
    return "list of text" if kind == tuple[str, ...] else "table"


def _default_value(setting: Field[Any]) -> Any:
    if setting.name in _SHOWN:
        return _SHOWN[setting.name]
    if setting.default is not MISSING:
        return setting.default
    return setting.default_factory() if setting.default_factory is not MISSING else None


def _default(setting: Field[Any]) -> str:
    value = _default_value(setting)
    if value is None:
        return "must be set"
    return f"`{_toml(value)}`" if value or value is False or value == 0 else "empty"


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(found)}" for key, found in value.items()) + " }"
    return json.dumps(list(value) if isinstance(value, tuple) else value)


if __name__ == "__main__":
    sys.stdout.write(page())
