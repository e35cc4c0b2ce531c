"""Free ports, fixed ports, and ports that are kept."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdc_platform.errors import StackError
from cdc_platform.local.ports import chosen, reserve


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_ports_are_distinct_and_out_of_the_way_of_outgoing_connections() -> None:
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    names = [f"s{number}.p" for number in range(50)]
    with chosen(names, fixed={}, before={}) as ports:
        assert sorted(ports) == sorted(names)
        assert len(set(ports.values())) == 50
        assert all(1024 < port < first_outgoing for port in ports.values())


def test_two_stacks_that_choose_at_once_do_not_collide() -> None:
    names = [f"s{number}.p" for number in range(200)]
    with chosen(names, fixed={}, before={}) as one, chosen(names, fixed={}, before={}) as two:
        assert not set(one.values()) & set(two.values())


def test_a_port_is_had_again() -> None:
    with chosen(["a.p"], fixed={}, before={}) as first:
        pass
    with chosen(["a.p"], fixed={}, before=first) as second:
        assert second == first


def test_a_port_that_was_lost_is_replaced(listener: int) -> None:
    with chosen(["a.p"], fixed={}, before={"a.p": listener}) as ports:
        assert ports["a.p"] != listener


def test_fixed_port_that_is_taken_names_its_holder(listener: int) -> None:
    with pytest.raises(StackError, match=f"port {listener} is taken by pid") as caught:  # noqa: SIM117
        with chosen(["kafka.kafka"], fixed={"kafka.kafka": listener}, before={}):
            pass
    assert caught.value.field == "port kafka.kafka"
    assert caught.value.cure


def test_fixed_port_of_an_unknown_name() -> None:
    with pytest.raises(StackError, match="no port 'kafak'"):  # noqa: SIM117
        with chosen(["kafka.kafka"], fixed={"kafak": 1234}, before={}):
            pass


def test_two_fixed_ports_may_not_be_the_same() -> None:
    with chosen(["a.p"], fixed={}, before={}) as free:
        port = free["a.p"]
    with pytest.raises(StackError, match=f"port {port} is"):  # noqa: SIM117
        with chosen(["a.p", "b.p"], fixed={"a.p": port, "b.p": port}, before={}):
            pass


def test_a_server_can_listen_where_the_stack_reserves() -> None:
    with chosen(["a.p"], fixed={}, before={}) as free:
        port = free["a.p"]
    here = ("127.0.0.1", port)
    with reserve(port), socket.create_server(here) as server, socket.create_connection(here):
        assert server.getsockname() == here
        server.accept()[0].close()


def test_a_reserved_port_is_taken_for_whoever_looks_for_a_free_one() -> None:
    with chosen(["a.p"], fixed={}, before={}) as free:
        port = free["a.p"]
    with reserve(port), pytest.raises(OSError, match="in use"):
        reserve(port, shared=False)
