"""Where to listen, and where what listens is reached."""

from __future__ import annotations

import socket

import pytest

from cluster.ports import free_port, reachable
from ztom.errors import ConfigError


def test_a_free_port_is_below_those_that_the_system_gives_out() -> None:
    assert 12_000 <= free_port("127.0.0.1", 0) < 28_000


def test_a_port_that_is_taken_is_refused() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(ConfigError, match=str(port)):
            free_port("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("0.0.0.0", "127.0.0.1"),
        ("", "127.0.0.1"),
        ("::", "[::1]"),
        ("fe80::1", "[fe80::1]"),
        ("example.org", "example.org"),
    ],
)
def test_an_address_to_listen_on_is_reached_at(host: str, address: str) -> None:
    assert reachable(host) == address
