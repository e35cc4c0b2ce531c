"""In-memory fakes of the outside systems, for the tests of users too. Contract tests hold them to the real ones."""

from cdc_platform.testing.connect import FakeConnect
from cdc_platform.testing.connect_model import ConnectModel
from cdc_platform.testing.connect_rest import FakeConnectServer, Fault, FaultKind
from cdc_platform.testing.kafka import FakeKafka
from cdc_platform.testing.quotas import FakeQuotas
from cdc_platform.testing.state_topic import FakeStateStore, FakeStateTopic
from cdc_platform.testing.zookeeper import InMemoryTopologyStore, InMemoryZooKeeper

__all__ = [
    "ConnectModel",
    "FakeConnect",
    "FakeConnectServer",
    "FakeKafka",
    "FakeQuotas",
    "FakeStateStore",
    "FakeStateTopic",
    "Fault",
    "FaultKind",
    "InMemoryTopologyStore",
    "InMemoryZooKeeper",
]
