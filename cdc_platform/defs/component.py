"""The platform as a Dagster component: one YAML file gives assets, sensor and jobs."""

from __future__ import annotations

import os
from dataclasses import replace
from fnmatch import fnmatchcase
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
from pydantic import BaseModel, Field, PrivateAttr

from cdc_platform.defs.alert_sensor import build_alert_sensor
from cdc_platform.defs.assets import build_cdc_assets
from cdc_platform.defs.bootstrap_sensor import build_bootstrap_sensor
from cdc_platform.defs.check_sensor import build_check_job, build_check_sensor
from cdc_platform.defs.checks import build_cdc_asset_checks
from cdc_platform.defs.lake_asset import build_lake_assets
from cdc_platform.defs.lake_checks import build_lake_checks
from cdc_platform.defs.ledger_sensor import build_ledger_sensor
from cdc_platform.defs.names import Names
from cdc_platform.defs.pass_check_sensor import build_pass_check_sensor
from cdc_platform.defs.pass_checks import build_captured_checks
from cdc_platform.defs.prune_job import OLD, build_prune_schedule
from cdc_platform.defs.reconcile_job import build_cdc_jobs, under_old_names
from cdc_platform.defs.reconcile_sensor import build_reconcile_sensor
from cdc_platform.defs.resource import CdcPlatformResource
from cdc_platform.defs.run_kinds import RunOf
from cdc_platform.defs.schedules import build_verification_schedules
from cdc_platform.defs.shards_asset import build_shards_assets
from cdc_platform.defs.surroundings import with_surroundings
from cdc_platform.defs.table_inventory import Inventory, load_tables
from cdc_platform.defs.translator import CdcTableProps, CdcTranslator
from cdc_platform.defs.windows import build_window_assets, build_window_sensors


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


class PruneArgs(dg.Model, dg.Resolvable):
    """Which old runs of the platform's jobs are deleted once a day."""

    older_than_days: float = Field(default=OLD, ge=0, description="Runs that were created before that many days.")
    running: bool = Field(default=True, description="Started as soon as the code location is loaded.")


class TableSelectorArgs(dg.Model, dg.Resolvable):
    """Which tables are assets here, by patterns of `dataset` or `dataset.table`."""

    include: list[str] = Field(default=["*"], description="Datasets or dataset.table, with * for any text.")
    exclude: list[str] = Field(default=[], description="Of these, the ones that are left out.")

    def has(self, dataset: str, table: str) -> bool:
        """Whether the table is chosen."""
        names = (dataset, f"{dataset}.{table}")

        def any_of(patterns: list[str]) -> bool:
            return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)

        return any_of(self.include) and not any_of(self.exclude)


class ScaffoldParams(BaseModel):
    """`dg scaffold defs ... NAME --zookeeper zk:2181 --kafka kafka:9092`."""

    zookeeper: str = Field(default="{{ env.CDC_PLATFORM_ZOOKEEPER }}", description="HOST:PORT,... of ZooKeeper.")
    kafka: str = Field(default="{{ env.CDC_PLATFORM_KAFKA }}", description="HOST:PORT,... of the Kafka brokers.")
    platform_name: str = Field(default="cdc", description="The platform's name.")


class CdcPlatformScaffolder(dg.Scaffolder[ScaffoldParams]):
    """Writes the YAML file with the attributes that are set most often."""

    @classmethod
    def get_scaffold_params(cls) -> type[ScaffoldParams]:
        """What `dg scaffold defs` takes as options."""
        return ScaffoldParams

    def scaffold(self, request: dg.ScaffoldRequest[ScaffoldParams]) -> None:
        """Called by `dg scaffold defs cdc_platform.defs.CdcPlatformComponent NAME`."""
        given = request.params or ScaffoldParams()
        dg.scaffold_component(
            request,
            {
                "platform": {
                    "platform_name": given.platform_name,
                    "zookeeper": given.zookeeper,
                    "kafka": given.kafka,
                },
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
    prune: PruneArgs = PruneArgs()
    tables: TableSelectorArgs = TableSelectorArgs()
    allow_dev: bool = Field(
        default=False,
        description="In `dg dev` and `dagster dev` sensors and schedules are off unless this is set: a laptop with "
        "production's settings would change production.",
    )
    old_job_names: bool = Field(
        default=False, description="Jobs under their names without the platform as well, for one release."
    )
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
    sources: str | None = Field(
        default=None,
        description="Key of the asset of a source table, upstream of its topic: `mariadb/{dataset}/{table}`.",
    )
    links: dict[str, str] = Field(
        default={}, description="Name to address, shown on the topics' pages: `https://akhq/ui/topic/{topic}`."
    )
    defs_state: ResolvedDefsStateConfig = DefsStateConfigArgs.legacy_code_server_snapshots()
    _found: Inventory | None = PrivateAttr(default=None)
    _has_state: bool = PrivateAttr(default=False)

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
        """The translator that all definitions are made with: the component's `get_asset_spec`."""
        return _OfComponent(self)

    def get_asset_spec(self, props: CdcTableProps) -> dg.AssetSpec:
        """The asset of a table's topic, with the YAML's `translation` on top; override it for assets of your own."""
        spec = with_surroundings(CdcTranslator().get_asset_spec(props), props, self.sources, self.links)
        return spec if self.translation is None else self.translation(spec, props)

    def write_state_to_path(self, state_path: Path) -> None:
        """The tables now, in the form that `build_defs_from_state` reads."""
        self._found = load_tables(resource=self.platform)
        state_path.write_bytes(self._found.encode())

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The definitions, wherever they are loaded.

        Outside a code server (`dagster job execute`, a test, a REPL) Dagster has no place
        that keeps our state and fails with KeyError: then the tables just read are used.
        """
        self._has_state = False
        try:
            return super().build_defs(context)
        except KeyError:
            if self._has_state:
                # Of the definitions: of a translator, say.
                raise
            return self.build_defs_from_tables(self._found or load_tables(resource=self.platform))

    def build_defs_from_state(self, context: dg.ComponentLoadContext, state_path: Path | None) -> dg.Definitions:
        """Assets, sensor, jobs and resource from the tables at `state_path`; from ZooKeeper without one."""
        self._has_state = True
        found = Inventory.decode(state_path.read_bytes()) if state_path else load_tables(resource=self.platform)
        return self.build_defs_from_tables(found)

    def build_defs_from_tables(self, found: Inventory) -> dg.Definitions:
        """The definitions for those of these tables that `tables` chooses."""
        translator = self.translator
        found = replace(found, tables=tuple(one for one in found.tables if self.tables.has(one.dataset, one.table)))
        jobs = build_cdc_jobs(platform=found.platform, translator=translator, tables=found.tables)
        reconciler = build_reconcile_sensor(
            job=jobs.reconcile,
            tables=found.tables,
            chosen=self.tables.has,
            minimum_interval_seconds=self.sensor.interval_seconds,
            refresh_seconds=self.sensor.refresh_seconds,
            default_status=self._status(self.sensor.running),
        )
        alerts = build_alert_sensor(
            tables=found.tables,
            platform=found.platform,
            translator=translator,
            minimum_interval_seconds=self.alerts.interval_seconds,
            default_status=self._status(self.alerts.running),
        )
        bootstraps = build_bootstrap_sensor(
            jobs=(jobs.bootstrap, jobs.backfill),
            tables=found.tables,
            minimum_interval_seconds=self.bootstrap.interval_seconds,
            max_parallel_shards=self.bootstrap.max_parallel_shards,
            max_runs=self.bootstrap.max_runs,
            default_status=self._status(self.bootstrap.running),
        )
        ledgers = build_ledger_sensor(
            job=jobs.verify, tables=found.tables, default_status=self._status(self.alerts.running)
        )
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
            platform=found.platform,
            translator=translator,
            policies=Path(self.policies) if self.policies else None,
            default_status=self._status(self.alerts.running),
        )
        judges = (
            [
                build_check_sensor(
                    job=judging,
                    checks=checks,
                    platform=found.platform,
                    default_status=self._status(self.alerts.running),
                )
            ]
            if judging
            else []
        )
        windows = build_window_sensors(
            tables=found.tables,
            platform=found.platform,
            translator=translator,
            default_status=self._status(self.alerts.running),
        )
        old: list[Any] = []
        if self.old_job_names:
            old = [*under_old_names(job for job in jobs if job not in (jobs.doctor, jobs.prune))]
            if checks:
                old.append(build_check_job(checks=checks, platform=found.platform, name=RunOf.CHECKS.value))
        return dg.Definitions(
            asset_checks=[
                *checks,
                *build_captured_checks(tables=found.tables, platform=found.platform),
                *build_lake_checks(tables=found.tables, translator=translator),
            ],
            assets=[
                *build_cdc_assets(
                    tables=found.tables,
                    platform=found.platform,
                    translator=translator,
                    problem=found.problem,
                    watched=found.watched,
                    shards=False,
                ),
                *build_shards_assets(tables=found.tables),
                *build_lake_assets(tables=found.tables, translator=translator),
                *build_window_assets(tables=found.tables, translator=translator),
            ],
            sensors=[reconciler, alerts, bootstraps, ledgers, standing, *judges, *windows],
            schedules=[
                *build_verification_schedules(
                    job=jobs.verify, tables=found.tables, default_status=self._schedule_status(True)
                ),
                build_prune_schedule(
                    job=jobs.prune,
                    older_than_days=self.prune.older_than_days,
                    default_status=self._schedule_status(self.prune.running),
                ),
            ],
            jobs=[*jobs, *([judging] if judging else []), *old],
            resources={Names(found.platform).resource: self.platform},
        )

    def _may_run(self) -> bool:
        # Set by `dagster dev` and `dg dev` for the code servers that they start.
        return self.allow_dev or not os.environ.get("DAGSTER_IS_DEV_CLI")

    def _schedule_status(self, running: bool) -> dg.DefaultScheduleStatus:
        on = running and self._may_run()
        return dg.DefaultScheduleStatus.RUNNING if on else dg.DefaultScheduleStatus.STOPPED

    def _status(self, running: bool) -> dg.DefaultSensorStatus:
        on = running and self._may_run()
        return dg.DefaultSensorStatus.RUNNING if on else dg.DefaultSensorStatus.STOPPED


class _OfComponent(CdcTranslator):
    def __init__(self, component: CdcPlatformComponent) -> None:
        self._component = component

    def get_asset_spec(self, props: CdcTableProps) -> dg.AssetSpec:
        return self._component.get_asset_spec(props)
