"""Links that open a job's Launchpad with its config filled in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import dagster as dg

from cdc_platform.defs.names import Names
from cdc_platform.defs.run_kinds import RunOf

# Shards named in a link; a longer list leaves them to the job, which takes those that are found wrong.
_MOST_SHARDS = 50


@dataclass(frozen=True, slots=True)
class CodePlace:
    """Where the platform's jobs are in Dagster: address of its pages, repository, code location."""

    url: str
    repository: str
    location: str

    @classmethod
    def of(cls, run: dg.DagsterRun, url: str) -> CodePlace | None:
        """That of the run; None for one that no code location launched."""
        origin = run.remote_job_origin
        if origin is None:
            return None
        repository = origin.repository_origin
        return cls(url.rstrip("/"), repository.repository_name, repository.code_location_origin.location_name)

    def launchpad(self, job: str, op: str, config: Mapping[str, Any]) -> str:
        """The address of the job's Launchpad with this config of one op. JSON is YAML."""
        place = quote(f"{self.repository}@{self.location}", safe="@")
        text = json.dumps({"ops": {op: {"config": dict(config)}}}, indent=2)
        return f"{self.url}/locations/{place}/jobs/{job}/playground/setup?config={quote(text, safe='')}"


def repair_link(place: CodePlace, names: Names, dataset: str, table: str, shards: Sequence[str]) -> str:
    """A Markdown link to the Launchpad of the platform's `repair`: it shows what it would do, and changes nothing."""
    named = list(shards) if len(shards) <= _MOST_SHARDS else []
    config = {"dataset": dataset, "table": table, "shards": named, "apply": False}
    address = place.launchpad(names.job(RunOf.REPAIR), names.of("plan_repair"), config)
    return f"[Open the Launchpad of {names.job(RunOf.REPAIR)} for {dataset}.{table}]({address})"
