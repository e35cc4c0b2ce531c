"""What is wrong now, as conditions: what passes recorded, passes that are late, what agents report of leaders. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cdc_platform.model.agent_report import AgentReport
from cdc_platform.model.alert_messages import Severity
from cdc_platform.model.topology import Topology
from cdc_platform.planning.health.deleted_connectors import DeletedRecord
from cdc_platform.planning.health.incidents import Incident
from cdc_platform.planning.health.restarts import RestartRecord
from cdc_platform.planning.health.source_hazard_kinds import KINDS
from cdc_platform.planning.health.source_hazards import SourceRecord
from cdc_platform.planning.health.watched_states import MISSING, WatchedRecord
from cdc_platform.planning.watched import all_watched
from cdc_platform.reconciler.last_pass import KEY as LAST_PASS
from cdc_platform.reconciler.last_pass import age
from cdc_platform.reconciler.state_records import read_memory
from cdc_platform.settings import Settings

ALERT = "alert/"
INCIDENT = "trouble/"
PASS = "pass"
LEADER = "leader/"
SOURCE = "source/"
DELETED = "deleted/"
WATCHED = "watched/"
# Keys of the conditions that are found here; what is not found is over.
OBSERVED_HERE = (INCIDENT, LEADER, SOURCE, DELETED, WATCHED, f"{PASS}/")

# Most incidents are repaired by the next passes: those are not alerted.
INCIDENT_PATIENCE = timedelta(minutes=2)
# No pass for so long: the control plane itself is the incident.
SILENT_PASSES = timedelta(minutes=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertCondition:
    """Something wrong now.

    `key` names it as long as it lasts; conditions of one `cause` that begin or end together
    make one message. `owners` are those of the datasets concerned. `runbook` and `run` are
    links, empty where there is none. Alerted after it has lasted `patience`.
    """

    key: str
    cause: str
    severity: Severity
    title: str
    text: str
    advice: str = ""
    owners: tuple[str, ...] = ()
    runbook: str = ""
    run: str = ""
    patience: timedelta = timedelta()


def recorded_conditions(
    documents: Mapping[str, Mapping[str, Any]],
    topology: Topology,
    settings: Settings,
    now: datetime,
    patience: timedelta,
) -> dict[str, AlertCondition]:
    """What is wrong by the records of passes: incidents, hazards at sources, and that no pass was made for long."""
    kept = (RestartRecord, SourceRecord, DeletedRecord, WatchedRecord)
    kinds = (INCIDENT, *(kind.key_of("") for kind in kept))
    memory = read_memory({key: document for key, document in documents.items() if key.startswith(kinds)})
    restarts = memory.of(RestartRecord)
    hosts: dict[tuple[str, str], set[str]] = defaultdict(set)
    for dataset, shard in topology.all_shards():
        record = restarts.get(shard.name)
        if record is not None:
            hosts[str(record.failure), str(shard.leader)].add(dataset.name)
    found = {}
    for key, incident in memory.of(Incident).items():
        if not incident.down and f"{ALERT}{INCIDENT}{key}" not in documents:
            continue  # it recovers, and was never alerted
        # An incident names some of its shards; restart records name the others, credentials their dataset.
        concerned = {incident.place, *hosts[str(incident.failure), incident.place]} | {
            name.partition(".")[0] for name in incident.sample
        }
        found[f"{INCIDENT}{key}"] = _of_incident(incident, concerned, topology, settings, patience)
    found |= _source_conditions(memory.of(SourceRecord), topology, settings)
    for name, deleted in memory.of(DeletedRecord).items():
        found[f"{DELETED}{name}"] = AlertCondition(
            key=f"{DELETED}{name}",
            cause=f"{DELETED}{name}",
            # Once may be a hand's mistake, again is a program's doing.
            severity=Severity.WARNING if len(deleted.times) == 1 else Severity.CRITICAL,
            title=f"Another program deletes connectors of {name}",
            text=f"{name}: {deleted.sentence()}.",
            advice="Find who does: a script, or an operator such as Strimzi that manages the same Connect cluster.",
            owners=tuple(sorted(topology.datasets[name].owners)) if name in topology.datasets else (),
            runbook=runbook(settings, "connectors-deleted"),
        )
    found |= _watched_conditions(memory.of(WatchedRecord), topology, settings, patience)
    silent = age(documents.get(LAST_PASS), now)
    if silent is not None and silent > SILENT_PASSES.total_seconds():
        name = settings.platform
        found[f"{PASS}/{name}"] = AlertCondition(
            key=f"{PASS}/{name}",
            cause=f"{PASS}/{name}",
            severity=Severity.CRITICAL,
            title=f"The control plane of {name} has made no pass for {silent / 60:.0f} min",
            text=f"The last pass was at {documents[LAST_PASS]['at']}. Connectors keep running, but failures are not "
            "repaired until passes resume.",
            advice="See whether reconcile_sensor ticks and why its runs fail.",
            runbook=runbook(settings, "no-pass"),
        )
    return found


def leader_conditions(
    reports: Iterable[AgentReport], topology: Topology, settings: Settings, patience: timedelta
) -> dict[str, AlertCondition]:
    """What agents report of leaders: old ones that take writes (alerted at once), new ones that are not fit."""
    found = {}
    shards = {shard.name: (dataset, shard) for dataset, shard in topology.all_shards()}
    for report in reports:
        for anchor, severity, wait, texts, advice in (
            ("split-brain", Severity.CRITICAL, timedelta(), report.split, "Fence the old leader now."),
            ("leader-not-fit", Severity.CRITICAL, patience, report.blocked, "Finish the promotion."),
        ):
            for name, text in texts.items():
                if name not in shards:
                    continue
                dataset, shard = shards[name]
                key = f"{LEADER}{anchor}/{name}"
                found[key] = AlertCondition(
                    key=key,
                    # A host's shards move together: one message.
                    cause=f"{LEADER}{anchor}/{shard.leader}",
                    severity=severity,
                    title=f"{anchor.replace('-', ' ').capitalize()}: {name} at {shard.leader}",
                    text=f"{name}: {text}",
                    advice=advice,
                    owners=tuple(sorted(dataset.owners)),
                    runbook=runbook(settings, anchor),
                    patience=wait,
                )
    return found


def _source_conditions(
    records: Mapping[str, SourceRecord], topology: Topology, settings: Settings
) -> dict[str, AlertCondition]:
    """What passes found at sources: alerted at once, the shards of one server in one message."""
    found = {}
    shards = {shard.name: (dataset, shard) for dataset, shard in topology.all_shards()}
    for name, record in records.items():
        for hazard in record.hazards:
            if name not in shards or not KINDS[hazard.kind].alerts:
                continue
            dataset, shard = shards[name]
            key = f"{SOURCE}{hazard.kind}/{name}/{hazard.table}"
            found[key] = AlertCondition(
                key=key,
                cause=f"{SOURCE}{hazard.kind}/{shard.leader}",
                severity=Severity.CRITICAL if KINDS[hazard.kind].loses else Severity.WARNING,
                title=f"{str(hazard.kind).replace('-', ' ').capitalize()}: {name} at {shard.leader}",
                text=f"{name}: {hazard.text}.",
                advice=hazard.cure,
                owners=tuple(sorted(dataset.owners)),
                runbook=runbook(settings, "source-hazard"),
            )
    return found


def _watched_conditions(
    records: Mapping[str, WatchedRecord], topology: Topology, settings: Settings, patience: timedelta
) -> dict[str, AlertCondition]:
    """Watched connectors that are gone, or that were paused and make their source keep its log."""
    watched = all_watched(topology)
    return {
        f"{WATCHED}{name}": AlertCondition(
            key=f"{WATCHED}{name}",
            cause=f"{WATCHED}{name}",
            severity=Severity.CRITICAL if record.state == MISSING else Severity.WARNING,
            title=f"Watched connector {name} is {record.state}",
            text=f"{record.sentence(name)}.",
            advice="Put it right where it is managed, or have it no longer watched: `cdc-platform adopt CLUSTER NAME "
            "--release --apply`.",
            owners=tuple(sorted(watched[name].owners)),
            runbook=runbook(settings, "watched-connector"),
            patience=patience,
        )
        for name, record in records.items()
        if name in watched
    }


def _of_incident(
    incident: Incident, datasets: set[str], topology: Topology, settings: Settings, patience: timedelta
) -> AlertCondition:
    owners = {owner for name in datasets if name in topology.datasets for owner in topology.datasets[name].owners}
    watched = all_watched(topology)
    owners |= {owner for name in incident.sample if name in watched for owner in watched[name].owners}
    count = f"{incident.down} shard{'' if incident.down == 1 else 's'} down" if incident.down else "Shards recover"
    return AlertCondition(
        key=f"{INCIDENT}{incident.key}",
        cause=f"{INCIDENT}{incident.key}",
        severity=Severity.CRITICAL,
        title=f"{count}: {incident.failure} at {incident.place}",
        text=f"{incident.sentence()}.",
        advice=incident.advice,
        owners=tuple(sorted(owners)),
        runbook=runbook(settings, str(incident.failure)),
        patience=patience,
    )


def runbook(settings: Settings, anchor: str) -> str:
    """The page that says what to do, if the settings name one."""
    return f"{settings.runbook_url}#{anchor}" if settings.runbook_url else ""
