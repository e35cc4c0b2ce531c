"""The platform as a Dagster component: one YAML file gives assets, sensor and jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import dagster as dg
from dagster.components import (
    AssetAttributesModel,
    DefsStateConfig,
    DefsStateConfigArgs,
    ResolvedDefsStateConfig,
)
from dagster.components.utils.translation import TranslationFn, TranslationFnResolver
from pydantic import Field, PrivateAttr

from cdc_platform.defs.alert_sensor import build_alert_sensor
from cdc_platform.defs.assets import build_cdc_assets
from cdc_platform.defs.bootstrap_sensor import build_bootstrap_sensor
from cdc_platform.defs.check_sensor import build_check_job, build_check_sensor
from cdc_platform.defs.checks import build_cdc_asset_checks
from cdc_platform.defs.ledger_sensor import build_ledger_sensor
from cdc_platform.defs.pass_check_sensor import build_pass_check_sensor
from cdc_platform.defs.pass_checks import build_captured_checks
from cdc_platform.defs.reconcile_job import build_cdc_jobs
from cdc_platform.defs.reconcile_sensor import build_reconcile_sensor
from cdc_platform.defs.resource import CdcPlatformResource
from cdc_platform.defs.schedules import build_verification_schedules
from cdc_platform.defs.table_inventory import Inventory, load_tables
from cdc_platform.defs.translator import CdcTableProps, CdcTranslator


class ReconcileSensorArgs(dg.Model, dg.Resolvable):
    """How often the sensor looks, and whether it does so without being switched on."""

    interval_seconds: int = Field(default=60, ge=1, description="Seconds between two looks.")
    refresh_seconds: float = Field(default=900.0, ge=0, description="At least this often all tables are observed.")
    running: bool = Field(default=True, description="Started as soon as the code location is loaded.")


class AlertSensorArgs(dg.Model, dg.Resolvable):
    """How often alerts are looked for; routes stand in the platform's settings."""

    interval_seconds: int = Field(default=30, ge=1, description="Seconds between two looks.")
    running: bool = Field(default=True, description="Started as soon as the code location is loaded.")


class BootstrapSensorArgs(dg.Model, dg.Resolvable):
    """How often shards without data are looked for, and how many are bootstrapped at once."""

    interval_seconds: int = Field(default=60, ge=1, description="Seconds between two looks.")
    max_parallel_shards: int = Field(default=16, ge=1, description="Shards that one bootstrap works on at once.")
    max_runs: int = Field(default=3, ge=1, description="Bootstraps and backfills that run at once.")
    running: bool = Field(default=True, description="Started as soon as the code location is loaded.")


class CdcPlatformScaffolder(dg.Scaffolder[Any]):
    """Writes the YAML file with the attributes that are set most often."""

    def scaffold(self, request: dg.ScaffoldRequest[Any]) -> None:
        """Called by `dg scaffold defs cdc_platform.defs.CdcPlatformComponent NAME`."""
        dg.scaffold_component(
            request,
            {
                "platform": {"zookeeper": "127.0.0.1:2181", "kafka": "127.0.0.1:9092"},
                "sensor": {"interval_seconds": 60},
            },
        )


@dg.scaffold_with(CdcPlatformScaffolder)
class CdcPlatformComponent(dg.StateBackedComponent, dg.Model, dg.Resolvable):
    """Tables of all datasets as external assets, `reconcile_sensor` and the platform's jobs.

    The list of tables is state of the code location: read from ZooKeeper when the
    code server starts, and handed from there to its runs, so that runs
    need no ZooKeeper and see the same assets as the code server. A new table needs
    a reload; a new shard does not, shards are dynamic partitions.
    """

    # Values, not factories: Dagster 1.12 cannot derive a component's schema from a factory.
    platform: CdcPlatformResource = Field(
        default=CdcPlatformResource(), description="Where ZooKeeper and Kafka are; by default as for the CLI."
    )
    sensor: ReconcileSensorArgs = ReconcileSensorArgs()
    alerts: AlertSensorArgs = AlertSensorArgs()
    bootstrap: BootstrapSensorArgs = BootstrapSensorArgs()
    policies: str | None = Field(
        default=None, description="A directory of suite files, DATASET.json: what the checks expect."
    )
    blocking: bool = Field(
        default=False, description="A critical check that fails holds back downstream assets of the same run."
    )
    data_docs: str | None = Field(
        default=None, description="A directory: each table's checks are written there as a page of Data Docs, too."
    )
    translation: Annotated[
        TranslationFn[CdcTableProps] | None,
        TranslationFnResolver[CdcTableProps](lambda props: {"props": props}, model_field_type=AssetAttributesModel),
    ] = Field(default=None, description="Changes to the assets' attributes; `props` is the table, `spec` the asset.")
    defs_state: ResolvedDefsStateConfig = DefsStateConfigArgs.legacy_code_server_snapshots()
    _found: Inventory | None = PrivateAttr(default=None)

    @property
    def defs_state_config(self) -> DefsStateConfig:
        """Kept by the code server, unless the YAML says otherwise."""
        return DefsStateConfig.from_args(self.defs_state, default_key=self._state_key())

    def _state_key(self) -> str:
        """Another for each platform: Dagster keeps the tables of all components of a deployment by this name."""
        settings = self.platform.settings()
        return f"{type(self).__name__}[{settings.platform}@{settings.zookeeper}{settings.zookeeper_root}]"

    @property
    def translator(self) -> CdcTranslator:
        """The translator with the YAML's `translation` on top; override it for a translator of your own."""
        return CdcTranslator() if self.translation is None else _Translated(self.translation)

    def write_state_to_path(self, state_path: Path) -> None:
        """The tables now, in the form that `build_defs_from_state` reads."""
        self._found = load_tables(resource=self.platform)
        state_path.write_bytes(self._found.encode())

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The definitions, wherever they are loaded.

        Outside a code server (`dagster job execute`, a test, a REPL) Dagster has no place
        that keeps our state and fails with KeyError: then the tables just read are used.
        """
        try:
            return super().build_defs(context)
        except KeyError:
            return self.build_defs_from_tables(self._found or load_tables(resource=self.platform))

    def build_defs_from_state(self, context: dg.ComponentLoadContext, state_path: Path | None) -> dg.Definitions:
        """Assets, sensor, jobs and resource from the tables at `state_path`; from ZooKeeper without one."""
        found = Inventory.decode(state_path.read_bytes()) if state_path else load_tables(resource=self.platform)
        return self.build_defs_from_tables(found)

    def build_defs_from_tables(self, found: Inventory) -> dg.Definitions:
        """The definitions for these tables."""
        translator = self.translator
        jobs = build_cdc_jobs(platform=found.platform, translator=translator)
        reconciler = build_reconcile_sensor(
            job=jobs.reconcile,
            tables=found.tables,
            minimum_interval_seconds=self.sensor.interval_seconds,
            refresh_seconds=self.sensor.refresh_seconds,
            default_status=_status(self.sensor.running),
        )
        alerts = build_alert_sensor(
            tables=found.tables,
            translator=translator,
            minimum_interval_seconds=self.alerts.interval_seconds,
            default_status=_status(self.alerts.running),
        )
        bootstraps = build_bootstrap_sensor(
            jobs=(jobs.bootstrap, jobs.backfill),
            minimum_interval_seconds=self.bootstrap.interval_seconds,
            max_parallel_shards=self.bootstrap.max_parallel_shards,
            max_runs=self.bootstrap.max_runs,
            default_status=_status(self.bootstrap.running),
        )
        ledgers = build_ledger_sensor(job=jobs.verify, tables=found.tables, default_status=_status(self.alerts.running))
        checks = build_cdc_asset_checks(
            tables=found.tables,
            platform=found.platform,
            translator=translator,
            policies=Path(self.policies) if self.policies else None,
            blocking=self.blocking,
            data_docs=Path(self.data_docs) if self.data_docs else None,
        )
        judging = build_check_job(checks=checks, platform=found.platform) if checks else None
        standing = build_pass_check_sensor(
            tables=found.tables,
            translator=translator,
            policies=Path(self.policies) if self.policies else None,
            default_status=_status(self.alerts.running),
        )
        judges = (
            [
                build_check_sensor(
                    job=judging, checks=checks, platform=found.platform, default_status=_status(self.alerts.running)
                )
            ]
            if judging
            else []
        )
        return dg.Definitions(
            asset_checks=[*checks, *build_captured_checks(tables=found.tables, platform=found.platform)],
            assets=build_cdc_assets(
                tables=found.tables,
                platform=found.platform,
                translator=translator,
                problem=found.problem,
                watched=found.watched,
            ),
            sensors=[reconciler, alerts, bootstraps, ledgers, standing, *judges],
            schedules=build_verification_schedules(job=jobs.verify, tables=found.tables),
            jobs=[*jobs, *([judging] if judging else [])],
            resources={"cdc_platform": self.platform},
        )


def _status(running: bool) -> dg.DefaultSensorStatus:
    return dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED


class _Translated(CdcTranslator):
    def __init__(self, change: TranslationFn[CdcTableProps]) -> None:
        self._change = change

    def get_asset_spec(self, props: CdcTableProps) -> dg.AssetSpec:
        return self._change(super().get_asset_spec(props), props)
