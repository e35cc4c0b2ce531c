"""A secret in plain text is refused wherever it stands, before anything else is said, and is not printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_platform.documents.topology_fields import decode_cluster, decode_dataset, decode_shard
from cdc_platform.documents.topology_file import parse_yaml
from cdc_platform.errors import SettingsError, TopologyError
from cdc_platform.model.secret_references import is_secret_in_plain_text
from cdc_platform.settings import Settings

SECRET = "hunter2Zq"
REFERENCE = "${file:/s/pins/f:password}"
DATASET: dict[str, Any] = {
    "engine": "mariadb",
    "tables": ["pins"],
    "clusters": ["c"],
    "credentials": {"user": "${file:/s/pins/f:user}", "password": REFERENCE},
}
PLACES: dict[str, dict[str, Any]] = {
    "top": {"db_password": SECRET},
    "credentials": {"credentials": {**DATASET["credentials"], "old_password": SECRET}},
    "verification": {"verification": {"a": {"password": SECRET}}},
    "extra": {"extra": {"x": {"password": SECRET}}},
    "list": {"extra": {"x": [{"y": [{"api_key": SECRET}]}]}},
    "below": {"extra": {"passwords": {"alice": SECRET}}},
    "several": {"extra": {"tokens": [SECRET]}},
    "url": {"extra": {"hook": f"https://user:{SECRET}@example.com/x"}},
    "connector": {"connector": {"database.ssl.truststore.password": SECRET}},
    "topics": {"topics": {"config": {"secret.key": SECRET}}},
    "part of a reference": {"connector": {"database.password": SECRET + REFERENCE}},
    "jaas": {"connector": {"a.jaas.config": f'X required user="{REFERENCE}" password="{SECRET}" token="{REFERENCE}";'}},
}


@pytest.mark.parametrize("more", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("strict", [True, False])
def test_a_datasets_plain_secret_is_refused_and_not_printed(more: dict[str, Any], strict: bool) -> None:
    with pytest.raises(TopologyError, match="looks like a secret") as caught:
        decode_dataset("pins", {**DATASET, **more}, where="/cdc/datasets/pins", strict=strict)
    assert SECRET not in str(caught.value)


def test_so_it_is_of_shards_clusters_and_files() -> None:
    shard = {"leader": "db:1", "database": "d", "password": SECRET}
    cluster = {"urls": ["http://c:1"], "metrics": {"w": f"http://u:{SECRET}@host"}}
    with pytest.raises(TopologyError, match="looks like a secret") as of_shard:
        decode_shard("pins", "00000", shard, where="w")
    with pytest.raises(TopologyError, match="looks like a secret") as of_cluster:
        decode_cluster("c", cluster, where="w")
    with pytest.raises(TopologyError, match="looks like a secret") as of_file:
        parse_yaml(f"nothing: 1\nzookeeper:\n  password: 12345\ndatasets: {{}}\nmore: {SECRET}\n")
    assert all(
        SECRET not in str(one.value) and "12345" not in str(one.value) for one in (of_shard, of_cluster, of_file)
    )


def test_what_is_none_is_taken() -> None:
    found = decode_dataset(
        "pins",
        {
            **DATASET,
            "extra": {"team": "tokens", "retention": 5, "tokens_are_fine": True, "hook": "https://example.com"},
        },
        where="w",
        strict=True,
    )
    assert found.extra["team"] == "tokens"
    jaas = f'X required username="worker" password="{REFERENCE}";'
    assert not is_secret_in_plain_text("sasl.jaas.config", jaas)
    assert not is_secret_in_plain_text("basic.auth.user.info", f"user:{REFERENCE}")
    assert is_secret_in_plain_text("basic.auth.user.info", f"{REFERENCE}:{SECRET}")


@given(st.recursive(st.just({"password": SECRET}), lambda inner: st.one_of(
    st.lists(inner, min_size=1, max_size=2), st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=2)
), max_leaves=6))  # fmt: skip
def test_no_depth_hides_one(deep: Any) -> None:
    with pytest.raises(TopologyError, match="looks like a secret"):
        decode_dataset("pins", {**DATASET, "extra": {"x": deep}}, where="w", strict=True)


@pytest.mark.parametrize(
    "text",
    [
        'zookeeper_password = "hunter2Zq${env:X}"',
        'alerts.r.url = "slack://hunter2Zq/${env:X}"',
        'kafka."sasl.jaas.config" = \'X username="${env:U}" password="hunter2Zq";\'\nkafka."bootstrap.servers" = "k:1"',
    ],
)
def test_a_setting_that_is_a_secret_is_a_reference_as_a_whole(tmp_path: Path, text: str) -> None:
    file = tmp_path / "cdc-platform.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match="must be a reference") as caught:
        Settings.load(file, env={})
    assert SECRET not in str(caught.value)
