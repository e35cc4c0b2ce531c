"""One cause is one incident, however many shards it hits and however it flaps."""

from __future__ import annotations

from datetime import timedelta

from cdc_platform.planning.health.failures import Failure
from cdc_platform.planning.health.incidents import Incident, incidents_of
from cdc_platform.planning.health.restarts import Failing, RestartRecord
from tests.planning.worlds import NOW


def failing(number: int, failure: Failure = Failure.CONNECTION, host: str = "db-1:3306") -> tuple[Failing, str]:
    return Failing(name=f"pins.{number:05d}", failure=failure, host=host, worker="w0:8083"), "refused"


def record(failure: Failure = Failure.CONNECTION) -> RestartRecord:
    return RestartRecord(failure=failure, attempts=1, first_failed=NOW, last_restart=NOW, next_restart=NOW)


def found(
    items: dict[str, tuple[Failing, str]], before: dict[str, Incident] | None = None, **more: object
) -> dict[str, Incident]:
    hosts = {f"pins.{n:05d}": "db-1:3306" for n in range(1000)}
    records = more.get("records") or {}
    return incidents_of(items, records, hosts, before or {}, frozenset(), NOW + timedelta(minutes=1))  # type: ignore[arg-type]


def test_500_shards_of_one_host_are_one_trouble() -> None:
    items = {f"pins.{n:05d}": failing(n) for n in range(500)}
    (incident,) = found(items).values()
    assert (incident.place, incident.down, len(incident.sample)) == ("db-1:3306", 500, 5)
    assert "500 shards are down" in incident.sentence()
    assert "leader" in incident.advice


def test_wrong_credentials_are_one_trouble_of_the_dataset_on_however_many_hosts() -> None:
    items = {f"pins.{n:05d}": failing(n, Failure.AUTHENTICATION, f"db-{n}:3306") for n in range(40)}
    assert list(found(items)) == ["authentication@pins"]


def test_want_of_memory_belongs_to_the_worker() -> None:
    items = {f"pins.{n:05d}": failing(n, Failure.OUT_OF_MEMORY, f"db-{n}:3306") for n in range(4)}
    assert list(found(items)) == ["out-of-memory@w0:8083"]


def test_it_lasts_while_its_shards_recover_and_ends_with_their_records() -> None:
    down = found({"pins.00001": failing(1)})
    recovering = found({}, down, records={"pins.00001": record()})
    (incident,) = recovering.values()
    assert (incident.down, incident.recovering, incident.since) == (0, 1, down["connection@db-1:3306"].since)
    assert found({}, recovering) == {}


def test_what_was_cured_before_anybody_was_told_is_none() -> None:
    assert found({}, records={"pins.00001": record()}) == {}
