"""Who writes a dataset names a catalog and a warehouse: no directory, host, driver or option that is not theirs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cdc_platform.cli.lake import _tables as tables_of_the_command
from cdc_platform.documents.fields import refuse_plain_secrets
from cdc_platform.errors import TopologyError
from cdc_platform.lake.policy import LakePolicy
from cdc_platform.model.topology import Dataset, Topology
from cdc_platform.settings import Settings
from tests.connectors.cases import PINS

OWN = Settings(
    permitted_lakes=("sqlite:////srv/lake/*", "file:///srv/lake/*", "postgresql://lake@db/lake?sslmode=require")
)
CATALOG, WAREHOUSE = "sqlite:////srv/lake/pins.db", "file:///srv/lake/pins"


def lake(catalog: str = CATALOG, warehouse: str = WAREHOUSE) -> Dataset:
    return replace(PINS, lake={"catalog": catalog, "warehouse": warehouse})


def test_what_the_operator_names_is_taken() -> None:
    assert LakePolicy.permitted(lake(), OWN) == LakePolicy.of(lake())
    assert LakePolicy.permitted(lake("postgresql://lake@db/lake?sslmode=require"), OWN) is not None
    assert LakePolicy.permitted(PINS, Settings()) is None
    with pytest.raises(TopologyError, match="permitted_lakes"):
        LakePolicy.permitted(lake(), Settings())


@pytest.mark.parametrize(
    "catalog",
    [
        "sqlite:////etc/cron.d/x",
        "sqlite:////srv/lake/../secrets/x.db",
        "sqlite:////srv/lake/..",
        "sqlite:////srv/lake/x.db?uri=true&mode=rwc",
        "sqlite+evil:////srv/lake/x.db",
        "sqlite:////srv/lake/%2e%2e/x.db",
        "sqlite:////srv/lake/x\n.db",
        "mysql+pymysql://evil.example/x?read_default_file=/etc/x",
        "postgresql://lake@db/lake?sslmode=require&host=evil.example",
        "postgresql://lake@evil.example/lake?sslmode=require",
        "SQLITE:////srv/lake/x.db",
        "",
    ],
)
def test_a_lake_elsewhere_is_refused_before_anything_is_opened(catalog: str) -> None:
    dataset = lake(catalog)
    topology = Topology(datasets={"pins": dataset})
    with pytest.raises(TopologyError, match=r"lake[.]catalog"):
        LakePolicy.permitted(dataset, OWN)
    with pytest.raises(TopologyError, match=r"lake[.]catalog"):
        tables_of_the_command(OWN, topology, "pins", ())


@pytest.mark.parametrize(
    "warehouse", ["s3://evil/x", "file:///srv/lake/./../x", "file:///srv/lakes", "ftp://evil/", "/"]
)
def test_a_star_is_no_way_out(warehouse: str) -> None:
    with pytest.raises(TopologyError, match=r"lake[.]warehouse"):
        LakePolicy.permitted(lake(warehouse=warehouse), OWN)
    # A star does not reach into the host, or to another one.
    loose = replace(OWN, permitted_lakes=("sqlite:////srv/lake/*", "s3://ours/*"))
    with pytest.raises(TopologyError, match=r"lake[.]warehouse"):
        LakePolicy.permitted(lake(warehouse="s3://ours.evil/x"), loose)
    assert LakePolicy.permitted(lake(warehouse="s3://ours/pins"), loose) is not None


def test_a_password_in_a_catalogs_url_is_refused_and_not_printed() -> None:
    document = {"lake": {"catalog": "postgresql://lake:hunter2@db/lake", "warehouse": WAREHOUSE}}
    with pytest.raises(TopologyError, match=r"lake[.]catalog") as refused:
        refuse_plain_secrets(document, where="f")
    assert "hunter2" not in str(refused.value)
