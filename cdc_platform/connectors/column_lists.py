"""Which columns events carry, by Debezium's lists of columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from cdc_platform.connectors.patterns import CURE, refused_pattern
from cdc_platform.connectors.tables import container
from cdc_platform.errors import OverrideRefused
from cdc_platform.model.topology import Dataset, Shard, Table

INCLUDE, EXCLUDE = "column.include.list", "column.exclude.list"


def captured_columns(
    dataset: Dataset, shard: Shard, table: Table, ignored: Collection[str] = ()
) -> Callable[[str], bool]:
    """Which columns events carry, by Debezium's column lists, less those that the policy ignores.

    The lists are regular expressions for `<database or schema>.<table>.<column>`,
    matched whole, case ignored (io.debezium.util.Strings.setOfRegex).
    Raises OverrideRefused.
    """
    overrides = {**dataset.connector, **shard.connector}
    for name in (INCLUDE, EXCLUDE):
        if (why := refused_pattern(overrides.get(name, ""))) is not None:
            raise OverrideRefused(f"{why}.", where=f"shard {shard.name}", field=f"connector.{name}", cure=CURE)
    place = f"{container(dataset, shard, table)}.{table.name}"
    lists = {
        name: [re.compile(part.strip(), re.IGNORECASE) for part in overrides[name].split(",") if part.strip()]
        for name in (INCLUDE, EXCLUDE)
        if overrides.get(name)
    }

    def captured(column: str) -> bool:
        name = f"{place}.{column}"
        if column in ignored:
            return False
        if INCLUDE in lists:
            return any(pattern.fullmatch(name) for pattern in lists[INCLUDE])
        return not any(pattern.fullmatch(name) for pattern in lists.get(EXCLUDE, ()))

    return captured
