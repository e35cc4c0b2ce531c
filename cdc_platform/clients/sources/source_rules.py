"""What an operator demands of source servers before a login goes there: for control plane, agents and proof alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cdc_platform.connectors.source_servers import is_permitted_host
from cdc_platform.errors import LoginRefused
from cdc_platform.model.topology import Address
from cdc_platform.settings import Settings

SCRAM = "scram-sha-256"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRules:
    """As the settings of these names, with `source_` in front; see `Settings`."""

    hosts: tuple[str, ...] = ("*",)
    ca: str = ""
    postgres_auth: str = SCRAM

    @classmethod
    def of(cls, settings: Settings, hosts: Sequence[str] = ()) -> SourceRules:
        """Those of the settings; `hosts` in place of theirs."""
        return cls(
            hosts=tuple(hosts) or settings.source_hosts, ca=settings.source_ca, postgres_auth=settings.postgres_auth
        )

    def permits(self, host: str) -> bool:
        """True when logins may go to this host."""
        return is_permitted_host(host, self.hosts)

    def check(self, server: Address) -> None:
        """Raises LoginRefused for a host that no pattern names: nothing is sent there."""
        if not self.permits(server.host):
            raise LoginRefused(
                "no login goes to this host.",
                where=str(server),
                field="source_hosts",
                cure="Correct the topology, or add the host to source_hosts of control plane and agents.",
            )

    def postgres_options(self) -> dict[str, Any]:
        """Of psycopg.connect."""
        return {"sslmode": "verify-full", "sslrootcert": self.ca} if self.ca else {}

    def mysql_options(self) -> dict[str, Any]:
        """Of pymysql.connect."""
        return {"ssl_ca": self.ca, "ssl_verify_cert": True, "ssl_verify_identity": True} if self.ca else {}


ANY = SourceRules()
