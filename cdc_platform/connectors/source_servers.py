"""What an operator demands of source servers: which hosts they may be, and TLS, in the options of connectors."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from cdc_platform.model.topology import Engine
from cdc_platform.settings import Settings

# With `source_ca` these follow from the settings.
TLS_OPTIONS = frozenset(
    {
        "database.ssl.mode",
        "database.ssl.truststore",
        "database.ssl.truststore.password",
        "database.sslmode",
        "database.sslrootcert",
    }
)
_MODES = {Engine.MARIADB: "verify-full", Engine.MYSQL: "verify_identity"}


def is_permitted_host(host: str, patterns: Iterable[str]) -> bool:
    """True when a pattern with `*` names the host; case is ignored."""
    return any(fnmatchcase(host.lower(), pattern.lower()) for pattern in patterns)


def tls_options(engine: Engine, settings: Settings) -> dict[str, str]:
    """Options of an engine's connector that demand and verify TLS; none without the setting `source_ca`."""
    if not settings.source_ca:
        return {}
    if engine is Engine.POSTGRES:
        return {"database.sslmode": "verify-full", "database.sslrootcert": settings.source_ca}
    trust = {
        "database.ssl.truststore": settings.source_truststore,
        "database.ssl.truststore.password": settings.source_truststore_password,
    }
    return {"database.ssl.mode": _MODES[engine], **{name: value for name, value in trust.items() if value}}
