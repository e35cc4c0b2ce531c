"""Everything of Dagster, thin."""

from cdc_platform.defs.alert_sensor import build_alert_sensor
from cdc_platform.defs.assets import build_cdc_assets
from cdc_platform.defs.audit_asset import audit_key
from cdc_platform.defs.bootstrap_sensor import build_bootstrap_sensor
from cdc_platform.defs.check_sensor import build_check_job, build_check_sensor
from cdc_platform.defs.checks import build_cdc_asset_checks
from cdc_platform.defs.completeness_gate import require_check
from cdc_platform.defs.component import CdcPlatformComponent
from cdc_platform.defs.lake_asset import build_lake_assets, lake_key
from cdc_platform.defs.lake_checks import build_lake_checks
from cdc_platform.defs.ledger_sensor import build_ledger_sensor
from cdc_platform.defs.pass_check_sensor import build_pass_check_sensor
from cdc_platform.defs.pass_checks import build_captured_checks
from cdc_platform.defs.ready_conditions import on_new_data, on_proof, when_captured
from cdc_platform.defs.reconcile_job import build_cdc_jobs
from cdc_platform.defs.reconcile_sensor import build_reconcile_sensor
from cdc_platform.defs.resource import CdcPlatformResource
from cdc_platform.defs.schedules import build_verification_schedules
from cdc_platform.defs.shards_asset import build_shards_assets
from cdc_platform.defs.table_inventory import Inventory, load_tables
from cdc_platform.defs.topic_input import CdcTopic, CdcTopicIOManager, FakeCdcTopicIOManager
from cdc_platform.defs.translator import CdcTableProps, CdcTranslator, shards_key
from cdc_platform.defs.windows import build_window_assets, build_window_sensors, window_partitions, windows_key

__all__ = [
    "CdcPlatformComponent",
    "CdcPlatformResource",
    "CdcTableProps",
    "CdcTopic",
    "CdcTopicIOManager",
    "CdcTranslator",
    "FakeCdcTopicIOManager",
    "Inventory",
    "audit_key",
    "build_alert_sensor",
    "build_bootstrap_sensor",
    "build_captured_checks",
    "build_cdc_asset_checks",
    "build_cdc_assets",
    "build_cdc_jobs",
    "build_check_job",
    "build_check_sensor",
    "build_lake_assets",
    "build_lake_checks",
    "build_ledger_sensor",
    "build_pass_check_sensor",
    "build_reconcile_sensor",
    "build_shards_assets",
    "build_verification_schedules",
    "build_window_assets",
    "build_window_sensors",
    "lake_key",
    "load_tables",
    "on_new_data",
    "on_proof",
    "require_check",
    "shards_key",
    "when_captured",
    "window_partitions",
    "windows_key",
]
