"""What stands around a topic: its source table upstream, and pages of other programs. Patterns, filled in a table."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from cdc_platform.defs.translator import CdcTableProps
from cdc_platform.errors import BadInput
from cdc_platform.model.naming import one_of

FIELDS = ("platform", "dataset", "table", "source_table", "topic", "engine")


def with_surroundings(
    spec: dg.AssetSpec, props: CdcTableProps, sources: str | None, links: Mapping[str, str]
) -> dg.AssetSpec:
    """The topic's asset with the asset of its source table upstream, and with links.

    Args:
        spec: the asset.
        props: the table.
        sources: the pattern of the source table's key, its parts separated by `/`; None: it has none.
        links: name to pattern of an address.

    Raises:
        BadInput: a pattern has a field that is not there.
    """
    if sources:
        key = dg.AssetKey([part for part in _filled(sources, props, "sources").split("/") if part])
        spec = spec.merge_attributes(deps=[key])
    if links:
        found = {name: dg.MetadataValue.url(_filled(text, props, f"links.{name}")) for name, text in links.items()}
        spec = spec.merge_attributes(metadata=found)
    return spec


def _filled(pattern: str, props: CdcTableProps, field: str) -> str:
    try:
        return pattern.format_map({name: getattr(props, name) for name in FIELDS})
    except KeyError as error:
        name = str(error.args[0])
        raise BadInput(f"{{{name}}} is not known.", field=field, cure=one_of(name, FIELDS, most=len(FIELDS))) from None
    except (ValueError, IndexError, AttributeError) as error:
        raise BadInput(
            f"{pattern!r} is not a pattern: {error}.", field=field, cure="Write fields as {dataset}, a brace as {{."
        ) from None
