"""From what is known of a shard to its verdict. By positions alone: nothing here asks a clock how long it took."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from cdc_platform.clients.sources.open_source import address_of
from cdc_platform.errors import CdcError
from cdc_platform.model.positions import furthest
from cdc_platform.model.topology import Address, BootstrapMode, Dataset, Shard, Table
from cdc_platform.snapshots.run_records import Watermark
from cdc_platform.verification.ports import VerificationPolicy
from cdc_platform.verification.proof.committed_offsets import ConnectorProgress
from cdc_platform.verification.proof.differing_columns import names, samples
from cdc_platform.verification.proof.fold_files import Drifted
from cdc_platform.verification.proof.shard_proof import ShardProof
from cdc_platform.verification.proof.topic_fold import TopicFold
from cdc_platform.verification.proof.verdicts import ShardVerdict, Verdict


class VerdictRules:
    """The verdicts of one run on one table."""

    def __init__(self, dataset: Dataset, table: Table, run_id: str, policy: VerificationPolicy) -> None:
        self._dataset = dataset
        self._topic = dataset.topic(table)
        self._table, self._run_id, self._policy = table, run_id, policy

    def of(
        self, case: ShardProof, reached: ConnectorProgress, topic: TopicFold, watermark: Watermark | None
    ) -> ShardVerdict:
        """The verdict, by what is known."""
        goals = case.goals
        known = self.plain(
            case.shard,
            Verdict.UNVERIFIABLE,
            "",
            first=str(case.since) if case.scan.chunks else "",
            fence=str(furthest(goals)) if goals else "",
            committed=(reached.committed.position or "") if reached.committed else "",
            lag_s=None if reached.at is None else round(max(0.0, reached.at - case.fenced_at), 3),
            columns=len(case.shape.columns),
            left_out=case.inspection.left_out,
            warnings=case.inspection.warnings,
            source_rows=case.scan.rows,
        )
        if case.failed is not None:
            return replace(known, reason=case.failed)
        if reached.at is None:
            return self._not_reached(known, reached)
        trouble = [t for t in topic.troubles() if t.shard in (None, case.shard.id)]
        if trouble:
            at = trouble[0]
            return replace(known, reason=f"record {at.offset} of partition {at.partition}: {at.reason}")
        return self._compared(known, case, topic, watermark)

    def _compared(
        self, known: ShardVerdict, case: ShardProof, topic: TopicFold, watermark: Watermark | None
    ) -> ShardVerdict:
        differences = case.differences
        if differences is None:
            return replace(known, reason="it was not compared")
        missing, extra, mismatched = differences.counts
        known = replace(known, topic_rows=differences.topics, missing=missing, extra=extra, mismatched=mismatched)
        try:
            known = replace(known, warnings=(*known.warnings, *self._behind(case, topic)))
            if not missing and not extra and not mismatched:
                return replace(known, verdict=Verdict.PROVEN, reason="")
            known = replace(known, samples=samples(case, topic, self._policy.samples))
        except (CdcError, Drifted) as error:
            return replace(known, reason=f"what differs could not be looked at: {error}")
        if missing and not extra and not mismatched:
            scope = self._out_of_scope(topic, watermark)
            if scope:
                return replace(known, reason=f"{missing} rows are not in the topic: {scope}")
        parts = [
            f"{count} {what}"
            for count, what in ((missing, "missing"), (extra, "extra"), (mismatched, "mismatched"))
            if count
        ]
        return replace(known, verdict=Verdict.MISMATCHED, reason=", ".join(parts))

    def _behind(self, case: ShardProof, topic: TopicFold) -> tuple[str, ...]:
        count = len(case.behind)
        if not count:
            return ()
        some = ", ".join(names(case, topic, case.behind[: self._policy.samples]))
        more = f" and {count - self._policy.samples} more" if count > self._policy.samples else ""
        return (
            f"shard {case.shard.id}: an older row of {some}{more} stands in the topic behind the newest one;"
            " who goes by offset, as compaction does, has the old one: `repair --keys` sends them again",
        )

    def _out_of_scope(self, topic: TopicFold, watermark: Watermark | None) -> str | None:
        """Why rows may be missing from the topic without having been lost."""
        if topic.cut():
            return "retention has removed its beginning; a backfill brings them back"
        if watermark is not None:
            if watermark.complete is None and watermark.backfilled is None:
                return (
                    f"it was bootstrapped from {watermark.position or 'latest'} on, and rows that have not changed"
                    " since are out of scope; after a backfill the whole table is proven"
                )
        elif self._dataset.bootstrap is BootstrapMode.LATEST:
            return "the dataset is bootstrapped from latest, and rows that have not changed since are out of scope"
        return None

    def _not_reached(self, known: ShardVerdict, reached: ConnectorProgress) -> ShardVerdict:
        if not reached.found:
            return replace(known, reason="no cluster of the dataset has its connector")
        if reached.problem is not None:
            return replace(known, reason=f"its connector could not be asked: {reached.problem}")
        committed = reached.committed
        if committed is not None and committed.busy:
            return replace(known, verdict=Verdict.PENDING, reason=f"{committed.busy} under way")
        if committed is None or committed.position is None:
            return replace(known, verdict=Verdict.PENDING, reason="its connector has committed no offset yet")
        return replace(
            known,
            verdict=Verdict.PENDING,
            reason=f"its connector has committed {committed.position}, the fence is {known.fence}",
        )

    def plain(self, shard: Shard, verdict: Verdict, reason: str, **more: Any) -> ShardVerdict:
        """A verdict that needs no more than its reason."""
        return ShardVerdict(
            dataset=self._dataset.name,
            table=self._table.name,
            shard=shard.id,
            verdict=verdict,
            reason=reason,
            run_id=self._run_id,
            checked_at=datetime.now(UTC),
            topic=self._topic,
            source=str(self.address(shard)),
            **more,
        )

    def address(self, shard: Shard) -> Address:
        """The server that is read."""
        return address_of(self._dataset, shard, replicas=self._policy.replicas)
