"""The ready ACL lists of examples/acls, applied to a secure stack."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from cdc_platform.local.stack import Stack
from cdc_platform.local.stack_security import SASL, Security
from tests.surface.packaging import ROOT

LIST = ROOT / "examples" / "acls" / "kafka.sh"
CONSUMER, PASSWORD = "cdc-consumer", "consumers-own"
_RESOURCES = {
    "--topic": ResourceType.TOPIC,
    "--group": ResourceType.GROUP,
    "--transactional-id": ResourceType.TRANSACTIONAL_ID,
}


def bindings(principals: dict[str, str]) -> Iterator[AclBinding]:
    """Those of the list, by the names of a stack's users."""
    for line in LIST.read_text().splitlines():
        if not line.startswith("acl "):
            continue
        words = shlex.split(line)
        options = list(zip(words[1:], [*words[2:], ""], strict=False))
        named = dict(options)
        denied = "--deny-principal" in named
        principal = named["--deny-principal" if denied else "--allow-principal"].removeprefix("User:")
        kind, name = ResourceType.BROKER, "kafka-cluster"
        for option, each in _RESOURCES.items():
            if option in named:
                kind, name = each, named[option]
        prefixed = named.get("--resource-pattern-type") == "prefixed"
        for option, value in options:
            if option == "--operation":
                yield AclBinding(
                    kind,
                    name,
                    ResourcePatternType.PREFIXED if prefixed else ResourcePatternType.LITERAL,
                    f"User:{principals[principal]}",
                    "*",
                    AclOperation[re.sub(r"(?<=[a-z])(?=[A-Z])", "_", value).upper()],
                    AclPermissionType.DENY if denied else AclPermissionType.ALLOW,
                )


def client(stack: Stack, user: str, password: str) -> dict[str, str]:
    """A client of the stack's Kafka as another user."""
    return {**stack.kafka_client, "sasl.username": user, "sasl.password": password}


def apply(stack: Stack) -> None:
    """Put the list into force, and make a consumer's login."""
    logins = Security(stack.directory).logins
    admin = AdminClient({**client(stack, logins["kafka-broker"].user, logins["kafka-broker"].password)})
    names = {
        "cdc-platform": logins["kafka-platform"].user,
        "cdc-worker": logins["kafka-worker"].user,
        "cdc-consumer": CONSUMER,
    }
    login = ScramCredentialInfo(ScramMechanism[SASL.replace("-", "_")], 4096)
    made = UserScramCredentialUpsertion(CONSUMER, login, PASSWORD.encode())
    for waiting in admin.alter_user_scram_credentials([made]).values():
        waiting.result(30)
    for created in admin.create_acls(list(bindings(names))).values():
        created.result(30)
