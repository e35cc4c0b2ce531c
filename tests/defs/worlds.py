"""Small topologies and platforms in memory for the tests of the Dagster floor."""

from __future__ import annotations

from cdc_platform.topology import Address, Cluster, Credentials, Dataset, Engine, Shard, Table, Topology

CREDENTIALS = Credentials(user="${env:DB_USER}", password="${env:DB_PASSWORD}")


def dataset(name: str = "pins", **fields: object) -> Dataset:
    defaults: dict[str, object] = {
        "name": name,
        "engine": Engine.MARIADB,
        "tables": (Table(name="pins"), Table(name="boards")),
        "clusters": ("main",),
        "credentials": CREDENTIALS,
        "owners": ("data-platform", "ann@example.org"),
    }
    return Dataset(**(defaults | fields))  # type: ignore[arg-type]


def shard(of: str, number: int, **fields: object) -> Shard:
    defaults: dict[str, object] = {
        "dataset": of,
        "id": f"{number:05d}",
        "leader": Address(f"db-{number % 3}", 3306),
        "database": f"{of}_{number:05d}",
    }
    return Shard(**(defaults | fields))  # type: ignore[arg-type]


def topology(*, pins: int = 3, orders: int = 2, **fields: object) -> Topology:
    datasets = {
        "pins": dataset("pins"),
        "orders": dataset("orders", engine=Engine.POSTGRES, tables=(Table(name="orders", schema="public"),)),
    }
    defaults: dict[str, object] = {
        "datasets": datasets,
        "shards": {
            "pins": tuple(shard("pins", n) for n in range(pins)),
            "orders": tuple(shard("orders", n) for n in range(orders)),
        },
        "clusters": {"main": Cluster(name="main", urls=("http://127.0.0.1:8083",))},
    }
    return Topology(**(defaults | fields))  # type: ignore[arg-type]
