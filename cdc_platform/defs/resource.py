"""The platform as a Dagster resource."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from cdc_platform import wiring
from cdc_platform.alerting.outbox import AlertPorts
from cdc_platform.clients.platform import Platform
from cdc_platform.settings import ENV_PREFIX, Settings


class CdcPlatformResource(dg.ConfigurableResource, dg.Resolvable):  # type: ignore[type-arg]
    """Where the platform's ZooKeeper, Kafka and Connect are.

    Settings come from the TOML file and the `CDC_PLATFORM_*` environment, as for the
    command line; a field given here goes on top. Fields take `dg.EnvVar`. No field
    holds a secret: a Kafka password stands in the TOML file as a reference.
    """

    config_file: str | None = Field(
        default=None, description="The TOML file; CDC_PLATFORM_CONFIG or ./cdc-platform.toml by default."
    )
    platform_name: str | None = Field(default=None, description="The platform's name, `cdc` by default.")
    zookeeper: str | None = Field(default=None, description="HOST:PORT,HOST:PORT of ZooKeeper.")
    zookeeper_root: str | None = Field(default=None, description="The root znode, `/cdc` by default.")
    kafka: str | None = Field(default=None, description="HOST:PORT,HOST:PORT of the Kafka brokers.")
    cache_dir: str | None = Field(default=None, description="Where the last good list of tables is kept.")

    def settings(self) -> Settings:
        """The settings in force. Raises SettingsError."""
        given = {
            "PLATFORM": self.platform_name,
            "ZOOKEEPER": self.zookeeper,
            "ZOOKEEPER_ROOT": self.zookeeper_root,
            "CACHE_DIR": self.cache_dir,
        }
        env = {**os.environ, **{ENV_PREFIX + name: value for name, value in given.items() if value}}
        settings = Settings.load(Path(self.config_file) if self.config_file else None, env)
        if self.kafka:
            settings = replace(settings, kafka={**settings.kafka, "bootstrap.servers": self.kafka})
        return settings

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Raises Failure for a run that brings addresses, or a settings file, of its own.

        Dagster lets the launchpad set each field of a resource. Who may launch would choose the servers that the
        platform's logins go to.
        """
        given: Any = context.run.run_config.get("resources", {}) if context.run else {}
        fields = type(self).model_fields.keys()
        for name, one in given.items():
            config = one.get("config") if isinstance(one, dict) else None
            if isinstance(config, dict) and config and config.keys() <= fields and self._has(config):
                raise dg.Failure(
                    description=f"the run's config sets {', '.join(sorted(config))} of the resource {name}. Cure: "
                    "Launch without `resources`; the definitions and the settings say where the platform is.",
                    allow_retries=False,
                )

    def _has(self, config: dict[str, Any]) -> bool:
        # A value may be an environment variable, and is resolved here.
        return all(isinstance(value, dict) or getattr(self, field) == value for field, value in config.items())

    @contextmanager
    def platform(self) -> Iterator[Platform]:
        """All clients of the platform, closed at the end. Nothing is connected before it is used."""
        with wiring.open_platform(self.settings()) as platform:
            yield platform

    @contextmanager
    def alerts(self) -> Iterator[AlertPorts]:
        """What sending alerts needs, closed at the end."""
        with self.platform() as platform, wiring.open_alerts(platform) as ports:
            yield ports
