"""A cluster's znode names a URL: the login of Connect goes to nobody in clear."""

from __future__ import annotations

import pytest

from cdc_platform.clients.connect.client import ConnectClient
from cdc_platform.clients.connect.http import _is_open
from cdc_platform.errors import ConnectUnavailable


def test_a_login_does_not_go_over_plain_http() -> None:
    # 192.0.2.0/24 is for documentation: nothing is there, and nothing is asked.
    with (
        ConnectClient("main", ["http://192.0.2.1:8083"], timeout=1.0, auth=("cdc", "hunter2")) as connect,
        pytest.raises(ConnectUnavailable, match="plain http"),
    ):
        connect.connectors()


@pytest.mark.parametrize(
    ("url", "is_open"),
    [
        ("http://evil.example:8083", True),
        ("http://127.0.0.1.evil.example", True),
        ("http://10.0.0.1:8083", True),
        ("https://connect-1:8083", False),
        ("http://127.0.0.1:8083", False),
        ("http://[::1]:8083", False),
        ("http://localhost:8083", False),
    ],
)
def test_what_others_may_read(url: str, is_open: bool) -> None:
    assert _is_open(url) is is_open
