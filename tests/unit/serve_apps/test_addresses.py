"""Which address a request came from: nobody else's word is taken for it than our own proxies'."""

from __future__ import annotations

import pytest

from serve_apps.control_plane.addresses import client_address, client_scheme, network_of

PROXY = "192.0.2.80"


@pytest.mark.parametrize(
    ("client", "forwarded", "address"),
    [
        ("203.0.113.9", (), "203.0.113.9"),
        # straight from the network: the header is the caller's own invention
        ("203.0.113.9", ("10.0.0.1",), "203.0.113.9"),
        # through HAProxy, which adds the address at the end, or as a header of its own
        ("127.0.0.1", ("203.0.113.9",), "203.0.113.9"),
        ("127.0.0.1", ("10.0.0.1, 203.0.113.9",), "203.0.113.9"),
        ("127.0.0.1", ("10.0.0.1", "203.0.113.9"), "203.0.113.9"),
        ("::1", ("10.0.0.1,203.0.113.9",), "203.0.113.9"),
        # somebody on this machine who invents one
        ("127.0.0.1", ("10.0.0.1, 127.0.0.1",), "127.0.0.1"),
        # through the operator's proxy and HAProxy
        ("127.0.0.1", (f"10.0.0.1, 203.0.113.9, {PROXY}",), "203.0.113.9"),
        (PROXY, ("10.0.0.1, 203.0.113.9",), "203.0.113.9"),
        (PROXY, (), PROXY),
        ("127.0.0.1", (" , ",), "127.0.0.1"),
        ("", (), ""),
    ],
)
def test_the_address_is_what_the_last_proxy_of_ours_saw(
    client: str, forwarded: tuple[str, ...], address: str
) -> None:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    scope = {"type": "http", "client": (client, 1234) if client else None, "headers": headers}
    assert client_address(scope, trusted=(PROXY,)) == address


@pytest.mark.parametrize(
    ("client", "forwarded", "scheme"),
    [
        ("127.0.0.1", b"https", "https"),
        ("127.0.0.1", b"gopher", "http"),
        ("203.0.113.9", b"https", "http"),
    ],
)
def test_addresses_of_artifacts_have_the_scheme_that_the_client_called(
    client: str, forwarded: bytes, scheme: str
) -> None:
    headers = [(b"x-forwarded-proto", forwarded)]
    scope = {"type": "http", "scheme": "http", "client": (client, 1), "headers": headers}
    assert client_scheme(scope) == scheme


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::1", "::1"),
        ("testclient", "testclient"),
        ("x" * 1000, "x" * 100),
    ],
)
def test_a_customer_of_ipv6_is_one_network(address: str, network: str) -> None:
    assert network_of(address) == network
