"""Where the platform's own services are: read once, from a TOML file and the environment."""

from __future__ import annotations

import logging
import math
import os
import posixpath
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from cdc_platform.errors import SettingsError
from cdc_platform.model.name_rules import letters_from_elsewhere, not_a_server
from cdc_platform.model.naming import not_among, one_of
from cdc_platform.model.secret_references import (
    HOW_TO_REFER,
    is_reference,
    is_secret_in_plain_text,
    referred_files,
)

log = logging.getLogger(__name__)

ENV_PREFIX = "CDC_PLATFORM_"
CONFIG_ENV = "CDC_PLATFORM_CONFIG"
CONFIG_FILE = "cdc-platform.toml"
OLD_EXITS_ENV = "CDC_PLATFORM_OLD_EXIT_CODES"  # for one more release: cli/verify.py
# Settings that are tables of tables: the environment does not hold them.
FILE_ONLY = frozenset({"alerts", "connect_logins"})


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertTarget:
    """One route of alerts: `url` is a reference to an apprise URL (it holds a secret), never the URL itself.

    `owners` and `severities` choose what goes there; empty takes all. With `watchdog` no alerts go
    there: the URL is called as long as the alert sensor lives, and its receiver
    tells people when the calls stop.
    """

    url: str
    owners: tuple[str, ...] = ()
    severities: tuple[str, ...] = ()
    watchdog: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectLogin:
    """The login of one Connect cluster. `password` is a reference."""

    user: str = ""
    password: str = ""


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
    write is then readable by that user only, and by the ids `USER:HASH` of `zookeeper_readers`: agents' for the
    control plane, the control plane's for an agent. `zookeeper_ca`: a PEM file; ZooKeeper is reached by TLS.
    `connect_user` and `connect_password` (a reference) are the workers' basic authentication, `connect_ca` a PEM
    file with who signs their certificates;
    `connect_logins` has other logins for Connect clusters, by name, and `connect_hosts` patterns with `*` of
    the hosts that URLs of clusters may name.
    `source_hosts`: patterns with `*` of the hosts of leaders and replicas; no login goes to another.
    `source_ca`: a PEM file with who signs the certificates of source servers. With it TLS is demanded and
    verified, with the host's name, by control plane, agents, proof and connectors, for which Postgres reads the
    same path on the workers, MariaDB and MySQL `source_truststore` (a PKCS12 file there; empty: Java's own).
    `postgres_auth`: how Postgres servers may ask for a password, as libpq's `require_auth`.
    `secrets_dirs`: a dataset names secrets in files below `<one of these>/<dataset>/` only; empty: none
    at all. The platform's own secrets lie elsewhere.
    `permitted_connector_options`: names, or patterns with `*`, of connector options that datasets may set
    although they are not known to be harmless (`connectors/permitted_options.py`).
    `permitted_topics`: patterns with `*` of the topics that datasets may have, beside `<platform>.*`. Existing ones
    are changed only as `connectors/topic_ownership.py` says; `adopted_topics` are.
    `permitted_lakes`: catalogs and warehouses that datasets may name; `*` is names and directories.
    `permit_sql_conditions`: who launches a backfill may choose its rows by any SQL, which then runs with
    the rights of the connector's user.
    `permit_launch_overrides`: who launches a pass may let it delete beyond the guardrails.
    `leader_probe` names who finds leaders (`clients/sources/leader_probes.py`).
    """

    platform: str = "cdc"
    zookeeper: str = "127.0.0.1:2181"
    zookeeper_root: str = "/cdc"
    zookeeper_user: str = ""
    zookeeper_password: str = ""
    zookeeper_readers: tuple[str, ...] = ()
    zookeeper_ca: str = ""
    kafka: Mapping[str, str] = field(default_factory=lambda: {"bootstrap.servers": "127.0.0.1:9092"})
    worker_kafka: Mapping[str, str] = field(default_factory=dict)
    state_topic: str = "cdc.platform.state"
    heartbeat_topic: str = "cdc.platform.heartbeat"
    secrets_dirs: tuple[str, ...] = ()
    source_hosts: tuple[str, ...] = ("*",)
    source_ca: str = ""
    source_truststore: str = ""
    source_truststore_password: str = ""
    postgres_auth: str = "scram-sha-256"
    permitted_connector_options: tuple[str, ...] = ()
    permitted_topics: tuple[str, ...] = ("cdc.*",)
    adopted_topics: tuple[str, ...] = ()
    permitted_lakes: tuple[str, ...] = ()
    permit_sql_conditions: bool = False
    permit_launch_overrides: bool = True
    connect_timeout: float = 20.0
    connect_user: str = ""
    connect_password: str = ""
    connect_ca: str = ""
    connect_hosts: tuple[str, ...] = ("*",)
    connect_logins: Mapping[str, ConnectLogin] = field(default_factory=dict)
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
        if named is None and raw:
            # Who wrote this directory chooses servers, and libraries that Kafka's client loads.
            log.warning("settings are read from %s, for it is the current directory's", file.absolute())
        found = cls._values(raw, str(file))
        for setting in fields(cls):
            variable = ENV_PREFIX + setting.name.upper()
            if variable in env and setting.name not in FILE_ONLY:
                found[setting.name] = _from_environment(env[variable], setting.name, variable)
        names = {ENV_PREFIX + setting.name.upper() for setting in fields(cls)} | {CONFIG_ENV, OLD_EXITS_ENV}
        for text in not_among(names, (name for name in env if name.startswith(ENV_PREFIX))):
            log.warning("%s", text)
        settings = cls(**found)
        settings._refuse_own_secrets_among_datasets(str(file))
        return settings

    @classmethod
    def load_text(cls, text: str, where: str) -> Settings:
        """The settings of a file's text, without the environment. Raises SettingsError, which names `where`."""
        settings = cls(**cls._values(_parsed(text, where), where))
        settings._refuse_own_secrets_among_datasets(where)
        return settings

    @classmethod
    def _values(cls, raw: Mapping[str, Any], where: str) -> dict[str, Any]:
        _refuse_unknown(raw, cls, where)
        return {name: _convert(value, name, where) for name, value in raw.items()}

    @staticmethod
    def origin(env: Mapping[str, str] | None = None) -> str:
        """Where `load` reads settings, in one sentence: an error about an address is often an error about that."""
        env = os.environ if env is None else env
        if env.get(CONFIG_ENV):
            text = f"Settings were read from {env[CONFIG_ENV]}"
        elif Path(CONFIG_FILE).exists():
            text = f"Settings were read from {Path(CONFIG_FILE).absolute()}"
        else:
            text = f"No settings file was found ({CONFIG_ENV} is not set, no {CONFIG_FILE} here): defaults are used"
        own = {ENV_PREFIX + setting.name.upper() for setting in fields(Settings)} & env.keys()
        return f"{text}{', and ' + ', '.join(sorted(own)) if own else ''}."

    def _refuse_own_secrets_among_datasets(self, where: str) -> None:
        """Raises SettingsError for a secret of the platform's where a dataset might name it."""
        held = {
            "zookeeper_password": self.zookeeper_password,
            "connect_password": self.connect_password,
            **{f"connect_logins.{name}.password": login.password for name, login in self.connect_logins.items()},
            **{f"kafka.{option}": value for option, value in self.kafka.items()},
            **{f"worker_kafka.{option}": value for option, value in self.worker_kafka.items()},
            **{f"alerts.{name}.url": target.url for name, target in self.alerts.items()},
        }
        for name, text in held.items():
            for path in referred_files(text):
                for directory in self.secrets_dirs:
                    if f"{posixpath.normpath(path)}/".startswith(f"{posixpath.normpath(directory)}/"):
                        raise SettingsError(
                            f"lies below {directory}, which is for the secrets of datasets.",
                            where=where,
                            field=name,
                            cure="Move the file to another directory, such as /etc/cdc-platform/platform-secrets.",
                        )


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
        return _parsed(file.read_text(encoding="utf-8-sig"), str(file))
    except FileNotFoundError:
        raise SettingsError(
            "the settings file does not exist.",
            where=str(file),
            cure=f"Make one with `cdc-platform init`, or unset {CONFIG_ENV}.",
        ) from None
    except IsADirectoryError:
        raise SettingsError("is a directory.", where=str(file), cure=f"Name a file by {CONFIG_ENV}.") from None
    except UnicodeDecodeError:
        raise SettingsError("is not UTF-8 text.", where=str(file), cure="Save it as UTF-8.") from None


def _parsed(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"not valid TOML: {error}.", where=where, cure="Fix the file.") from None


_MAY_BE_EMPTY = frozenset(
    {"dagster_url", "runbook_url", "zookeeper_user", "zookeeper_password", "connect_user", "connect_password"}
    | {"connect_ca", "source_ca", "source_truststore", "source_truststore_password", "postgres_auth"}
)
# Settings are printed and stored by others: a secret is a reference here or nowhere.
_REFERENCES = frozenset({"zookeeper_password", "connect_password", "source_truststore_password"})
_KAFKA = frozenset({"kafka", "worker_kafka"})
SEVERITIES = ("warning", "critical")

# msgspec's words for types, and ours with what to write.
_TYPES = {
    "str": ("text", 'Write "TEXT", in quotes.'),
    "int": ("a whole number", "Write a number."),
    "float": ("a number", "Write a number."),
    "bool": ("true or false", "Write true or false."),
    "array": ("a list of text", 'Write ["TEXT"].'),
    "object": ("a table", 'Write { NAME = "VALUE" }.'),
}


def _refuse_unknown(raw: Mapping[str, Any], kind: type[Any], where: str, path: str = "") -> None:
    known = [f.name for f in fields(kind)]
    for key in raw:
        if key not in known:
            raise SettingsError(
                "no such setting.", where=where, field=path + key, cure=one_of(key, known, most=len(known))
            )


def _typed(value: Any, kind: Any, where: str, name: str) -> Any:
    """The value as this type. Raises SettingsError with the expected type; the value is not shown."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        expected = re.search(r"Expected `(\w+)", str(error))
        at = re.search(r"at `\$(.*?)`", str(error))
        must, cure = _TYPES[expected.group(1) if expected else "str"]
        inner = at.group(1) if at and not at.group(1).startswith("[...]") else ""
        raise SettingsError(f"must be {must}.", where=where, field=name + inner, cure=cure) from None


def _from_environment(text: str, name: str, where: str) -> Any:
    """A setting whose value is text, as all of the environment is."""
    kind = get_type_hints(Settings)[name]
    value: Any = text
    if name in _KAFKA:
        value = {"bootstrap.servers": text}
    elif kind == tuple[str, ...]:
        value = [text]
    elif kind is bool:
        value = {"true": True, "false": False}.get(text.lower(), text)
    elif kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            must, cure = _TYPES[kind.__name__]
            raise SettingsError(f"must be {must}.", where=where, field=name, cure=cure) from None
    return _convert(value, name, where)


def _convert(value: Any, name: str, where: str) -> Any:
    if name == "alerts":
        routes = _typed(value, dict[str, Any], where, name)
        return {route: _alert_target(given, f"alerts.{route}", where) for route, given in routes.items()}
    if name == "connect_logins":
        logins = _typed(value, dict[str, Any], where, name)
        return {cluster: _connect_login(given, f"{name}.{cluster}", where) for cluster, given in logins.items()}
    if name in _KAFKA:
        return _kafka(value, name, where)
    if name == "secrets_dirs":
        return _directories(value, name, where)
    found = _typed(value, get_type_hints(Settings)[name], where, name)
    if name in _REFERENCES and found and not is_reference(found):
        raise SettingsError("must be a reference to a secret.", where=where, field=name, cure=HOW_TO_REFER)
    if isinstance(found, int | float) and found < 0:
        raise SettingsError(f"must not be negative, but is {found}.", where=where, field=name, cure="Use 0 or more.")
    if isinstance(found, str) and not found.strip() and (found or name not in _MAY_BE_EMPTY):
        raise SettingsError("is empty.", where=where, field=name, cure="Give it a value or remove it.")
    if isinstance(found, float) and not math.isfinite(found):
        raise SettingsError(f"must be a finite number, but is {found}.", where=where, field=name, cure="Write one.")
    if name == "zookeeper":
        refuse_servers(found, name, where)
    if name == "state_topic" and not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", found):
        raise SettingsError(f"{found!r} is not a topic name.", where=where, field=name, cure="Use a-z, 0-9, . _ and -.")
    return found


def refuse_servers(text: str, name: str, where: str | None = None) -> None:
    """Raises SettingsError for a list of servers that none could be reached by: it would be waited for."""
    if (wrong := not_a_server(text)) is not None:
        message = f"{wrong!r} is not an address{letters_from_elsewhere(wrong)}."
        raise SettingsError(message, where=where, field=name, cure="Write HOST:PORT,HOST:PORT.")


def _alert_target(given: Any, place: str, where: str) -> AlertTarget:
    given = _typed(given, dict[str, Any], where, place)
    _refuse_unknown(given, AlertTarget, where, f"{place}.")
    hints = get_type_hints(AlertTarget)
    found = {key: _typed(value, hints[key], where, f"{place}.{key}") for key, value in given.items()}
    if not is_reference(found.get("url", "")):
        cure = "Write ${file:/PATH:KEY} or ${env:NAME}, and the whole URL there."
        raise SettingsError("must be a reference to a secret.", where=where, field=f"{place}.url", cure=cure)
    for severity in found.get("severities", ()):
        if severity not in SEVERITIES:
            cure = f"Use {' or '.join(SEVERITIES)}."
            raise SettingsError(f"{severity!r} is not a severity.", where=where, field=f"{place}.severities", cure=cure)
    return AlertTarget(**found)


def _connect_login(given: Any, place: str, where: str) -> ConnectLogin:
    given = _typed(given, dict[str, Any], where, place)
    _refuse_unknown(given, ConnectLogin, where, f"{place}.")
    found = {key: _typed(value, str, where, f"{place}.{key}") for key, value in given.items()}
    if not found.get("user"):
        raise SettingsError("is missing.", where=where, field=f"{place}.user", cure="Name the user.")
    if not is_reference(found.get("password", "")):
        raise SettingsError(
            "must be a reference to a secret.", where=where, field=f"{place}.password", cure=HOW_TO_REFER
        )
    return ConnectLogin(**found)


def _kafka(value: Any, name: str, where: str) -> dict[str, str]:
    """A client's options. Numbers and true or false may be written as such."""
    found: dict[str, str] = {}
    for option, given in _typed(value, dict[str, Any], where, name).items():
        text = str(given) if isinstance(given, int | float) else given
        found[option] = _typed(text.lower() if isinstance(given, bool) else text, str, where, f"{name}.{option}")
        if text and is_secret_in_plain_text(option, found[option]):
            raise SettingsError(
                "must be a reference to a secret.", where=where, field=f"{name}.{option}", cure=HOW_TO_REFER
            )
    if servers := found.get("bootstrap.servers"):
        refuse_servers(re.sub(r"[A-Za-z_]+://", "", servers), f"{name}.bootstrap.servers", where)
    elif name == "kafka":
        raise SettingsError(
            "bootstrap.servers is missing.", where=where, field=name, cure='Add "bootstrap.servers" = "HOST:PORT".'
        )
    return found


def _directories(value: Any, name: str, where: str) -> tuple[str, ...]:
    found: tuple[str, ...] = _typed([value] if isinstance(value, str) else value, tuple[str, ...], where, name)
    if not all(directory.startswith("/") for directory in found):
        raise SettingsError("must be absolute directories.", where=where, field=name, cure='Write ["/path"].')
    return found
