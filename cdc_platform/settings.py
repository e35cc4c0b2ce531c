"""Where the platform's own services are: read once, from a TOML file and the environment."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from cdc_platform.errors import SettingsError

ENV_PREFIX = "CDC_PLATFORM_"
CONFIG_ENV = "CDC_PLATFORM_CONFIG"
CONFIG_FILE = "cdc-platform.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertTarget:
    """One route of alerts: `url` is a reference to an apprise URL (it holds a secret), never the URL itself.

    `owners` and `severities` choose what goes there; empty takes all. With `watchdog` no alerts go
    there: the URL is called as long as the alert sensor lives, and whoever is behind it
    tells people when the calls stop.
    """

    url: str
    owners: tuple[str, ...] = ()
    severities: tuple[str, ...] = ()
    watchdog: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of one platform.

    `kafka` is a librdkafka configuration; `bootstrap.servers` at least.
    `worker_kafka` is Kafka as Connect workers reach it, in Java's spelling
    (security, or another `bootstrap.servers`): connectors read signals and
    keep their schema history with it, so secrets in it must be references. Times
    are seconds. `max_deletes` and `max_delete_fraction` bound what one pass may
    delete without an explicit allowance: the greater of the two holds.
    `cache_dir` may be lost, which costs time. `audit_dir` holds the history of
    verdicts: a directory, or the URI of one that pyarrow reads (`s3://...`).
    `alerts` is by route name; `dagster_url` and `runbook_url` make the links in messages.
    `zookeeper_user` and `zookeeper_password` (a reference) are digest authentication: what we
    write is then readable by that user only. `connect_user` and `connect_password` (a reference) are
    the workers' basic authentication, `connect_ca` a PEM file with who signs their certificates.
    `secrets_dirs`: datasets may name secrets in files below these directories only; empty: anywhere.
    `leader_probe` names who finds leaders (`clients/sources/leader_probes.py`).
    """

    platform: str = "cdc"
    zookeeper: str = "127.0.0.1:2181"
    zookeeper_root: str = "/cdc"
    zookeeper_user: str = ""
    zookeeper_password: str = ""
    kafka: Mapping[str, str] = field(default_factory=lambda: {"bootstrap.servers": "127.0.0.1:9092"})
    worker_kafka: Mapping[str, str] = field(default_factory=dict)
    state_topic: str = "cdc.platform.state"
    heartbeat_topic: str = "cdc.platform.heartbeat"
    secrets_dirs: tuple[str, ...] = ()
    connect_timeout: float = 20.0
    connect_user: str = ""
    connect_password: str = ""
    connect_ca: str = ""
    pass_budget: float = 240.0
    max_deletes: int = 5
    max_delete_fraction: float = 0.01
    batch_size: int = 50
    cache_dir: str = field(default_factory=lambda: str(default_cache_dir()))
    audit_dir: str = field(default_factory=lambda: str(default_audit_dir()))
    alerts: Mapping[str, AlertTarget] = field(default_factory=dict)
    dagster_url: str = ""
    runbook_url: str = ""
    leader_probe: str = "read-only"

    @property
    def connect_kafka(self) -> dict[str, str]:
        """Kafka as Connect workers reach it: Java client properties."""
        return {"bootstrap.servers": self.kafka["bootstrap.servers"], **self.worker_kafka}

    @classmethod
    def load(cls, path: Path | None = None, env: Mapping[str, str] | None = None) -> Settings:
        """Read the file (argument, else CDC_PLATFORM_CONFIG, else ./cdc-platform.toml if there), then
        the environment on top (CDC_PLATFORM_ZOOKEEPER, CDC_PLATFORM_KAFKA=host:port, ...).

        Raises:
            SettingsError: names file, field and cure.
        """
        env = os.environ if env is None else env
        named = path or (Path(env[CONFIG_ENV]) if env.get(CONFIG_ENV) else None)
        file = named or Path(CONFIG_FILE)
        raw: dict[str, Any] = {}
        if named is not None or file.exists():
            raw = _read(file)
        where = str(file)
        known = {f.name: f for f in fields(cls)}
        for key in raw:
            if key not in known:
                raise SettingsError(
                    "no such setting.", where=where, field=key, cure=f"Known: {', '.join(sorted(known))}."
                )
        for name in known:
            text = env.get(ENV_PREFIX + name.upper())
            if text is not None and name != "alerts":
                raw[name] = {"bootstrap.servers": text} if name in ("kafka", "worker_kafka") else text
                where = ENV_PREFIX + name.upper()
        return cls(**{name: _convert(value, name, where) for name, value in raw.items()})


def default_cache_dir() -> Path:
    """The user's cache directory for this program (XDG base directory rules)."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "cdc-platform"


def default_audit_dir() -> Path:
    """Where verdicts are kept: the user's data directory (XDG base directory rules)."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "cdc-platform" / "audit"


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except FileNotFoundError:
        raise SettingsError(
            "the settings file does not exist.", where=str(file), cure=f"Create it, or unset {CONFIG_ENV}."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"not valid TOML: {error}.", where=str(file), cure="Mend the file.") from None


_NUMBERS: Mapping[str, type] = {
    "connect_timeout": float,
    "pass_budget": float,
    "max_deletes": int,
    "max_delete_fraction": float,
    "batch_size": int,
}


_MAY_BE_EMPTY = frozenset(
    {"dagster_url", "runbook_url", "zookeeper_user", "zookeeper_password", "connect_user", "connect_password"}
    | {"connect_ca"}
)
# Settings are printed and stored by others: a secret is a reference here or nowhere.
_REFERENCES = frozenset({"zookeeper_password", "connect_password"})
_SECRET_OPTION = re.compile(r"password|secret|jaas|oauthbearer\.config|ssl\.key\.pem|keystore\.key")
SEVERITIES = ("warning", "critical")
_REFERENCE = re.compile(r"\$\{(file|env):[^}]+\}")


def _alerts(value: Any, where: str) -> dict[str, AlertTarget]:
    if not isinstance(value, Mapping):
        raise SettingsError(
            "is no table.", where=where, field="alerts", cure='Write [alerts.NAME] url = "${file:...}".'
        )
    found = {}
    for name, given in value.items():
        place = f"alerts.{name}"
        if not isinstance(given, Mapping):
            raise SettingsError("is no table.", where=where, field=place, cure=f"Write [{place}].")
        unknown = sorted(given.keys() - {f.name for f in fields(AlertTarget)})
        if unknown:
            cure = "Known: " + ", ".join(f.name for f in fields(AlertTarget)) + "."
            raise SettingsError("no such setting.", where=where, field=f"{place}.{unknown[0]}", cure=cure)
        url = given.get("url")
        if not isinstance(url, str) or not _REFERENCE.search(url):
            cure = "Write ${file:PATH:KEY} or ${env:NAME}, and the URL there."
            raise SettingsError("is no reference to a secret.", where=where, field=f"{place}.url", cure=cure)
        lists = {}
        for key in ("owners", "severities"):
            items = given.get(key, ())
            if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
                raise SettingsError("is no list of texts.", where=where, field=f"{place}.{key}", cure='Write ["NAME"].')
            lists[key] = tuple(items)
        wrong = sorted(set(lists["severities"]) - set(SEVERITIES))
        if wrong:
            cure = f"Use {' or '.join(SEVERITIES)}."
            raise SettingsError(f"{wrong[0]!r} is no severity.", where=where, field=f"{place}.severities", cure=cure)
        watchdog = given.get("watchdog", False)
        if not isinstance(watchdog, bool):
            raise SettingsError("is neither true nor false.", where=where, field=f"{place}.watchdog", cure="Use true.")
        found[str(name)] = AlertTarget(url=url, watchdog=watchdog, **lists)
    return found


def _kafka(value: Mapping[str, Any], name: str, where: str) -> dict[str, str]:
    found = {str(k): str(v) for k, v in value.items()}
    for option, text in found.items():
        if _SECRET_OPTION.search(option.lower()) and text and not _REFERENCE.search(text):
            cure = "Write ${file:PATH:KEY} or ${env:NAME}, and the secret there."
            raise SettingsError("is no reference to a secret.", where=where, field=f"{name}.{option}", cure=cure)
    return found


def _convert(value: Any, name: str, where: str) -> Any:
    if name == "kafka":
        if not isinstance(value, Mapping) or not value.get("bootstrap.servers"):
            raise SettingsError(
                "bootstrap.servers is missing.",
                where=where,
                field=name,
                cure='Add "bootstrap.servers" = "HOST:PORT".',
            )
        return _kafka(value, name, where)
    if name == "worker_kafka":
        if not isinstance(value, Mapping):
            raise SettingsError("is no table.", where=where, field=name, cure="Write [worker_kafka] NAME = VALUE.")
        return _kafka(value, name, where)
    if name == "alerts":
        return _alerts(value, where)
    if name == "secrets_dirs":
        dirs = [value] if isinstance(value, str) else value
        if not isinstance(dirs, list | tuple) or not all(isinstance(d, str) and d.startswith("/") for d in dirs):
            raise SettingsError("is no list of directories.", where=where, field=name, cure='Write ["/path"].')
        return tuple(dirs)
    if name in _REFERENCES and value and not (isinstance(value, str) and _REFERENCE.search(value)):
        cure = "Write ${file:PATH:KEY} or ${env:NAME}, and the password there."
        raise SettingsError("is no reference to a secret.", where=where, field=name, cure=cure)
    kind = _NUMBERS.get(name, str)
    try:
        converted = kind(value)
    except (TypeError, ValueError):
        raise SettingsError(
            f"{value!r} is no {kind.__name__}.", where=where, field=name, cure="Write a number."
        ) from None
    if kind is not str and converted < 0:
        raise SettingsError(f"{value!r} is negative.", where=where, field=name, cure="Use 0 or more.")
    if kind is str and not converted and name not in _MAY_BE_EMPTY:
        raise SettingsError("is empty.", where=where, field=name, cure="Give it a value or remove it.")
    return converted
