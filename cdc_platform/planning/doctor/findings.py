"""What the doctor says. Values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from cdc_platform.model.naming import some_of
from cdc_platform.planning.doctor.kinds import Kind, Severity, happens, severity

_ORDER = (Severity.ERROR, Severity.WARNING, Severity.NOTE)


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorFinding:
    """One thing that is wrong, with all shards of the dataset of which it is true.

    `table` is empty for what concerns all tables, `server` where it is the shard's own matter. `text` says what is
    there, `cure` the statement that cures it; where it names what differs from shard to shard, it is the first one's.
    """

    kind: Kind
    dataset: str
    text: str
    cure: str
    severity: Severity
    shards: tuple[str, ...]
    table: str = ""
    server: str = ""
    accepted: bool = False

    @property
    def place(self) -> str:
        """Where: the dataset, or one shard of it, and the table."""
        where = f"{self.dataset}.{self.shards[0]}" if len(self.shards) == 1 else self.dataset
        return f"{where}, table {self.table}" if self.table else where

    def sentence(self) -> str:
        """It in one line, without its cure."""
        many = f" ({len(self.shards)} shards: {some_of(self.shards, 4)})" if len(self.shards) > 1 else ""
        accepted = ", accepted" if self.accepted else ""
        return f"{self.kind}{accepted}: {self.place}{many}: {self.text}"

    def document(self) -> dict[str, object]:
        """As JSON."""
        return {
            "severity": str(self.severity),
            "kind": str(self.kind),
            "dataset": self.dataset,
            "table": self.table or None,
            "shards": list(self.shards),
            "server": self.server or None,
            "what": self.text,
            "happens": happens(self.kind),
            "cure": self.cure,
            "accepted": self.accepted,
        }


def finding(
    kind: Kind,
    dataset: str,
    shards: Iterable[str],
    text: str,
    cure: str,
    *,
    table: str = "",
    server: str = "",
    weight: Severity | None = None,
) -> DoctorFinding:
    """A finding; `weight` where it is not that of its kind."""
    return DoctorFinding(
        kind=kind,
        dataset=dataset,
        text=text,
        cure=cure,
        severity=weight or severity(kind),
        shards=tuple(sorted(shards)),
        table=table,
        server=server,
    )


def merged(findings: Iterable[DoctorFinding], accepted: Iterable[str]) -> tuple[DoctorFinding, ...]:
    """Equal findings of several shards as one, the worst first.

    `accepted` are kinds, or `KIND:TABLE`, that the topology accepts: they are notes.
    """
    names = set(accepted)
    groups: dict[tuple[object, ...], list[DoctorFinding]] = {}
    for one in findings:
        if {str(one.kind), f"{one.kind}:{one.table}"} & names and one.severity is not Severity.NOTE:
            one = replace(one, severity=Severity.NOTE, accepted=True)
        groups.setdefault((one.kind, one.severity, one.dataset, one.table, one.server, one.text), []).append(one)
    together = [replace(own[0], shards=tuple(sorted({s for f in own for s in f.shards}))) for own in groups.values()]
    return tuple(sorted(together, key=lambda f: (_ORDER.index(f.severity), f.dataset, f.table, f.kind, f.shards)))
