"""Datasets whose author means harm, and what none of them may get: read from the plan, by rules of their own.

The rules here know what drivers, Kafka's clients, Connect and Debezium do with an option. They ask none of the code
that refuses options.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from cdc_platform.connectors.leader_files import leader_file
from cdc_platform.documents import Layout, load_yaml
from cdc_platform.documents.topology_fields import encode_cluster, encode_dataset, encode_shard
from cdc_platform.documents.znodes import assemble, read_cluster, read_dataset, read_shard, serialize
from cdc_platform.errors import BadInput, CdcError
from cdc_platform.model.observed import ObservedTopic
from cdc_platform.model.topology import Dataset, Engine, Shard, Topology
from cdc_platform.planning.actions import AddPartitions, AlterTopic, CreateConnector, CreateTopic, DeleteConnector
from cdc_platform.planning.inputs import PassPolicy
from cdc_platform.planning.memory import Memory
from cdc_platform.planning.plan import Plan
from cdc_platform.planning.planner import make_plan
from cdc_platform.reconciler.desired_state import desired_state, with_problems
from cdc_platform.settings import Settings
from cdc_platform.snapshots.row_conditions import sql_condition
from tests.planning.worlds import picture

DIRS = "/run/secrets"
OWN = Settings(
    secrets_dirs=(DIRS,),
    source_hosts=("db-*", "10.0.*", "*.ours.example", "fd00::1"),
    permitted_topics=("cdc.*", "shared.*"),
    # Where one is harmless and reads nothing, a refusal of ours would be no news.
    worker_kafka={"security.protocol": "SASL_SSL"},
)
VERIFIED = Settings(
    secrets_dirs=(DIRS,),
    source_hosts=OWN.source_hosts,
    permitted_topics=OWN.permitted_topics,
    source_ca="/etc/ca.pem",
    source_truststore="/etc/trust.p12",
)
# Made by others, and not in the platform's memory.
THEIRS = frozenset({"shared.pins.t", "shared.pins-t", "shared.pins_orders", "payments"})

# Each names something outside of the dataset, and says so.
_MARK = re.compile("evil", re.IGNORECASE)
_VALUES = (
    *("evil.example", "evil.example:9092", "http://evil.example/x", "jdbc:evil://evil.example", "ldap://evil.example"),
    *("org.evil.Klass", "com.evil.Provider", "/etc/evil", "/run/secrets/orders/evil", "file:///etc/evil", "../evil"),
    *("evil-topic", "__evil", "SELECT evil()", "evil=1&allowLoadLocalInfile=true", "evil\nbootstrap.servers=evil:1"),
)
_SWITCHES = (
    *("true", "false", "1", "0", "-1", "", " ", "all", "none", "PLAINTEXT", "disabled", "disable", "prefer", "allow"),
    *("preferred", "DISABLED", "Prefer", "require", "verify_ca", "lz4", "hunter2", "9" * 40, "never", "schema_only"),
)

# What a name means to those that read it, lower case. None of these is a dataset's to set.
_CLIENT = (
    *("config.providers", "config.providers.x.class", "config.providers.x.param.y", "bootstrap.servers"),
    *("metric.reporters", "interceptor.classes", "partitioner.class", "key.serializer", "value.serializer"),
    *("security.providers", "security.protocol", "ssl.engine.factory.class", "ssl.truststore.location"),
    *("ssl.truststore.certificates", "ssl.keystore.location", "ssl.keystore.key", "ssl.keystore.certificate.chain"),
    *("ssl.endpoint.identification.algorithm", "ssl.provider", "ssl.protocol", "ssl.enabled.protocols"),
    *("ssl.trustmanager.algorithm", "sasl.mechanism", "sasl.jaas.config", "sasl.login.class"),
    *("sasl.login.callback.handler.class", "sasl.client.callback.handler.class", "sasl.kerberos.kinit.cmd"),
    *("sasl.oauthbearer.token.endpoint.url", "sasl.oauthbearer.jwks.endpoint.url", "transactional.id", "client.id"),
    *("acks", "enable.idempotence", "group.id", "key.deserializer", "value.deserializer", "client.dns.lookup"),
)
_DRIVER = (
    *("socketfactory", "socketfactoryarg", "sslfactory", "sslfactoryarg", "sslhostnameverifier", "jaasapplicationname"),
    *("sslpasswordcallback", "authenticationpluginclassname", "xmlfactoryfactory", "loggerfile", "loggerlevel"),
    *("allowloadlocalinfile", "allowloadlocalinfileinpath", "allowurlinlocalinfile", "allowlocalinfile"),
    *("allowmultiqueries", "autodeserialize", "queryinterceptors", "connectionlifecycleinterceptors"),
    *("exceptioninterceptors", "propertiestransform", "clientinfoprovider", "connectionattributes", "logger"),
    *("serverrsapublickeyfile", "allowpublickeyretrieval", "defaultauthenticationplugin", "authenticationplugins"),
    *("disabledauthenticationplugins", "truststore", "truststoretype", "trustcertificatekeystoreurl", "keystore"),
    *("clientcertificatekeystoreurl", "serversslcert", "usessl", "requiressl", "verifyservercertificate", "sslmode"),
    *("disablesslhostnameverification", "trustservercertificate", "credentialtype", "restrictedauth", "localsocket"),
    *("socksproxyhost", "socksproxyport", "pipe", "namedpipepath", "useconfigs", "replication", "options"),
    *("sessionvariables", "initsql", "targetservertype", "hostrecheckseconds", "loadbalancehosts", "dnssrv", "sslcert"),
    *("sslkey", "sslrootcert", "kerberosservername", "gsslib", "requireauth", "passwordcharacterencoding", "ha.enable"),
)
_DATABASE: tuple[str, ...] = (
    "jdbc.driver",
    "protocol",
    "hostname",
    "port",
    "user",
    "password",
    "dbname",
    "initial.statements",
)
_DATABASE += ("include.list", "exclude.list", "sslfactory", "server.name", "history", "history.file.filename")
_HISTORY: tuple[str, ...] = (
    "file.filename",
    "file.path",
    "kafka.topic",
    "kafka.bootstrap.servers",
    "producer.bootstrap.servers",
)
_HISTORY += ("consumer.sasl.jaas.config", "producer.config.providers", "skip.unparseable.ddl", "s3.bucket.name")
_HISTORY += ("s3.endpoint", "jdbc.url", "jdbc.connection.url", "redis.address", "rocketmq.name.srv.addr")
_LINEAGE: tuple[str, ...] = (
    "integration.config.file.path",
    "integration.enabled",
    "integration.dataset.kafka.bootstrap.servers",
)
_LINEAGE += ("transport.url", "integration.job.owners")
_DEBEZIUM = (
    *("name", "connector.class", "tasks.max", "topic.prefix", "topic.naming.strategy", "topic.creation.groups"),
    *("topic.creation.default.partitions", "topic.heartbeat.prefix", "topic.transaction", "transforms", "predicates"),
    *("transforms.x.type", "transforms.cdcTable.replacement", "transforms.cdcHeartbeat.replacement"),
    *("predicates.cdcIsTable.pattern", "key.converter", "value.converter", "header.converter", "converters"),
    *("converters.x.type", "x.type", "post.processors", "config.providers", "config.providers.x.class"),
    *("config.action.reload", "signal.kafka.topic", "signal.kafka.bootstrap.servers", "signal.enabled.channels"),
    *("signal.file", "signal.data.collection", "signal.consumer.bootstrap.servers", "notification.enabled.channels"),
    *("notification.sink.topic.name", "notification.log", "snapshot.mode", "snapshot.mode.custom.name"),
    *("snapshot.query.mode", "snapshot.query.mode.custom.name", "snapshot.select.statement.overrides"),
    *("snapshot.locking.mode.custom.name", "schema.history.internal", "slot.name", "publication.name"),
    *("plugin.name", "slot.stream.params", "table.include.list", "database.include.list", "schema.include.list"),
    *("message.key.columns", "heartbeat.action.query", "sourceinfo.struct.maker", "transaction.metadata.factory"),
    *("offsets.storage.topic", "custom.metric.tags", "errors.deadletterqueue.topic.name", "openlineage.transport.url"),
    *("ssl.truststore.location", "ssl.keystore.location", "sasl.jaas.config", "security.protocol", "internal.x"),
)
_FORBIDDEN = frozenset(
    {
        *(f"{side}.override.{name}" for side in ("producer", "consumer", "admin") for name in _CLIENT),
        *(f"driver.{name}" for name in _DRIVER),
        *(f"database.{name}" for name in (*_DATABASE, "jdbc.url", "sslfactoryarg")),
        *(f"schema.history.internal.{name}" for name in _HISTORY),
        *(f"openlineage.{name}" for name in _LINEAGE),
        *(name.lower() for name in _DEBEZIUM if name != "custom.metric.tags"),
    }
)
# Those are driver options that may name a mode or a file of TLS; looked at by value.
_TLS_MODES = {"database.ssl.mode", "database.sslmode"}
_ENCRYPTED = re.compile(r"required?|verify[_-](ca|identity|full)|trust", re.IGNORECASE)
_TLS_FILES = re.compile(r"database\.(ssl\.(truststore|keystore)|ssl(cert|key|rootcert))")
# Below these prefixes an option is read by something that may make a class, open a file or reach a host.
_GUARDED = ("producer.", "consumer.", "admin.", "driver.", "database.", "openlineage.", "schema.history.")
_REACHES = re.compile(
    "class|provider|interceptor|reporter|factory|plugin|loader|file|path|director|location|url|uri|host|server"
    "|bootstrap|command|jndi|endpoint|address",
    re.IGNORECASE,
)
_SECRET = re.compile("passw|secret|token|jaas|credential", re.IGNORECASE)
_TAKEN: tuple[str, ...] = (
    "poll.interval.ms",
    "producer.override.linger.ms",
    "driver.connectTimeout",
    "time.precision.mode",
)
_TAKEN += ("database.ssl.mode", "database.sslmode", "database.ssl.truststore", "database.ssl.truststore.password")
_TAKEN += ("column.exclude.list", "max.batch.size", "custom.metric.tags", "database.server.id", "x.unknown")


def _mostly(good: Any, bad: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """The good value four times in five, so that many come all the way, with one thing wrong."""
    return st.sampled_from([st.just(good)] * 4 + [bad]).flatmap(lambda chosen: chosen)


def _respelled(name: str) -> st.SearchStrategy[str]:
    return st.sampled_from([name] * 6 + [name.upper(), f" {name}", f"{name} ", f"{name}\t", name.title(), f"{name}\0"])


_options = st.one_of(
    st.sampled_from(_TAKEN),
    st.sampled_from(sorted(_FORBIDDEN)).flatmap(_respelled),
    st.builds(
        "{}{}".format,
        st.sampled_from([*_GUARDED, "producer.override.", "sasl.", "ssl.", "snapshot.", "signal.", "errors.", ""]),
        st.sampled_from([*_DRIVER, *_CLIENT, *_HISTORY]) | st.text("a.Cl-_${}:", max_size=8),
    ),
    st.text(max_size=12),
)
_segments = st.sampled_from(["pins", "orders", "..", ".", "", "zk.properties", "s.properties", "pins ", "evil", "%2e"])
_paths = st.one_of(
    st.just(f"{DIRS}/pins/s.properties"),
    st.lists(_segments, max_size=4).map(lambda parts: "/".join([DIRS, *parts])),
    st.sampled_from(["/etc/passwd", "/proc/self/environ", "/var/lib/cdc-platform/leaders/orders.0.properties"]),
)
_references = st.one_of(
    st.builds("${{file:{}:{}}}".format, _paths, st.sampled_from(["p", "user", "", "a:b", "}"])),
    st.sampled_from(
        ["${env:CDC_PASSWORD}", "${env:WORKER}", "${env:HOME}", "${directory:/etc:passwd}", "${vault:a:b}"]
    ),
    st.sampled_from(["${${env:X}}", "$${env:X}", "${file:/etc/passwd}", "${ENV:HOME}", "${", "${:}", "${a:b:c}"]),
)
_values = st.one_of(
    st.sampled_from(_SWITCHES),
    st.sampled_from(_VALUES),
    _references,
    st.builds("{}{}{}".format, st.sampled_from(["", "x", " "]), _references, st.sampled_from(["", "x", "\n"])),
    st.text(max_size=10),
)
_GOOD = f"${{file:{DIRS}/pins/s.properties:p}}"
_names = st.sampled_from(
    ["t", "t", "t", "orders", "state", "configs", "T$1", "a|b", "${env:X}", "..", "t`; DROP", "$1"]
)
_hosts = st.one_of(
    st.sampled_from(["db-1", "db-2", "DB-3", "10.0.0.7", "a.ours.example"]),
    st.sampled_from(["evil.example", "db-1.evil.example", "10.0.evil.example", "10.0.0.1.evil.example", "evil"]),
    st.sampled_from(
        ["a.ours.example.evil.example", "xours.example", "db-", "127.0.0.1", "169.254.169.254", "[fd00::2]"]
    ),
    st.text("db-1.evl:[]@/?#", min_size=1, max_size=8),
)
_servers = st.builds(
    "{}:{}".format, st.just("db-1") | _hosts, st.sampled_from(["3306", "3306", "0", "99999", "3306?x"])
)
_hostile_patterns = st.one_of(
    st.sampled_from(["shared.{dataset}.{table}", "shared.{dataset}-{table}", "shared.{dataset}_{table}"]),
    st.sampled_from(["__{dataset}_{table}", "cdc-connect-{dataset}-{table}", "{dataset}.platform.{table}"]),
    st.sampled_from(["cdc.platform.{dataset}{table}", "{dataset}{table}", "payments{dataset}{table}"]),
    st.sampled_from(["${{env:X}}{dataset}{table}", "cdc.{dataset}.{table}{{}}", "cdc.{dataset!r}.{table}"]),
    st.text("{dataset}{table}.c_-$1\\", max_size=24),
)
_patterns = _mostly("cdc.{dataset}.{table}", _hostile_patterns)
_harmless = st.dictionaries(st.sampled_from(_TAKEN), st.sampled_from(_SWITCHES), max_size=1)
_overrides = _mostly({}, st.dictionaries(_options, _values, max_size=2) | _harmless)
_conditions = st.one_of(
    st.sampled_from(["v = 1", "v = 'a'' OR 1=1 -- '", "v = 'a\\' OR evil() -- '", "1=1) UNION SELECT evil FROM t -- "]),
    st.sampled_from(["evil() = 1", "v = (SELECT evil)", "v = 1; evil", "v IN (1) OR evil", "`v` = 1 /* evil */"]),
    st.lists(
        st.sampled_from(
            ["v", "=", "1", "'a'", "'", "''", "\\", "AND", "OR", "NOT", "(", ")", ",", "--", ";", '"', "`"]
        ),
        max_size=9,
    ).map(" ".join),
    st.text("v=1' \\\"`();-/*#$\0\nE", max_size=14),
)
_tables = st.one_of(
    _names,
    st.fixed_dictionaries({"name": _names}, optional={"schema": _names, "key": st.lists(_names, max_size=2)}),
)


@dataclass(frozen=True)
class Author:
    """What one writes: a dataset's document, and a backfill's condition."""

    dataset: Mapping[str, Any]
    condition: str
    has_ca: bool = False
    engine: Engine = field(default=Engine.MARIADB)

    def yaml(self) -> str:
        """The file with the operator's clusters, a victim's dataset, and theirs. JSON is YAML."""
        secret = f"${{file:{DIRS}/orders/s.properties:p}}"
        victim = {
            "engine": "mariadb",
            "tables": ["t"],
            "clusters": ["main"],
            "credentials": {"user": secret, "password": secret},
            "shards": {"00000": {"leader": "db-9:3306", "database": "orders"}},
        }
        clusters = {"main": {"urls": ["https://connect-1:8083"]}}
        return json.dumps({"clusters": clusters, "datasets": {"orders": victim, "pins": dict(self.dataset)}})


def _author(engine: Engine, dataset: dict[str, Any], condition: str, has_ca: bool) -> Author:
    return Author({"engine": engine.value, **dataset}, condition, has_ca, engine)


authors = st.builds(
    _author,
    engine=st.sampled_from(list(Engine)),
    dataset=st.fixed_dictionaries(
        {
            "tables": st.lists(_tables, min_size=1, max_size=2),
            "clusters": _mostly(["main"], st.sampled_from([["main", "other"], ["../main"], []])),
            "topic_pattern": _patterns,
            "credentials": st.fixed_dictionaries(
                {"user": _mostly(_GOOD, _references), "password": _mostly(_GOOD, _references)}
            ),
            "connector": _overrides,
            "shards": st.dictionaries(
                _mostly("00000", st.sampled_from(["7", "a-b", "..", "x/y", "o.00000", "${env:X}"])),
                st.fixed_dictionaries(
                    {"leader": _servers, "database": _names, "connector": _overrides},
                    optional={
                        "replicas": st.lists(_servers, max_size=1),
                        "generation": _mostly(3, st.integers(-1, 2**63)),
                    },
                ),
                min_size=1,
                max_size=2,
            ),
        },
        optional={
            "topics": st.fixed_dictionaries({"config": st.dictionaries(st.sampled_from(["retention.ms"]), _values)}),
            "extra": _overrides,
            "owners": st.lists(_values, max_size=1),
        },
    ),
    condition=_conditions,
    has_ca=st.booleans(),
)


def plan_of(author: Author, file: Path) -> tuple[Plan, Topology] | None:
    """The way of a dataset: file, znodes, topology, plan of a pass. None when the file is refused as a whole."""
    file.write_text(author.yaml(), encoding="utf-8")
    try:
        imported = load_yaml(file)
    except CdcError:
        return None
    own = VERIFIED if author.has_ca else OWN
    topology = with_problems(_through_zookeeper(imported), own)
    there = {name: ObservedTopic(name=name, partitions=1, replication=1, config={}) for name in THEIRS}
    planned = make_plan(picture(topology, topics=there), desired_state(topology, own), Memory(), PassPolicy())
    return planned.plan, topology


def _through_zookeeper(topology: Topology) -> Topology:
    layout = Layout("/cdc")

    def written(document: dict[str, Any]) -> bytes:
        return serialize(document, "")

    return assemble(
        clusters={n: read_cluster(layout, n, written(encode_cluster(c))) for n, c in topology.clusters.items()},
        datasets={n: read_dataset(layout, n, written(encode_dataset(d))) for n, d in topology.datasets.items()},
        shards={
            n: [read_shard(layout, n, s.id, written(encode_shard(s))) for s in shards]
            for n, shards in topology.shards.items()
        },
    )


def assert_gets_nothing_of_others(author: Author, file: Path) -> bool:
    """True when a connector of theirs came out of it; whatever came out is theirs."""
    _assert_condition_is_harmless(author)
    found = plan_of(author, file)
    if found is None:
        return False
    plan, topology = found
    mine = [a for a in plan.actions if isinstance(a, CreateConnector) and a.name.startswith("pins.")]
    assert not [a for a in plan.actions if isinstance(a, DeleteConnector)]
    for topic in (a.topic.name for a in plan.actions if isinstance(a, CreateTopic)):
        _assert_ours(topic)
    changed = {a.topic for a in plan.actions if isinstance(a, AlterTopic | AddPartitions)}
    assert not changed & THEIRS, changed
    for action in mine:
        dataset = topology.datasets["pins"]
        (shard,) = (s for s in topology.shards["pins"] if s.name == action.name)
        for server in (shard.leader, *shard.replicas):
            assert re.fullmatch(r"db-[\w-]*|10\.0\.[0-9.]+|(.*\.)ours\.example", server.host, re.IGNORECASE), server
        _assert_config_is_theirs(dict(action.config), dataset, shard, topology, author)
    others = {a.name: dict(a.config) for a in plan.actions if isinstance(a, CreateConnector)}
    collides = any(problem.name in ("orders", "orders.00000") for problem in topology.problems)
    assert collides or "orders.00000" in others, "a stranger's dataset is left without its connector"
    assert "pins" not in json.dumps(others.get("orders.00000", {}))
    return bool(mine)


def _assert_ours(topic: str) -> None:
    platform = (
        r"cdc\.platform\.(schema-history|signals|transactions)[.-]?.*|cdc\.platform\.(state|heartbeat|notifications)"
    )
    assert re.fullmatch(rf"(cdc|shared)\.[A-Za-z0-9._-]+|{platform}", topic), topic
    if topic.startswith("cdc.platform."):
        assert re.fullmatch(platform, topic), topic
        assert re.search(r"\.(pins|orders)(-|$)|schema-history|state|heartbeat|notifications", topic), topic
    assert topic not in THEIRS


def _assert_config_is_theirs(
    config: dict[str, str], dataset: Dataset, shard: Shard, topology: Topology, author: Author
) -> None:
    overrides = {**dataset.connector, **shard.connector}
    for option, value in overrides.items():
        _assert_option_is_harmless(option, value, author)
    where = leader_file(topology.clusters["main"], shard)
    given = {
        "database.hostname": f"${{file:{where}:host}}",
        "database.port": f"${{file:{where}:port}}",
        "transforms.cdcWorker.value.literal": "${env:WORKER}",
    }
    assert where == f"/var/lib/cdc-platform/leaders/pins.{shard.id}.properties"
    for option, value in config.items():
        if option in given:
            assert value == given[option]
        elif "${" in value:
            assert option in ("database.user", "database.password") or _SECRET.search(option), (option, value)
            _assert_own_secret(value)
    assert config["name" if "name" in config else "topic.prefix"] == f"pins.{shard.id}"
    assert config["connector.class"].startswith("io.debezium.connector.")
    for option in ("key.converter", "value.converter"):
        assert config[option].startswith("org.apache.kafka.connect.")
    assert config["transforms.cdcHeartbeat.replacement"] == "cdc.platform.heartbeat"
    assert config["notification.sink.topic.name"] == "cdc.platform.notifications"
    assert config["transforms.cdcTransaction.replacement"] == "cdc.platform.transactions.pins"
    if "schema.history.internal.kafka.topic" in config:
        assert config["schema.history.internal.kafka.topic"] == f"cdc.platform.schema-history.pins-{shard.id}"
    assert config["signal.kafka.topic"].startswith("cdc.platform.signals.pins-")
    for table in dataset.tables:
        within = (table.schema or "public") if dataset.engine is Engine.POSTGRES else shard.database
        named = f"pins.{shard.id}.{within}.{table.name}".replace("$", "_")
        matched = re.fullmatch(config["transforms.cdcTable.regex"], named)
        assert matched is not None, named
        _assert_ours(config["transforms.cdcTable.replacement"].replace("$1", matched.group(1)))
    # No other connector's topic goes through this one's route.
    assert re.fullmatch(config["transforms.cdcTable.regex"], "orders.00000.orders.t") is None
    if author.has_ca:
        tls = {option: value for option, value in config.items() if re.search(r"^database\.ssl", option)}
        assert set(tls.values()) <= {"verify-full", "verify_identity", "/etc/ca.pem", "/etc/trust.p12"}, tls


def _assert_option_is_harmless(option: str, value: str, author: Author) -> None:
    said = (option, value)
    name = option.strip(" \t\0\n").lower()
    assert name not in _FORBIDDEN, said
    assert option.isascii() and option.isprintable() and " " not in option, said
    if "${" in value:
        assert _SECRET.search(option), said
        _assert_own_secret(value)
    if _SECRET.search(option):
        assert value.startswith("${file:"), said
    if name in _TLS_MODES:
        assert _ENCRYPTED.fullmatch(value) and not author.has_ca, said
    elif _TLS_FILES.fullmatch(name):
        assert value.startswith(f"{DIRS}/pins/") and posixpath.normpath(value) == value, said
    elif name.startswith(_GUARDED) and not _SECRET.search(option):
        assert re.fullmatch(r"[\w -]*", value), said
    if _REACHES.search(option):
        assert _MARK.search(value) is None or option in ("column.include.list",), said
    if "topic" in name:
        assert _MARK.search(value) is None, said


def _assert_own_secret(value: str) -> None:
    found = re.fullmatch(r"\$\{file:(/[^:{}\s]+):[^:{}\s]+\}", value)
    assert found is not None, value
    path = found.group(1)
    assert path.startswith(f"{DIRS}/pins/") and posixpath.normpath(path) == path, value


def _assert_condition_is_harmless(author: Author) -> None:
    """Of SQL nothing comes through but columns, comparisons and literals."""
    try:
        rendered = sql_condition(author.condition, author.engine)
    except BadInput:
        return
    quote = '"' if author.engine is Engine.POSTGRES else "`"
    rest, at = "", 0
    while at < len(rendered):
        # As the server reads it: a literal's end is looked for first, then an identifier's.
        literal = re.compile(r"E?'(?:[^'\\]|''|\\\\)*'").match(rendered, at)
        column = re.compile(rf"{quote}[A-Za-z_][A-Za-z0-9_$]*{quote}").match(rendered, at)
        found = literal or column
        rest += " " if found else rendered[at]
        at = found.end() if found else at + 1
    words = re.sub(r"-?\b[0-9]+(\.[0-9]+)?\b|<>|<=|>=|[<>=(),]", " ", rest).split()
    assert set(words) <= {"AND", "OR", "NOT", "IN", "BETWEEN", "IS", "NULL", "TRUE", "FALSE"}, rendered
