"""Assets of the captured tables."""

from __future__ import annotations

from dataclasses import replace

import dagster as dg
import pytest

from cdc_platform.defs import CdcTableProps, CdcTranslator, build_cdc_assets
from cdc_platform.defs.translator import group_of, table_props
from tests.defs.harness import topology

TABLES = table_props(topology(), platform="cdc")


def test_one_external_asset_for_each_table_and_one_for_the_platform() -> None:
    specs = build_cdc_assets(tables=TABLES)
    assert [spec.key.to_user_string() for spec in specs] == [
        "cdc/platform",
        "cdc/orders/shards",
        "cdc/pins/shards",
        "cdc/orders/orders",
        "cdc/pins/pins",
        "cdc/pins/boards",
        "cdc/orders/orders/audit",
        "cdc/pins/pins/audit",
        "cdc/pins/boards/audit",
    ]
    dg.Definitions.validate_loadable(dg.Definitions(assets=specs))


def test_an_asset_says_where_its_topic_is_and_what_it_holds() -> None:
    spec = CdcTranslator().get_asset_spec(TABLES[0])
    assert spec.key == dg.AssetKey(["cdc", "orders", "orders"])
    assert spec.kinds == {"kafka", "postgres"}
    assert spec.group_name == group_of("cdc", "orders")
    assert spec.metadata["dagster/uri"] == "kafka://cdc.orders.orders"
    assert spec.metadata["source_table"] == "public.orders"
    assert "cdc.orders.orders" in (spec.description or "")
    assert spec.partitions_def is None
    (shards,) = [one for one in build_cdc_assets(tables=TABLES) if one.key == dg.AssetKey(["cdc", "orders", "shards"])]
    assert [dep.asset_key for dep in spec.deps] == [shards.key]
    assert isinstance(shards.partitions_def, dg.DynamicPartitionsDefinition)
    assert shards.partitions_def.name == "cdc_orders_shards"


def test_owners_take_a_form_that_dagster_accepts() -> None:
    owners = CdcTranslator().get_asset_spec(TABLES[0]).owners
    assert list(owners) == ["team:data-platform", "ann@example.org"]
    odd = replace(TABLES[0], owners=("", "team:", " team:x ", "bob", "o'neil@corp.com", "a@b", "two words"))
    assert list(CdcTranslator().get_asset_spec(odd).owners) == ["team:x", "team:bob", "team:two words"], (
        "a bad owner costs one owner"
    )


def test_two_platforms_in_one_instance_have_axes_of_their_own() -> None:
    assert table_props(topology(), platform="eu")[0].shards_partition == "eu_orders_shards"


def test_a_translator_of_ones_own_names_the_assets() -> None:
    class Renamed(CdcTranslator):
        def get_asset_spec(self, props: CdcTableProps) -> dg.AssetSpec:
            return super().get_asset_spec(props).replace_attributes(key=["raw", props.table])

    specs = build_cdc_assets(tables=TABLES, translator=Renamed())
    assert dg.AssetKey(["raw", "boards"]) in {spec.key for spec in specs}


def test_downstream_assets_depend_on_a_table_by_key() -> None:
    @dg.asset(deps=[dg.AssetKey(["cdc", "pins", "pins"])])
    def popular_pins() -> None: ...

    specs = {spec.key: spec for spec in build_cdc_assets(tables=TABLES)}
    defs = dg.Definitions(assets=[*specs.values(), popular_pins])
    graph = defs.resolve_asset_graph()
    (table,) = graph.get(popular_pins.key).parent_keys
    # Dagster would make a stub of a key that is nobody's: this is our table, with all that we say of it.
    assert graph.get(table).metadata.items() >= specs[table].metadata.items() > set()


@pytest.mark.parametrize("problem", [None, "ZooKeeper was away"])
def test_a_list_of_tables_with_a_problem_says_so_on_the_platform_asset(problem: str | None) -> None:
    platform = build_cdc_assets(tables=TABLES, problem=problem)[0]
    assert platform.metadata.get("tables_problem") == problem
