"""Options of drivers, Kafka clients, TLS and lineage that a dataset may set: those known to be harmless.

Below these prefixes an option can name a class, a file, a server or a config provider of the worker, or switch TLS
off, and new ones come with each release of a driver: so what is not listed here is refused. An operator permits
more for all datasets with the setting `permitted_connector_options`. References to secrets stand under options that
are credentials only: elsewhere Connect or a driver may print the resolved value in an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import lru_cache

SETTING = "permitted_connector_options"

# Java producers: sizes, times and compression.
PRODUCER_OPTIONS = frozenset(
    {
        "batch.size",
        "buffer.memory",
        "compression.gzip.level",
        "compression.lz4.level",
        "compression.type",
        "compression.zstd.level",
        "connections.max.idle.ms",
        "delivery.timeout.ms",
        "linger.ms",
        "max.block.ms",
        "max.request.size",
        "metadata.max.age.ms",
        "metadata.max.idle.ms",
        "receive.buffer.bytes",
        "reconnect.backoff.max.ms",
        "reconnect.backoff.ms",
        "request.timeout.ms",
        "retries",
        "retry.backoff.max.ms",
        "retry.backoff.ms",
        "send.buffer.bytes",
        "socket.connection.setup.timeout.max.ms",
        "socket.connection.setup.timeout.ms",
    }
)
# Set in every connector's config by the platform, and by no dataset.
PLATFORM_PRODUCER_OPTIONS = frozenset({"acks", "enable.idempotence"})

_HARMLESS = frozenset(
    {
        "database.query.timeout.ms",
        "database.server.id",
        "database.ssl.keystore.password",
        "database.ssl.mode",
        "database.ssl.truststore.password",
        "database.sslmode",
        "database.sslpassword",
        "database.tcpKeepAlive",
        "driver.ApplicationName",
        "driver.cachePrepStmts",
        "driver.connectTimeout",
        "driver.defaultRowFetchSize",
        "driver.loginTimeout",
        "driver.prepStmtCacheSize",
        "driver.prepStmtCacheSqlLimit",
        "driver.prepareThreshold",
        "driver.receiveBufferSize",
        "driver.sendBufferSize",
        "driver.socketTimeout",
        "driver.tcpKeepAlive",
        "driver.tcpNoDelay",
        "schema.history.internal.store.only.captured.databases.ddl",
        "schema.history.internal.store.only.captured.tables.ddl",
    }
    | {f"producer.override.{option}" for option in PRODUCER_OPTIONS}
)
_WORD = re.compile(r"-?[A-Za-z0-9_][A-Za-z0-9_ -]{0,63}")
_GUARDED = (
    "admin.",
    "config.providers",
    "consumer.",
    "database.",
    "driver.",
    "openlineage.",
    "producer.",
    "sasl.",
    "schema.history.",
    "security.",
    "ssl.",
)
# Beyond the prefixes: what names a class, a file, a server or a program, whatever it belongs to.
_NAMES_CODE_OR_PLACE = re.compile(
    r"(^|[._])(class(es|name|path)?|providers?|interceptors?|reporters?|factory|plugins?|loader"
    r"|files?|path|dir|directory|location|urls?|uris?|hosts?|hostname|servers|bootstrap|command|jndi)($|[._])"
    r"|(Class|Factory|File|Path|Url|Host|Plugin|Provider)s?$",
    re.IGNORECASE,
)
# The ways of these options that encrypt, and the two that also know whom they talk to.
_TLS_MODES = {
    # MySQL's words, then MariaDB's.
    "database.ssl.mode": ("required", "verify_ca", "verify_identity", "trust", "verify-ca", "verify-full"),
    "database.sslmode": ("require", "verify-ca", "verify-full"),
}
# Files of TLS: below the dataset's own directory of secrets only.
_TLS_FILES = frozenset(
    {
        "database.ssl.keystore",
        "database.ssl.truststore",
        "database.sslcert",
        "database.sslkey",
        "database.sslrootcert",
    }
)


def names_tls_file(option: str) -> bool:
    """True for options whose value is a file of certificates or keys on the worker."""
    return option in _TLS_FILES


@lru_cache(maxsize=4096)
def not_permitted(option: str, permitted: tuple[str, ...] = ()) -> bool:
    """True when a dataset may not set the option, because it is not known to be harmless.

    Args:
        permitted: what the operator permits beside, as names or patterns with `*`.
    """
    name = option.strip()
    if name in _HARMLESS or name in _TLS_FILES or is_permitted(option, permitted):
        return False
    return name.startswith(_GUARDED) or _NAMES_CODE_OR_PLACE.search(name) is not None


def names_something(option: str, value: str) -> bool:
    """True when the value of a harmless option is more than a number or a word, as a class, a host or a file is."""
    return option.strip() in _HARMLESS and _WORD.fullmatch(value) is None


def is_permitted(option: str, permitted: Iterable[str]) -> bool:
    """True when the operator permits the option by name or pattern."""
    return any(fnmatchcase(option, pattern) for pattern in permitted)


def client_options(permitted: Iterable[str]) -> tuple[str, ...]:
    """The producer options among what the operator permits, for the workers' own list, which takes no patterns."""
    prefix = "producer.override."
    return tuple(o.removeprefix(prefix) for o in permitted if o.startswith(prefix) and "*" not in o)


def weak_tls_mode(option: str, value: str) -> tuple[str, ...] | None:
    """The modes that encrypt, when the option is a mode of TLS and its value is none of them."""
    modes = _TLS_MODES.get(option.strip())
    strong = modes is None or value.lower().replace("-", "_") in {mode.replace("-", "_") for mode in modes}
    return None if strong else modes
