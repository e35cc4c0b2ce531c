"""One grammar of references and one list of secret names, for settings, documents, overrides and resolution alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cdc_platform.clients.secrets import resolve
from cdc_platform.connectors.config import desired_config
from cdc_platform.connectors.overrides import check_shard
from cdc_platform.documents.fields import refuse_plain_secrets
from cdc_platform.errors import BadInput, SecretUnresolved
from cdc_platform.model.secret_references import (
    REFERENCE,
    is_reference,
    is_secret_in_plain_text,
    names_secret,
)
from cdc_platform.settings import Settings
from tests.connectors.cases import EAST, PINS, PINS_7
from tests.own_secrets import SECRETS_DIRS

GOOD = ["${file:/run/secrets/db.properties:user}", "${env:DB_PASSWORD}", "${env:_x1}", "${file:/a:b.c-d}"]
BAD = [
    "",
    "hunter2",
    "${file:relative:key}",
    "${file:/no-key}",
    "${file:/no-key:}",
    "${file:/a:b:c}",
    "${file:/with space:key}",
    "${file::key}",
    "${env:}",
    "${env:1A}",
    "${env:A-B}",
    "${ENV:A}",
    "${vault:a}",
    "$ {env:A}",
    "${env:A",
    "${env:A}\n",
    "hunter2${env:A}",
    "${env:A}hunter2",
]
SECRET = [
    "password",
    "ssl.keystore.password",
    "ssl.key.password",
    "sasl.password",
    "SASL.Password",
    "database.passwd",
    "passphrase",
    "client.secret",
    "sasl.oauthbearer.client.secret",
    "access_token",
    "aws.credentials",
    "basic.auth.credentials.source",
    "sasl.jaas.config",
    "producer.override.sasl.jaas.config",
    "sasl.oauthbearer.config",
    "basic.auth.user.info",
    "api.key",
    "api_key",
    "api-key",
    "apikey",
    "ssl.key.pem",
    "ssl.keystore.key",
    "column.mask.hash.SHA-256.with.salt",
]
PUBLIC = [
    "bootstrap.servers",
    "poll.interval.ms",
    "key.converter",
    "message.key.columns",
    "ssl.ca.location",
    "ssl.key.location",
    "sasl.username",
    "sasl.oauthbearer.token.endpoint.url",
]


@pytest.mark.parametrize("text", GOOD)
def test_references_are_known(text: str) -> None:
    assert is_reference(text) and not is_reference(f"x{text}")


@pytest.mark.parametrize("text", BAD)
def test_what_is_not_just_a_reference_is_none(text: str) -> None:
    assert not is_reference(text)


@pytest.mark.parametrize("name", SECRET)
def test_names_of_secrets_are_known(name: str) -> None:
    assert names_secret(name) and is_secret_in_plain_text(name, "hunter2")
    assert not is_secret_in_plain_text(name, "${env:A}")


@pytest.mark.parametrize("name", PUBLIC)
def test_other_names_are_free(name: str) -> None:
    assert not names_secret(name) and not is_secret_in_plain_text(name, "hunter2")


def test_a_text_of_several_parts_must_hold_a_reference() -> None:
    jaas = 'ScramLoginModule required username="u" password="%s";'
    assert is_secret_in_plain_text("sasl.jaas.config", jaas % "hunter2")
    assert not is_secret_in_plain_text("sasl.jaas.config", jaas % "${file:/a:b}")


def in_settings(name: str, value: str, tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(f"[kafka]\n\"bootstrap.servers\" = 'k:1'\n\"{name}\" = '''{value}'''\n")
    Settings.load(file, {})


def in_worker_kafka(name: str, value: str, tmp_path: Path) -> None:
    settings = Settings(worker_kafka={name: value}, secrets_dirs=SECRETS_DIRS)
    desired_config(PINS, PINS_7, EAST, settings)


def in_a_document(name: str, value: str, tmp_path: Path) -> None:
    refuse_plain_secrets({"labels": {name: value}}, where="here")


def in_an_override(name: str, value: str, tmp_path: Path) -> None:
    check_shard(
        PINS,
        replace(PINS_7, connector={f"driver.{name}": value}),
        Settings(permitted_connector_options=("*",), secrets_dirs=SECRETS_DIRS),
    )


PLACES: list[Callable[[str, str, Path], None]] = [in_settings, in_worker_kafka, in_a_document, in_an_override]
# What is the platform's own lies elsewhere than what is a dataset's.
OWN, OF_THE_DATASET = "${file:/run/platform-secrets/x:y}", "${file:/run/secrets/pins/x:y}"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", SECRET)
def test_a_plain_secret_is_refused_everywhere_and_not_shown(
    tmp_path: Path, place: Callable[[str, str, Path], None], name: str
) -> None:
    with pytest.raises(BadInput, match="reference") as refused:
        place(name, "hunter2", tmp_path)
    assert name in str(refused.value) and "hunter2" not in str(refused.value)
    place(name, OF_THE_DATASET if place is in_an_override else OWN, tmp_path)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", [text for text in BAD if text and "\n" not in text])
def test_no_other_spelling_passes_for_a_reference(
    tmp_path: Path, place: Callable[[str, str, Path], None], value: str
) -> None:
    with pytest.raises(BadInput, match="reference"):
        place("ssl.truststore.password", value, tmp_path)


@pytest.mark.parametrize("text", [text for text in BAD if text.startswith(("${file:", "${env:")) and "}" in text])
def test_what_a_worker_would_read_otherwise_is_not_resolved(text: str) -> None:
    if REFERENCE.search(text):
        assert resolve(text, env={"A": "1"}) == text.replace("${env:A}", "1")
    else:
        with pytest.raises(SecretUnresolved):
            resolve(text, env={"A": "1"})
