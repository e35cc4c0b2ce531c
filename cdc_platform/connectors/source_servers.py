"""What an operator demands of source servers: which hosts they may be, and TLS, in the options of connectors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

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
    """True when a pattern names the host; case is ignored.

    `*` stands for any text; at the end of a pattern for one without a dot, or who owns a domain would have a host
    of any beginning in it (`db-*` and `db-1.evil.example`). `10.0.*` names addresses only. `*` alone is every host.
    """
    name = host.lower().strip("[]")
    return any(_expression(pattern).fullmatch(name) is not None for pattern in patterns)


@lru_cache(maxsize=4096)
def _expression(pattern: str) -> re.Pattern[str]:
    begin, star, end = pattern.lower().strip("[]").rpartition("*")
    parts = [re.escape(part) for part in begin.split("*")]
    if not star or end or not begin:
        last = ".*" if star else ""
    else:
        last = "[0-9.]*" if re.fullmatch(r"[0-9.]+", begin) else "[^.]*"
    return re.compile(f"{'.*'.join(parts)}{last}{re.escape(end)}", re.DOTALL)


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
