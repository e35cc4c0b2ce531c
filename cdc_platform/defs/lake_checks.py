"""The check that a lake's rows are its topic's: judged when it is run, and by each run of `verify`."""

# Without `from __future__ import annotations`: Dagster reads the types of a check that is made inside a function.

from collections import Counter
from collections.abc import Iterable, Sequence

import dagster as dg

from cdc_platform import wiring
from cdc_platform.clients.platform import Platform
from cdc_platform.defs.failures import as_failure
from cdc_platform.defs.lake_asset import lake_key
from cdc_platform.defs.names import Names
from cdc_platform.defs.translator import CdcTableProps, CdcTranslator
from cdc_platform.errors import NotFound
from cdc_platform.lake.policy import LakePolicy
from cdc_platform.lake.proof import LakeVerdict, prove_lake
from cdc_platform.model.topology import Topology
from cdc_platform.verification.proof.verdicts import Verdict

EQUALS_TOPIC = "equals_topic"

_SHOWN = 20


def build_lake_checks(
    *, tables: Iterable[CdcTableProps], translator: CdcTranslator | None = None
) -> list[dg.AssetChecksDefinition]:
    """**`equals_topic`** on each lake asset: fails, critical, where a row is not the topic's."""
    translator = translator or CdcTranslator()
    return [_check(props, lake_key(translator.get_asset_spec(props).key)) for props in tables if props.lake]


def _check(props: CdcTableProps, key: dg.AssetKey) -> dg.AssetChecksDefinition:
    names = Names(props.platform)

    @dg.asset_check(
        asset=key,
        name=EQUALS_TOPIC,
        required_resource_keys={names.resource},
        description="Each current row of the lake, read from its typed columns, is the topic's, up to the last run.",
    )
    def equals_topic(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        with names.in_(context).platform() as clients, as_failure():
            found = lake_verdicts(clients, clients.topology.load(), props.dataset, props.table)
        passed, text, metadata = judged(props.dataset, props.table, found)
        return dg.AssetCheckResult(passed=passed, description=text, metadata=metadata)

    return equals_topic


def lake_verdicts(
    platform: Platform, topology: Topology, dataset: str, table: str, shards: Sequence[str] | None = None
) -> tuple[LakeVerdict, ...]:
    """A verdict for each shard; none where the table does not land in a lake, or has had no run."""
    policy = LakePolicy.permitted(topology.dataset(dataset), platform.settings)
    if policy is None or not policy.takes(table):
        return ()
    try:
        return prove_lake(wiring.verification_of(platform), topology, dataset, table, policy, shards)
    except NotFound:
        return ()


def judged(dataset: str, table: str, found: Sequence[LakeVerdict]) -> tuple[bool, str, dict[str, str | int]]:
    """Whether the check passes, why, and what is shown beside it. Without verdicts it fails: nothing is known."""
    counts = Counter(str(each.verdict) for each in found)
    wrong = [each for each in found if each.verdict is Verdict.MISMATCHED]
    shown = [
        f"{each.shard}: {one.kind} {one.key}{': ' if one.columns else ''}{', '.join(one.columns)}"
        for each in wrong
        for one in each.samples
    ]
    metadata: dict[str, str | int] = {
        **counts,
        "rows": sum(each.rows for each in found),
        "behind": sum(each.behind for each in found),
        "keys": "\n".join(shown[:_SHOWN]),
        "advice": f"`cdc-platform lake repair {dataset}.{table} --apply` writes these rows again." if wrong else "",
    }
    text = f"{counts[Verdict.PROVEN]} of {len(found)} shards are the topic's" if found else "The lake has had no run"
    text += f", {len(wrong)} are not." if wrong else "."
    return bool(found) and not wrong, text, metadata


def report_lake(
    instance: dg.DagsterInstance, topic: dg.AssetKey, dataset: str, table: str, found: Sequence[LakeVerdict]
) -> str:
    """Judge the check by these verdicts; the sentence."""
    passed, text, metadata = judged(dataset, table, found)
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=lake_key(topic),
            check_name=EQUALS_TOPIC,
            passed=passed,
            metadata={name: dg.MetadataValue.text(str(value)) for name, value in metadata.items()},
            description=text,
        )
    )
    return text
