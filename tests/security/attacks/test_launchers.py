"""Who may launch a run of Dagster chooses its config: no server, no file and no directory of the platform's."""

# Without `from __future__ import annotations`: Dagster reads the types of an op that is made inside a function.

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import dagster as dg
import pytest

from cdc_platform.defs.checks import CheckConfig
from cdc_platform.defs.launchpad_fields import Choices, job_fields, option_fields
from cdc_platform.defs.reconcile_job import ReconcileConfig, _check_overrides
from cdc_platform.defs.resource import CdcPlatformResource
from cdc_platform.defs.verification_jobs import RepairConfig, VerifyConfig
from cdc_platform.settings import Settings
from cdc_platform.snapshots.request import RunKind
from cdc_platform.snapshots.request_options import options_of

HOSTILE: list[Mapping[str, Any]] = [
    {"config_file": "/tmp/evil.toml"},
    {"kafka": "evil.example:9092"},
    {"zookeeper": "evil.example:2181"},
    {"zookeeper": {"env": "EVIL"}},
    {"cache_dir": "/etc"},
    {"zookeeper": "ours:1", "platform_name": "theirs"},
]


def run(config: Mapping[str, Any]) -> tuple[list[str], str]:
    """What an op of ours saw for ZooKeeper, and what the run said when it failed."""
    seen: list[str] = []

    @dg.op
    def look(cdc_platform: CdcPlatformResource) -> None:
        seen.append(cdc_platform.settings().zookeeper)

    @dg.job(resource_defs={"cdc_platform": CdcPlatformResource(zookeeper="ours:1")})
    def job() -> None:
        look()

    found = job.execute_in_process(run_config=dict(config), raise_on_error=False)
    failed = [e for e in found.all_events if e.is_failure]
    return seen, " ".join(str(e.event_specific_data) for e in failed)


@pytest.mark.parametrize("hostile", HOSTILE, ids=str)
def test_a_run_brings_no_address_and_no_settings_file(monkeypatch: pytest.MonkeyPatch, hostile: Any) -> None:
    monkeypatch.setenv("EVIL", "evil.example:2181")
    seen, said = run({"resources": {"cdc_platform": {"config": hostile}}})
    assert seen == []
    assert "Launch without `resources`" in said


def test_a_run_without_resources_has_the_definitions_own() -> None:
    assert run({}) == (["ours:1"], "")


def test_run_configs_name_no_directory() -> None:
    fields = [name for kind in (CheckConfig, ReconcileConfig, RepairConfig, VerifyConfig) for name in kind.model_fields]
    fields += [
        name for kind in RunKind for name in {**option_fields(options_of(kind), Choices()), **job_fields(Choices())}
    ]
    assert [name for name in fields if any(word in name for word in ("dir", "file", "path", "url", "server"))] == []
    assert CheckConfig.model_fields["data_docs"].annotation is bool


@pytest.mark.parametrize("config", [{"allow_deletes": 9}, {"accept_shrink": True}], ids=str)
def test_an_operator_can_keep_launchers_within_the_guardrails(config: Any) -> None:
    own = replace(Settings(), permit_launch_overrides=False)
    with pytest.raises(dg.Failure, match="permit_launch_overrides"):
        _check_overrides(ReconcileConfig(**config), own)
    _check_overrides(ReconcileConfig(**config), Settings())
    _check_overrides(ReconcileConfig(), own)
    assert own.permit_launch_overrides is False
