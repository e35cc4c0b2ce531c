"""From what is known of a shard to its verdict. By positions alone: no clock decides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from cdc_platform.clients.sources.open_source import address_of
from cdc_platform.errors import CdcError
from cdc_platform.model.naming import some_of
from cdc_platform.model.topology import Address, BootstrapMode, Dataset, Shard, Table
from cdc_platform.snapshots.run_records import Watermark
from cdc_platform.verification.ports import VerificationPolicy
from cdc_platform.verification.proof.change_events import NO_SHARD, UNKNOWN
from cdc_platform.verification.proof.committed_offsets import ConnectorProgress
from cdc_platform.verification.proof.differing_columns import names, samples
from cdc_platform.verification.proof.fold_files import Drifted
from cdc_platform.verification.proof.shard_proof import Compared, Concluded
from cdc_platform.verification.proof.topic_fold import TopicFold
from cdc_platform.verification.proof.verdicts import ShardVerdict, Verdict


class VerdictRules:
    """The verdicts of one run on one table."""

    def __init__(self, dataset: Dataset, table: Table, run_id: str, policy: VerificationPolicy) -> None:
        self._dataset = dataset
        self._topic = dataset.topic(table)
        self._table, self._run_id, self._policy = table, run_id, policy

    def of(self, found: Concluded, topic: TopicFold, watermark: Watermark | None) -> ShardVerdict:
        """The verdict, by what is known."""
        proof, scanned, progress = found.proof, found.scanned, found.progress
        known = self.plain(
            proof.shard,
            Verdict.UNVERIFIABLE,
            "",
            proven_from=str(proof.proven_from) if proof.scan.chunks else "",
            proven_to=str(scanned.proven_to) if scanned and scanned.targets else "",
            committed=(progress.committed.position or "") if progress.committed else "",
            columns=len(proof.shape.columns),
            left_out=proof.inspection.left_out,
            warnings=proof.inspection.warnings,
            source_rows=proof.scan.rows,
        )
        if scanned and progress.caught_up_at is not None:
            known = replace(known, lag_s=round(max(0.0, progress.caught_up_at - scanned.at), 3))
        if found.failed is not None:
            return replace(known, reason=found.failed)
        if progress.caught_up_at is None:
            return self._not_caught_up(known, progress)
        own, _ = topic.unreadable_of(proof.shard.id)
        if truncated := [record for record in own if record.keyless]:
            return replace(known, reason=truncated[0].sentence(self._topic))
        if found.compared is None:
            return replace(known, reason="it was not compared")
        said = (*known.warnings, *self._unreadable(topic, proof.shard.id))
        return self._compared(replace(known, warnings=said), found.compared, topic, watermark)

    def _unreadable(self, topic: TopicFold, shard: str) -> Iterator[str]:
        """Of records of the shard, and of those whose key names no shard."""
        for of in (shard, NO_SHARD):
            records, count = topic.unreadable_of(of)
            if records:
                more = f" ({count} such records were met)" if count > 1 else ""
                yield f"not read: {records[-1].sentence(self._topic)}{more}"

    def _only_unread(self, compared: Compared, topic: TopicFold) -> bool:
        """Does nothing differ but keys whose last record cannot be read?"""
        words, left = compared.differences.keys(), compared.left
        if not len(words) and not len(left):
            return False
        newest = compared.proof.newest(topic, words)
        unread = newest["key"][newest["row"] == UNKNOWN]
        return bool(np.isin(words, unread).all() and (left["row"] == UNKNOWN).all())

    def _compared(
        self, known: ShardVerdict, compared: Compared, topic: TopicFold, watermark: Watermark | None
    ) -> ShardVerdict:
        missing, extra, mismatched = compared.differences.counts
        extra += compared.leftovers
        topic_rows = compared.differences.topics
        known = replace(known, topic_rows=topic_rows, missing=missing, extra=extra, mismatched=mismatched)
        try:
            known = replace(known, warnings=(*known.warnings, *self._stale(compared, topic)))
            if not missing and not extra and not mismatched:
                return replace(known, verdict=Verdict.PROVEN, reason="")
            known = replace(known, samples=samples(compared, topic, self._policy.samples))
            if self._only_unread(compared, topic):
                last, _ = topic.unreadable_of(compared.proof.shard.id)
                reason = f"{missing + extra + mismatched} keys whose last record cannot be read; the last such: "
                reason += "; ".join(record.sentence(self._topic) for record in last[-1:])
                return replace(known, reason=f"{reason} (`cdc-platform repair` sends the rows again)")
        except (CdcError, Drifted) as error:
            return replace(known, reason=f"what differs could not be read: {error}")
        if missing and not extra and not mismatched:
            scope = self._out_of_scope(topic, watermark)
            if scope:
                return replace(known, reason=f"{missing} rows are not in the topic: {scope}")
        parts = [
            f"{count} {what}"
            for count, what in ((missing, "missing"), (extra, "extra"), (mismatched, "mismatched"))
            if count
        ]
        left = (
            f" ({compared.leftovers} of the extra under another spelling of a key, or in another partition: readers by"
            " key take each for a row)"
            if compared.leftovers
            else ""
        )
        reason = ", ".join(parts) + left
        prepared = compared.proof.source.prepared()
        if prepared:
            # MariaDB and MySQL log the rows when the transaction is prepared.
            reason += f"; XA transactions are prepared and may end either way: {some_of(prepared, 3)}"
            return replace(known, verdict=Verdict.PENDING, reason=reason)
        if prepared is None:
            reason += "; whether it is by prepared XA transactions the server does not tell (GRANT XA_RECOVER_ADMIN)"
        return replace(known, verdict=Verdict.MISMATCHED, reason=reason)

    def _stale(self, compared: Compared, topic: TopicFold) -> tuple[str, ...]:
        count, most = len(compared.stale), self._policy.samples
        if not count:
            return ()
        some = some_of(names(compared.proof, topic, compared.stale[:most]), most, total=count)
        return (
            f"shard {compared.proof.shard.id}: an older row of {some} stands in the topic behind the newest one;"
            " consumers that keep the last record per key, and log compaction, end up with the old one:"
            " `repair --keys` sends them again",
        )

    def _out_of_scope(self, topic: TopicFold, watermark: Watermark | None) -> str | None:
        """Why rows may be missing from the topic without having been lost."""
        if topic.is_cut():
            return "retention has removed its beginning; a backfill brings them back"
        if watermark is not None:
            # A hole that begins nowhere was found in a table that was whole.
            lost = watermark.hole is not None and watermark.hole.since is None
            if watermark.complete is None and watermark.backfilled is None and not lost:
                return (
                    f"it was bootstrapped from {watermark.position or 'latest'} on, and rows that have not changed"
                    " since are out of scope; after a backfill the whole table is proven"
                )
        elif self._dataset.bootstrap is BootstrapMode.LATEST:
            return "the dataset is bootstrapped from latest, and rows that have not changed since are out of scope"
        return None

    def _not_caught_up(self, known: ShardVerdict, progress: ConnectorProgress) -> ShardVerdict:
        if not progress.found:
            return replace(known, reason="no cluster of the dataset has its connector")
        if progress.problem is not None:
            return replace(known, reason=f"its connector could not be asked: {progress.problem}")
        committed = progress.committed
        if committed is not None and committed.busy:
            return replace(known, verdict=Verdict.PENDING, reason=f"{committed.busy} under way")
        if committed is None or committed.position is None:
            return replace(known, verdict=Verdict.PENDING, reason="its connector has committed no offset yet")
        return replace(
            known,
            verdict=Verdict.PENDING,
            reason=f"its connector has committed {committed.position}, the proof needs {known.proven_to}",
        )

    def plain(self, shard: Shard, verdict: Verdict, reason: str, **more: Any) -> ShardVerdict:
        """A verdict that needs nothing but its reason."""
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
