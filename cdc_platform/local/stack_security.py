"""The secure stack's certificates and accounts, and the configuration of each side.

One authority of the stack's own signs one certificate for loopback, which broker and workers
share. Passwords are random, in files that only this user can read; settings and connector
configs name them by `${file:...}`.
"""

from __future__ import annotations

import base64
import hashlib
import secrets as random_source
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12

from cdc_platform.clients.secrets import resolve, resolve_all
from cdc_platform.local.stack_passwords import Login, ensure_login, write_private

SASL = "SCRAM-SHA-512"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"
_ITERATIONS = 4096


@dataclass(frozen=True)
class Security:
    """The security of the stack in one directory; files are made when first asked for."""

    directory: Path

    @property
    def secrets(self) -> Path:
        """Where logins and keys are."""
        return self.directory / "secrets"

    @property
    def ca(self) -> Path:
        """The authority's certificate, PEM. No secret."""
        return self.directory / "ca.pem"

    @property
    def keystore(self) -> Path:
        """Key and certificate of broker and workers, PKCS#12."""
        return self.secrets / "keystore.p12"

    @property
    def truststore(self) -> Path:
        """The authority's certificate, PKCS#12."""
        return self.secrets / "truststore.p12"

    @property
    def connect_users(self) -> Path:
        """The users of the workers' REST API, `user=password` a line."""
        return self.secrets / "connect-users.properties"

    @cached_property
    def logins(self) -> Mapping[str, Login]:
        """All accounts by the name of their file."""
        users = {
            "kafka-broker": "broker",
            "kafka-platform": "platform",
            "kafka-worker": "worker",
            "zookeeper": "cdc",
            "connect": "cdc",
            "keystore": "keystore",
        }
        return {name: ensure_login(self.secrets, name, user) for name, user in users.items()}

    def prepare(self) -> None:
        """Make certificates, keystores and the REST users' file, once."""
        if self.ca.exists():
            return
        password = self.logins["keystore"].password.encode()
        # Path length 0: it signs the stack's certificate and no other authority. Its key is not kept.
        made = trustme.CA(path_length=0, organization_name="cdc-platform local stack")
        # The broker is its controller's client with it: trustme's certificates are for both sides.
        served = made.issue_cert("127.0.0.1", "localhost", common_name="127.0.0.1")
        authority = x509.load_pem_x509_certificate(made.cert_pem.bytes())
        certificate = x509.load_pem_x509_certificate(served.cert_chain_pems[0].bytes())
        key = serialization.load_pem_private_key(served.private_key_pem.bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        protection = (
            serialization.PrivateFormat.PKCS12.encryption_builder()
            .kdf_rounds(10_000)
            .key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC)
            .hmac_hash(hashes.SHA256())
            .build(password)
        )
        write_private(
            self.keystore, pkcs12.serialize_key_and_certificates(b"stack", key, certificate, [authority], protection)
        )
        trusted = [pkcs12.PKCS12Certificate(authority, b"authority")]
        write_private(self.truststore, pkcs12.serialize_java_truststore(trusted, protection))
        rest = self.logins["connect"]
        write_private(self.connect_users, f"{rest.user}={rest.password}\n".encode())
        # Last: it says that all the others are there. Readable: Postgres and users need no key.
        self.ca.write_bytes(authority.public_bytes(serialization.Encoding.PEM))

    def reference(self, name: str) -> str:
        """`${file:...}` of a login's password."""
        return f"${{file:{self.secrets / name}.properties:password}}"

    def kafka_client(self, bootstrap: str) -> dict[str, str]:
        """The control plane's connection to Kafka: librdkafka's spelling, secrets as references."""
        return {
            "bootstrap.servers": bootstrap,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": SASL,
            "sasl.username": self.logins["kafka-platform"].user,
            "sasl.password": self.reference("kafka-platform"),
            "ssl.ca.location": str(self.ca),
        }

    def resolved_kafka_client(self, bootstrap: str) -> dict[str, str]:
        """The same with its secrets, for a client that is made at once."""
        return resolve_all(self.kafka_client(bootstrap))

    def worker_kafka(self) -> dict[str, str]:
        """The workers' connection to Kafka: Java's spelling, secrets as references."""
        return {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": SASL,
            "sasl.jaas.config": f'{_SCRAM} required username="{self.logins["kafka-worker"].user}" '
            f'password="{self.reference("kafka-worker")}";',
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.ca),
        }

    def broker(self) -> dict[str, str]:
        """Broker properties; they hold secrets, as brokers read no references without a provider of their own."""
        keystore = self.logins["keystore"].password
        own = self.logins["kafka-broker"]
        tls = {
            "ssl.keystore.type": "PKCS12",
            "ssl.keystore.location": str(self.keystore),
            "ssl.keystore.password": keystore,
            "ssl.key.password": keystore,
            "ssl.truststore.type": "PKCS12",
            "ssl.truststore.location": str(self.truststore),
            "ssl.truststore.password": keystore,
        }
        return {
            **tls,
            "sasl.enabled.mechanisms": SASL,
            "sasl.mechanism.inter.broker.protocol": SASL,
            "inter.broker.listener.name": "CLIENTS",
            "listener.security.protocol.map": "CLIENTS:SASL_SSL,CONTROLLER:SSL",
            "listener.name.controller.ssl.client.auth": "required",
            # Who has an ACL somewhere is held to it there: examples/acls.
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "true",
            "super.users": f"User:{own.user}",
            # Who has a certificate for the controller is the broker.
            "listener.name.controller.ssl.principal.mapping.rules": f"RULE:^.*$/{own.user}/",
            f"listener.name.clients.{SASL.lower()}.sasl.jaas.config": f'{_SCRAM} required username="{own.user}" '
            f'password="{own.password}";',
        }

    def scram_accounts(self) -> list[str]:
        """Arguments of Kafka's StorageTool that make the accounts. Salted passwords: arguments can be seen."""
        found = []
        for name in ("kafka-broker", "kafka-platform", "kafka-worker"):
            login = self.logins[name]
            salt = random_source.token_bytes(24)
            salted = hashlib.pbkdf2_hmac("sha512", login.password.encode(), salt, _ITERATIONS)
            found += [
                "--add-scram",
                f'{SASL}=[name="{login.user}",iterations={_ITERATIONS},'
                f'salt="{base64.b64encode(salt).decode()}",saltedpassword="{base64.b64encode(salted).decode()}"]',
            ]
        return found

    def worker(self, home: Path) -> tuple[dict[str, str], tuple[str, ...]]:
        """Worker properties of the REST API (https, basic authentication), and the JVM flags that go with them."""
        jaas = home / "jaas.conf"
        write_private(
            jaas,
            "KafkaConnect {\n  org.apache.kafka.connect.rest.basic.auth.extension.PropertyFileLoginModule required\n"
            f'  file="{self.connect_users}";\n}};\n'.encode(),
        )
        password = self.reference("keystore")
        properties = {
            "rest.extension.classes": "org.apache.kafka.connect.rest.basic.auth.extension."
            "BasicAuthSecurityRestExtension",
            "listeners.https.ssl.keystore.type": "PKCS12",
            "listeners.https.ssl.keystore.location": str(self.keystore),
            "listeners.https.ssl.keystore.password": password,
            "listeners.https.ssl.key.password": password,
            "listeners.https.ssl.truststore.type": "PKCS12",
            "listeners.https.ssl.truststore.location": str(self.truststore),
            "listeners.https.ssl.truststore.password": password,
        }
        return properties, (f"-Djava.security.auth.login.config={jaas}",)

    def settings_text(self) -> str:
        """What the settings file says of ZooKeeper and Connect: references only."""
        return (
            f'zookeeper_user = "{self.logins["zookeeper"].user}"\n'
            f'zookeeper_password = "{self.reference("zookeeper")}"\n'
            f'connect_user = "{self.logins["connect"].user}"\n'
            f'connect_password = "{self.reference("connect")}"\n'
            f'connect_ca = "{self.ca}"\n'
        )

    def zookeeper_auth(self) -> tuple[str, str]:
        """User and password of ZooKeeper."""
        login = self.logins["zookeeper"]
        return login.user, resolve(self.reference("zookeeper"))

    def rest_auth(self) -> tuple[str, str]:
        """User and password of the REST API."""
        login = self.logins["connect"]
        return login.user, resolve(self.reference("connect"))

    def trust(self) -> ssl.SSLContext:
        """Trusts the stack's authority and no other."""
        return ssl.create_default_context(cafile=str(self.ca))
