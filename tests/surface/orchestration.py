"""What Dagster shows: assets, partitions, jobs and their config, sensors, schedules, checks, cursors."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import dagster as dg

from cdc_platform import defs as public
from cdc_platform.defs import CdcPlatformComponent, CdcPlatformResource
from cdc_platform.defs.ledger_sensor import proofs_wanted
from cdc_platform.defs.sensor_cursor import SensorCursor
from cdc_platform.defs.translator import CdcTableProps, shards_partition, table_props
from cdc_platform.reconciler.state_records import captured_documents
from cdc_platform.settings import Settings
from cdc_platform.verification.audit_frame import AuditFrame
from tests.defs.harness import WORLDS, Harness, HarnessResource, topology
from tests.surface.documents import state_topic
from tests.surface.samples import NOW, sample

_WORLD = "surface"
_PINS = dg.AssetKey(["cdc", "pins", "pins"])

# Tags whose value is a digest of the plan.
_OF_THE_MOMENT = frozenset({"cdc/plan"})

# Fields of the component whose form is Dagster's.
_OF_DAGSTER = frozenset({"translation", "defs_state"})


def definitions() -> dict[str, Any]:
    """All definitions of one code location with a dataset of each engine."""
    with _loaded() as found:
        repository = found.get_repository_def()
        specs = sorted(found.resolve_all_asset_specs(), key=lambda spec: spec.key.to_user_string())
        jobs = [job for job in repository.get_all_jobs() if not job.name.startswith("__")]
        return {
            "assets": {spec.key.to_user_string(): _asset(spec) for spec in specs},
            "checks": _checks(repository),
            "jobs": {job.name: _job(job) for job in jobs},
            "sensors": {sensor.name: _sensor(sensor) for sensor in repository.sensor_defs},
            "schedules": {schedule.name: _schedule(schedule) for schedule in repository.schedule_defs},
            "resources": sorted(repository.get_top_level_resources()),
        }


def extension_points() -> dict[str, Any]:
    """Public names of `cdc_platform.defs`, and the attributes that a YAML file of the component may have."""
    component = CdcPlatformComponent.get_model_cls()
    assert component is not None
    return {
        "names": sorted(public.__all__),
        "component": _schema(component.model_json_schema()),
        "resource": _schema(CdcPlatformResource.model_json_schema()),
        "partition_axis_of_dataset_pins": shards_partition("cdc", "pins"),
    }


def cursors() -> dict[str, Any]:
    """The cursor of each sensor that keeps one, as Dagster stores it."""
    return {"reconcile_sensor": sample(SensorCursor).dump()}


def run_requests() -> dict[str, Any]:
    """What each sensor asks for: job, tags, config, and which parts of it are there."""
    asked = {name: result.run_requests for name, result in _ticks().items()}
    asked["ledger_sensor"] = list(proofs_wanted(state_topic(), [_props("pins")], AuditFrame("audit"), NOW))
    return {
        name: [
            {
                "job": request.job_name,
                "tags": {key: value if key not in _OF_THE_MOMENT else "..." for key, value in request.tags.items()},
                "config": request.run_config,
                "checks": sorted(str(key.name) for key in request.asset_check_keys or ()),
                "key": None if request.run_key is None else re.sub(r"[0-9a-f]{16,}", "HASH", request.run_key),
            }
            for request in found or ()
        ]
        for name, found in asked.items()
    }


def _props(table: str) -> CdcTableProps:
    return next(one for one in table_props(topology(), platform="cdc") if one.table == table)


def _ticks() -> dict[str, dg.SensorResult]:
    """One tick of each sensor that asks for runs: nothing is captured yet but one shard, whose table was verified."""
    found: dict[str, dg.SensorResult] = {}
    with _loaded() as loaded, dg.DagsterInstance.ephemeral() as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization(dg.AssetKey([*_PINS.path, "audit"])))
        with WORLDS[_WORLD].platform() as platform:
            platform.state.claim(1)
            platform.state.write(captured_documents({"pins.00000": "main"}, {}, NOW, 1))
        for name in ("reconcile_sensor", "bootstrap_sensor", "checks_sensor"):
            sensor = loaded.get_repository_def().get_sensor_def(name)
            resources = {key: HarnessResource(config_file=_WORLD) for key in sensor.required_resource_keys}
            result = sensor(dg.build_sensor_context(instance=instance, resources=resources))
            assert isinstance(result, dg.SensorResult)
            found[name] = result
    return found


@contextmanager
def _loaded() -> Iterator[dg.Definitions]:
    with tempfile.TemporaryDirectory() as directory:
        harness = Harness(settings=Settings(cache_dir=directory, audit_dir=directory))
        wanted = topology()
        pins = replace(wanted.datasets["pins"], verification={"schedule": "0 3 * * *", "scheduled_shards": 2})
        harness.put(replace(wanted, datasets={**wanted.datasets, "pins": pins}))
        WORLDS[_WORLD] = harness
        try:
            component = CdcPlatformComponent(platform=HarnessResource(config_file=_WORLD))
            yield dg.build_defs_for_component(component)
        finally:
            del WORLDS[_WORLD]


def _asset(spec: dg.AssetSpec) -> dict[str, Any]:
    axis = spec.partitions_def
    return {
        "group": spec.group_name,
        "kinds": sorted(spec.kinds),
        "owners": sorted(spec.owners),
        "tags": _own_tags(spec.tags),
        "metadata": {key: value for key, value in spec.metadata.items() if isinstance(value, str | int)},
        "partitions": axis.name if isinstance(axis, dg.DynamicPartitionsDefinition) else None,
        "deps": sorted(dep.asset_key.to_user_string() for dep in spec.deps),
        "description": spec.description,
    }


def _own_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if not key.startswith("dagster/kind/")}


def _checks(repository: dg.RepositoryDefinition) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for definition in set(repository.asset_checks_defs_by_key.values()):
        for spec in definition.check_specs:
            found[f"{spec.asset_key.to_user_string()}: {spec.name}"] = {
                "blocking": spec.blocking,
                "description": spec.description,
                "metadata": dict(spec.metadata),
            }
    return found


def _job(job: dg.JobDefinition) -> dict[str, Any]:
    whole: Any = job.run_config_schema.config_type
    sections = whole.fields
    ops = sections["ops"].config_type.fields if "ops" in sections else {}
    return {
        "description": job.description,
        "tags": dict(job.tags),
        "ops": {
            node.name: {
                "tags": dict(node.definition.tags),
                "config": _config(ops[node.name].config_type.fields.get("config")) if node.name in ops else None,
            }
            for node in job.nodes
        },
    }


def _config(field: Any) -> Any:
    """Fields with their types, whether they must be given, and their defaults."""
    if field is None:
        return None
    fields = getattr(field.config_type, "fields", None)
    if fields is None:
        return _config_type(field.config_type)
    return {
        name: {
            "type": _config_type(one.config_type),
            "required": one.is_required,
            "default": one.default_value if one.default_provided else None,
            "description": one.description,
        }
        for name, one in fields.items()
    }


def _config_type(kind: Any) -> Any:
    values = getattr(kind, "enum_values", None)
    if values is not None:
        return sorted(value.config_value for value in values)
    inner = getattr(kind, "inner_type", None)
    if getattr(kind, "scalar_type", None) is not None:
        kind = kind.scalar_type
    word = str(kind.kind).rpartition(".")[2].lower()
    return f"{word} of {_config_type(inner)}" if inner is not None else (kind.given_name or word)


def _sensor(sensor: dg.SensorDefinition) -> dict[str, Any]:
    return {
        "jobs": sorted(target.job_name for target in sensor.targets if target.job_name),
        "seconds": sensor.minimum_interval_seconds,
        "running": sensor.default_status is dg.DefaultSensorStatus.RUNNING,
        "resources": sorted(sensor.required_resource_keys),
        "description": sensor.description,
    }


def _schedule(schedule: dg.ScheduleDefinition) -> dict[str, Any]:
    return {
        "job": schedule.job_name,
        "cron": schedule.cron_schedule,
        "timezone": schedule.execution_timezone,
        "running": schedule.default_status is dg.DefaultScheduleStatus.RUNNING,
        "description": schedule.description,
    }


def _schema(document: Mapping[str, Any]) -> dict[str, Any]:
    """Field to its type and default, of a JSON schema."""
    parts = document.get("$defs", {})

    def described(one: Mapping[str, Any]) -> Any:
        if "$ref" in one:
            return fields_of(parts[one["$ref"].rpartition("/")[2]])
        if "anyOf" in one:
            return _once(described(part) for part in one["anyOf"])
        if one.get("type") == "array":
            return [described(one.get("items", {}))]
        return one.get("type", "any")

    def fields_of(one: Mapping[str, Any]) -> Any:
        if "properties" not in one:
            return one.get("enum") or one.get("const") or one.get("type")
        return {
            name: {
                "type": described(each) if name not in _OF_DAGSTER else "Dagster's own",
                "default": each.get("default"),
                "required": name in one.get("required", ()),
            }
            for name, each in one["properties"].items()
        }

    found: dict[str, Any] = fields_of(document)
    return found


def _once(found: Iterable[Any]) -> Any:
    kinds: list[Any] = []
    for one in found:
        if one not in kinds:
            kinds.append(one)
    return kinds
