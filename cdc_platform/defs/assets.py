"""External asset specs: topics, the shards of each dataset, the audit frames, and the platform."""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from cdc_platform.defs.audit_asset import audit_spec
from cdc_platform.defs.translator import CdcTableProps, CdcTranslator, platform_spec, shards_spec
from cdc_platform.defs.watched_assets import WatchedProps, watched_specs


def build_cdc_assets(
    *,
    tables: Iterable[CdcTableProps],
    platform: str = "cdc",
    translator: CdcTranslator | None = None,
    problem: str | None = None,
    watched: Iterable[WatchedProps] = (),
    shards: bool = True,
) -> list[dg.AssetSpec]:
    """The specs of all topics, of their datasets' shards, of their audit frames, and of the platform itself.

    Args:
        tables: from `load_tables(resource=...)`, or of your own making.
        platform: the platform's name, the first part of each key.
        translator: names, groups and tags; `CdcTranslator` by default.
        problem: what is wrong with the list of tables, shown on the platform's asset.
        watched: connectors that others made, from the same `load_tables(...)`.
        shards: False where `build_shards_assets` gives those of the shards, which can be materialized.
    """
    translator = translator or CdcTranslator()
    known = list(tables)
    datasets = {props.dataset: props for props in known}
    return [
        platform_spec(platform, problem=problem),
        *(shards_spec(props) for props in datasets.values() if shards),
        *(translator.get_asset_spec(props) for props in known),
        *(audit_spec(props, translator) for props in known),
        *watched_specs(watched, platform),
    ]
