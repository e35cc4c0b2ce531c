"""The jobs `verify` and `repair`, cut by shard range so that the executor spreads them."""

# Without `from __future__ import annotations`: Dagster reads the types of an op that is made
# inside a function, and cannot resolve them as text.

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import dagster as dg
from pydantic import Field

from cdc_platform import wiring
from cdc_platform.clients.platform import Platform
from cdc_platform.defs.audit_asset import AUDIT, audit_metadata
from cdc_platform.defs.failures import as_failure
from cdc_platform.defs.lake_checks import lake_verdicts, report_lake
from cdc_platform.defs.launchpad_fields import Choices, fields_of, parsed
from cdc_platform.defs.names import Names
from cdc_platform.defs.resource import CdcPlatformResource
from cdc_platform.defs.run_kinds import TAG_KIND, RunOf
from cdc_platform.defs.translator import TAG_PLATFORM, CdcTableProps, CdcTranslator, table_props
from cdc_platform.model.naming import some_of
from cdc_platform.model.plain_text import for_markdown
from cdc_platform.model.topology import Topology
from cdc_platform.reconciler.process_memory import VERIFYING, rarer_collections
from cdc_platform.verification.audit_frame import AuditFrame
from cdc_platform.verification.proof.completeness import ShardRange, plan_verification, verify_shards
from cdc_platform.verification.proof.verdicts import ShardVerdict, Verdict, foreign_rows
from cdc_platform.verification.repair.reemit import RepairPorts, run_repair
from cdc_platform.verification.repair.repair_plan import (
    CAP,
    find_repair,
    keys_repair,
    known_and_gone,
    parse_keys,
    proof_id,
)

# Shards named in the story of an asset.
_NAMED = 50


class VerifyConfig(dg.Config):
    """What to prove; empty lists take all."""

    dataset: str = Field(description="The dataset.")
    tables: list[str] = Field(default=[], description="Its tables; all when empty.")
    shards: list[str] = Field(default=[], description="Its shards; all when empty.")
    range_size: int = Field(default=100, ge=1, description="Shards a step: a step is one process.")


class RepairConfig(dg.Config):
    """What to repair. Only looked at, unless `apply` is set."""

    dataset: str = Field(description="The dataset.")
    table: str = Field(description="Its table.")
    shards: list[str] = Field(default=[], description="Shards to look at (or gone ones); those found wrong when empty.")
    keys: list[str] = Field(default=[], description="SHARD:KEY: re-emit just these.")
    tombstones: bool = Field(default=False, description="Remove rows from the topic that the source does not have.")
    cap: int = Field(default=CAP, ge=1, description="Most keys that one step may touch.")
    range_size: int = Field(default=20, ge=1, description="Shards a step.")
    apply: bool = Field(default=False, description="Do it; without, it is only shown what would be done.")


def build_verification_jobs(
    *,
    platform: str = "cdc",
    translator: CdcTranslator | None = None,
    tables: Iterable[CdcTableProps] = (),
) -> tuple[dg.JobDefinition, dg.JobDefinition]:
    """**`verify`** and **`repair`**. They take the resource `cdc_platform`.

    Args:
        platform: the platform's name.
        translator: the one the assets were made with, so that events find them.
        tables: those that the Launchpads offer; without them any text is taken.
    """
    translator, choices = translator or CdcTranslator(), Choices.of(tables)
    names, tags = Names(platform), {TAG_PLATFORM: platform}
    return _verify_job(translator, names, tags, choices), _repair_job(translator, names, tags, choices)


def _verify_job(translator: CdcTranslator, names: Names, tags: dict[str, str], choices: Choices) -> dg.JobDefinition:
    @dg.op(
        name=names.of("plan_verification"),
        out=dg.DynamicOut(dict),
        tags=tags,
        required_resource_keys={names.resource},
        config_schema=fields_of(VerifyConfig, choices),
    )
    def plan(context: dg.OpExecutionContext) -> Iterator[dg.DynamicOutput[dict[str, Any]]]:
        config = parsed(VerifyConfig, context.op_config)
        with names.in_(context).platform() as clients, as_failure():
            topology = clients.topology.load()
            dataset = topology.dataset(config.dataset)
            for table in config.tables or [table.name for table in dataset.tables]:
                parts = plan_verification(
                    topology, config.dataset, table, config.shards or None, range_size=config.range_size
                )
                for number, part in enumerate(parts):
                    yield dg.DynamicOutput(_document(part), mapping_key=f"{_plain(table)}_{number:05d}")

    @dg.op(name=names.of("verify_range"), tags=tags, required_resource_keys={names.resource})
    def verify_range(context: dg.OpExecutionContext, part: dict[str, Any]) -> dict[str, Any]:
        with names.in_(context).platform() as clients, as_failure(), rarer_collections(VERIFYING):
            found = verify_shards(
                wiring.verification_of(clients), clients.topology.load(), _range(part), run_id=_root(context)
            )
            _audit(clients).write(found)
        for verdict in found:
            if verdict.verdict is not Verdict.PROVEN:
                context.log.warning(f"{verdict.dataset}.{verdict.shard} {verdict.table}: {verdict.reason}")
        foreign = foreign_rows(found)
        said = foreign.sentence(part["dataset"], part["table"]) if foreign and foreign.rows else ""
        if said:
            context.log.warning(said)
        return {"table": part["table"], "dataset": part["dataset"], "foreign": said, **_counted(found)}

    @dg.op(name=names.of("conclude_verification"), tags=tags, required_resource_keys={names.resource})
    def conclude(context: dg.OpExecutionContext, parts: list[dict[str, Any]]) -> None:
        pairs = sorted({(part["dataset"], part["table"]) for part in parts})
        with names.in_(context).platform() as clients, as_failure():
            topology = clients.topology.load()
            keys = _keys(topology, clients, translator)
            for dataset, table in pairs:
                if found := lake_verdicts(clients, topology, dataset, table):
                    said = report_lake(context.instance, keys[dataset, table], dataset, table, found)
                    context.log.info(f"Lake of {dataset}.{table}: {said}")
        by_table: dict[tuple[str, str], Counter[str]] = {}
        for part in parts:
            counts = by_table.setdefault((part["dataset"], part["table"]), Counter())
            counts.update({name: value for name, value in part.items() if isinstance(value, int)})
        for pair, counts in sorted(by_table.items()):
            of_pair = (part for part in parts if (part["dataset"], part["table"]) == pair)
            said = next((part["foreign"] for part in of_pair if part["foreign"]), "")
            text = f"{counts['proven']} of {counts['shards']} shards proven. {said}".strip()
            context.log.info(f"{pair[0]}.{pair[1]}: {text}")
            context.log_event(dg.AssetObservation(keys[pair], description=text, metadata=dict(counts)))
            context.log_event(_audited(names.in_(context), keys[pair], pair, [_root(context)], text))

    @dg.job(
        name=names.job(RunOf.VERIFY),
        tags={**tags, TAG_KIND: RunOf.VERIFY.value},
        description="Proves topics against their tables, shard range by shard range.",
        config=choices.filled(plan.name, tables=[], shards=[]),
    )
    def verify() -> None:
        conclude(plan().map(verify_range).collect())

    return verify


def _audited(
    cdc_platform: CdcPlatformResource, key: dg.AssetKey, pair: tuple[str, str], runs: Sequence[str], text: str
) -> dg.AssetMaterialization:
    """What these runs added to the audit frame. `checks_sensor` has the table's checks judged after it."""
    frame = AuditFrame(cdc_platform.settings().audit_dir)
    with as_failure():
        metadata = audit_metadata(
            [verdict for run in runs for verdict in frame.run(*pair, run)],
            frame.history(*pair),
            f"{cdc_platform.settings().audit_dir}/{pair[0]}/{pair[1]}",
        )
    return dg.AssetMaterialization(dg.AssetKey([*key.path, AUDIT]), description=text, metadata=metadata)


def _repair_job(translator: CdcTranslator, names: Names, tags: dict[str, str], choices: Choices) -> dg.JobDefinition:
    @dg.op(
        name=names.of("plan_repair"),
        out=dg.DynamicOut(dict),
        tags=tags,
        required_resource_keys={names.resource},
        config_schema=fields_of(RepairConfig, choices),
    )
    def plan(context: dg.OpExecutionContext) -> Iterator[dg.DynamicOutput[dict[str, Any]]]:
        config = parsed(RepairConfig, context.op_config)
        with names.in_(context).platform() as clients, as_failure():
            topology = clients.topology.load()
            shards = config.shards or sorted(parse_keys(config.keys)) or _mismatched(clients, topology, config)
            if not shards:
                context.log.info("Nothing is known to be wrong: run `verify`, or name shards.")
                return
            here, gone = known_and_gone(topology, config.dataset, shards) if config.tombstones else (shards, [])
            parts = plan_verification(topology, config.dataset, config.table, here, range_size=config.range_size)
            steps = [{**_document(part), "foreign": []} for part in parts]
            if gone:
                steps.append({"dataset": config.dataset, "table": config.table, "shards": [], "foreign": gone})
            for number, step in enumerate(steps):
                document = {**step, "number": number, "config": config.model_dump()}
                yield dg.DynamicOutput(document, mapping_key=f"r{number:05d}")

    @dg.op(name=names.of("repair_range"), tags=tags, required_resource_keys={names.resource})
    def repair_range(context: dg.OpExecutionContext, part: dict[str, Any]) -> dict[str, Any]:
        config = RepairConfig(**part["config"])
        run_id = f"{_root(context)}-{part['number']}"
        with (
            names.in_(context).platform() as clients,
            wiring.open_snapshots(clients) as snapshots,
            as_failure(),
            rarer_collections(VERIFYING),
        ):
            ports = RepairPorts(proof=wiring.verification_of(clients), snapshots=snapshots)
            return _repaired(context, ports, config, part, run_id)

    @dg.op(name=names.of("conclude_repair"), tags=tags, required_resource_keys={names.resource})
    def conclude(context: dg.OpExecutionContext, parts: list[dict[str, Any]]) -> None:
        if not parts:
            return
        with names.in_(context).platform() as clients:
            keys = _keys(clients.topology.load(), clients, translator)
        totals: Counter[str] = Counter()
        for part in parts:
            totals.update({name: value for name, value in part.items() if isinstance(value, int)})
        text = (
            f"Found {totals['found']} keys that differ and {totals['extra']} extra rows; re-emitted "
            f"{totals['repaired']}, removed {totals['removed']}; "
            f"{totals['proven']} of {totals['shards']} shards proven"
        )
        left = sorted(shard for part in parts for shard in part.get("unproven", ()))
        text += f"; left alone: {some_of(left, _NAMED)}." if left else "."
        lines = [line for part in parts for line in part["lines"]]
        context.log.info(text)
        context.log_event(
            dg.AssetObservation(
                keys[parts[0]["dataset"], parts[0]["table"]],
                description=text,
                metadata={
                    **totals,
                    "story": dg.MetadataValue.md("\n".join(f"- {for_markdown(line)}" for line in lines[:_NAMED])),
                },
            )
        )
        if totals["applied"]:
            pair, proofs = (parts[0]["dataset"], parts[0]["table"]), [part["proof"] for part in parts]
            context.log_event(_audited(names.in_(context), keys[pair], pair, proofs, text))
        if totals["applied"] and totals["proven"] < totals["shards"]:
            raise dg.Failure(description=text, allow_retries=False)

    @dg.job(
        name=names.job(RunOf.REPAIR),
        tags={**tags, TAG_KIND: RunOf.REPAIR.value},
        description="Re-emits missing and wrong keys of a table, and proves them again.",
        config=choices.filled(plan.name, table=choices.first_table, shards=[], apply=False),
    )
    def repair() -> None:
        conclude(plan().map(repair_range).collect())

    return repair


def _repaired(
    context: dg.OpExecutionContext, ports: RepairPorts, config: RepairConfig, part: dict[str, Any], run_id: str
) -> dict[str, Any]:
    """One range: found, and repaired when that was asked for."""
    clients = ports.proof.platform
    topology = clients.topology.load()
    shards = list(part["shards"])
    if config.keys:
        chosen = {shard: keys for shard, keys in parse_keys(config.keys).items() if shard in shards}
        plan = keys_repair(topology, config.dataset, config.table, chosen, run_id=run_id, cap=config.cap)
    else:
        plan = find_repair(
            ports.proof,
            topology,
            config.dataset,
            config.table,
            shards,
            foreign=part["foreign"],
            run_id=run_id,
            tombstones=config.tombstones,
            cap=config.cap,
            report=context.log.info,
        )
    for shard in set(config.shards).intersection(part["foreign"]) - {one.shard for one in plan.shards}:
        topology.shard(config.dataset, shard)  # Neither the topology nor the topic knows it: refused by name.
    context.log.info(plan.sentence())
    lines = [
        f"{shard.shard}: {plan.of(shard)[0]} keys, {plan.of(shard)[1]} extra rows found"
        for shard in plan.shards
        if shard.emit or shard.extra
    ]
    lines += [f"{shard}: left alone: {reason}" for shard, reason in sorted(plan.left.items())]
    story: dict[str, Any] = {
        "dataset": config.dataset,
        "table": config.table,
        "found": plan.keys,
        "extra": plan.extra,
        "applied": int(config.apply),
        "lines": lines,
    }
    if not config.apply:
        return story
    plan.check_cap(config.cap)
    report = run_repair(ports, topology, plan, report=context.log.info)
    _audit(clients).write(report.proof)
    lines += [f"{v.shard}: {v.verdict}{f': {v.reason}' if v.reason else ''}" for v in report.proof]
    proven = sum(1 for verdict in report.proof if verdict.verdict is Verdict.PROVEN)
    return {
        **story,
        "proof": proof_id(run_id),
        "repaired": report.emitted,
        "removed": report.tombstoned,
        "shards": len(report.proof) + len(report.unproven),
        "proven": proven,
        "unproven": sorted(report.unproven),
    }


def _root(context: dg.OpExecutionContext) -> str:
    """The run that this one goes on with: a step that is executed again resumes by it."""
    return context.run.root_run_id or context.run_id


def _audit(clients: Platform) -> AuditFrame:
    return AuditFrame(clients.settings.audit_dir)


def _mismatched(clients: Platform, topology: Topology, config: RepairConfig) -> list[str]:
    known = [shard.id for shard in topology.shards.get(config.dataset, ())]
    found = _audit(clients).latest(config.dataset, config.table, known)
    foreign = foreign_rows(found)
    shards = [verdict.shard for verdict in found if verdict.verdict is Verdict.MISMATCHED]
    return sorted(shards) + (list(foreign.shards) if foreign and config.tombstones else [])


def _counted(verdicts: tuple[ShardVerdict, ...]) -> dict[str, int]:
    counts = Counter(str(verdict.verdict) for verdict in verdicts)
    names = ("missing", "extra", "mismatched_rows")
    rows = {name: sum(getattr(v, name.removesuffix("_rows")) for v in verdicts) for name in names}
    return {"shards": len(verdicts), **{str(kind): counts[str(kind)] for kind in Verdict}, **rows}


def _keys(topology: Topology, clients: Platform, translator: CdcTranslator) -> dict[tuple[str, str], dg.AssetKey]:
    return {
        (props.dataset, props.table): translator.get_asset_spec(props).key
        for props in table_props(topology, platform=clients.settings.platform)
    }


def _document(part: ShardRange) -> dict[str, Any]:
    return {"dataset": part.dataset, "table": part.table, "shards": list(part.shards)}


def _range(document: dict[str, Any]) -> ShardRange:
    return ShardRange(dataset=document["dataset"], table=document["table"], shards=tuple(document["shards"]))


def _plain(name: str) -> str:
    """A table's name as Dagster's mapping keys take it."""
    return "".join(char if char.isalnum() else "_" for char in name)
