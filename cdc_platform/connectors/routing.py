"""Where a connector's records go: one topic per table for all shards, the shard in key and header.

Plain Connect parts (docs/decisions/0042). Debezium writes a table's changes to
`<topic.prefix>.<database or schema>.<table>`; heartbeats to
`__debezium-heartbeat.<topic.prefix>`; BEGIN and END to
`<topic.prefix>.transaction`; notifications straight to their topic. Only the
first get the shard put into their key; the second and third are renamed;
headers go on all. What matches nothing keeps its name and fails at the broker,
which makes no topics: a record is never misfiled.
"""

from __future__ import annotations

from cdc_platform.connectors.identity import SHARD_KEY_FIELD, transaction_topic
from cdc_platform.connectors.tables import container, literal
from cdc_platform.connectors.worker_properties import WORKER_ENV
from cdc_platform.model.topology import Dataset, Shard
from cdc_platform.settings import Settings

# Headers of every record: `<dataset>.<shard>`, and the worker that sent it.
SHARD_HEADER = "cdc.shard"
WORKER_HEADER = "cdc.worker"

HEARTBEAT_PREFIX = "__debezium-heartbeat"

_HEARTBEATS = literal(HEARTBEAT_PREFIX)
_TRANSFORMS = "org.apache.kafka.connect.transforms."


def table_topics_regex(dataset: Dataset, shard: Shard) -> str:
    """A Java regex for the names that Debezium gives this shard's table topics; group 1 is the table."""
    # Debezium writes `_` for what Kafka forbids in a topic name.
    names = sorted({container(dataset, shard, table).replace("$", "_") for table in dataset.tables})
    middle = "|".join(literal(name) for name in names)
    if len(names) > 1:
        middle = f"(?:{middle})"
    return rf"{literal(shard.name)}\.{middle}\.([^.]+)"


def dataset_part(settings: Settings, dataset: Dataset) -> dict[str, str]:
    """The chain of transforms and its predicate, as far as all shards share it."""
    return {
        # The key first: its predicate goes by the name that Debezium gave.
        "transforms": "cdcKey,cdcTable,cdcTransaction,cdcHeartbeat,cdcShard,cdcWorker",
        "predicates": "cdcIsTable",
        "predicates.cdcIsTable.type": f"{_TRANSFORMS}predicates.TopicNameMatches",
        "transforms.cdcKey.type": f"{_TRANSFORMS}InsertField$Key",
        "transforms.cdcKey.predicate": "cdcIsTable",
        # The exclamation mark makes the field required in the key's schema.
        "transforms.cdcKey.static.field": f"{SHARD_KEY_FIELD}!",
        "transforms.cdcKey.replace.null.with.default": "false",
        "transforms.cdcTable.type": f"{_TRANSFORMS}RegexRouter",
        "transforms.cdcTable.replacement": dataset.topic_pattern.format(dataset=dataset.name, table="$1"),
        "transforms.cdcTransaction.type": f"{_TRANSFORMS}RegexRouter",
        "transforms.cdcTransaction.replacement": transaction_topic(settings, dataset),
        "transforms.cdcHeartbeat.type": f"{_TRANSFORMS}RegexRouter",
        "transforms.cdcHeartbeat.replacement": settings.heartbeat_topic,
        "transforms.cdcShard.type": f"{_TRANSFORMS}InsertHeader",
        "transforms.cdcShard.header": SHARD_HEADER,
        "transforms.cdcWorker.type": f"{_TRANSFORMS}InsertHeader",
        "transforms.cdcWorker.header": WORKER_HEADER,
        "transforms.cdcWorker.value.literal": f"${{env:{WORKER_ENV}}}",
    }


def shard_part(dataset: Dataset, shard: Shard) -> dict[str, str]:
    """What the chain needs to know of the shard."""
    prefix = literal(shard.name)
    table = table_topics_regex(dataset, shard)
    return {
        "predicates.cdcIsTable.pattern": table,
        "transforms.cdcKey.static.value": shard.id,
        "transforms.cdcTable.regex": table,
        "transforms.cdcTransaction.regex": rf"{prefix}\.transaction",
        "transforms.cdcHeartbeat.regex": rf"{_HEARTBEATS}\.{prefix}",
        # InsertHeader guesses types ("00000" becomes the number 0): the full name is always text.
        "transforms.cdcShard.value.literal": shard.name,
    }
