"""A Dagster with one code location, driven by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from cdc_platform.defs import CdcPlatformComponent, CdcPlatformResource
from cdc_platform.defs.names import Names
from cdc_platform.defs.reconcile_sensor import SENSOR
from cdc_platform.defs.run_kinds import RunOf


class CodeLocation:
    """A Dagster with one code location: tick, run, look."""

    def __init__(self, resource: CdcPlatformResource, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.resource = resource
        self.names = Names(resource.settings().platform)
        self.defs = dg.build_defs_for_component(CdcPlatformComponent(platform=resource))
        self.cursor: str | None = None

    def tick(self) -> dg.SensorResult:
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={self.names.resource: self.resource}
        )
        result = self.defs.get_repository_def().get_sensor_def(self.names.of(SENSOR))(context)
        assert isinstance(result, dg.SensorResult)
        if result.cursor is not None:
            self.cursor = result.cursor
        return result

    def run(self, config: Mapping[str, Any] | None = None) -> dg.ExecuteInProcessResult:
        return self.defs.resolve_job_def(self.names.job(RunOf.RECONCILE)).execute_in_process(
            instance=self.instance, run_config=config, raise_on_error=False
        )

    def pass_(self) -> dg.ExecuteInProcessResult:
        """One tick, and the run it asked for."""
        result = self.tick()
        assert result.run_requests, result.skip_reason
        return self.run(result.run_requests[0].run_config)

    def messages(self, run: dg.ExecuteInProcessResult) -> list[str]:
        return [event.user_message for event in self.instance.all_logs(run.run_id)]

    def observation(self, key: dg.AssetKey) -> dg.AssetObservation:
        records = self.instance.fetch_observations(key, limit=1).records
        assert records, f"no observation of {key}"
        found = records[0].asset_observation
        assert found is not None
        return found

    def materialized(self, key: dg.AssetKey) -> list[str]:
        """The partitions that were materialized, as often as they were."""
        records = self.instance.fetch_materializations(key, limit=1000).records
        return sorted(record.partition_key for record in records if record.partition_key is not None)

    def quiet(self) -> str:
        """Ticks until nothing is asked for any more; at most a few runs may be needed for that."""
        for _ in range(4):
            result = self.tick()
            if not result.run_requests:
                assert result.skip_reason is not None
                return str(result.skip_reason.skip_message)
            assert self.run(result.run_requests[0].run_config).success
        raise AssertionError(f"still asks for runs: {result.run_requests}")
