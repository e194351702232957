"""Which address a request came from, and by which scheme.

Between a client and this process stand HAProxy, which `ztom up` starts, and whatever proxies the
operator has put in front of it. Each adds to ``X-Forwarded-For`` the address that it was called
from, at the end; what stands before that was written by whoever called it, and may be invented.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv6Address, ip_address

from starlette.types import Scope

_FORWARDED, _PROTOCOL = b"x-forwarded-for", b"x-forwarded-proto"
#: A network of IPv6 is what one customer of a provider has: 64 bits.
_NETWORK_V6 = 64


def client_address(scope: Scope, *, trusted: Collection[str] = ()) -> str:
    """The address of whoever sent a request, as text; of IPv6 the network.

    Args:
        scope: ASGI scope of the request, whose client is whoever opened the connection.
        trusted: Addresses of the operator's own proxies.
    """
    client = scope.get("client")
    address = client[0] if client else ""
    hops = _forwarded(scope)
    # HAProxy runs on this machine; nobody else's word is taken for where a request is from
    if hops and _is_loopback(address):
        address = hops.pop()
    while hops and address in trusted:
        address = hops.pop()
    return network_of(address)


def client_scheme(scope: Scope) -> str:
    """``http`` or ``https``, as the client called it: a proxy of ours may have ended TLS."""
    client = scope.get("client")
    forwarded = next((value for name, value in scope["headers"] if name == _PROTOCOL), b"")
    scheme = forwarded.decode("latin-1").strip().lower()
    known = client is not None and _is_loopback(client[0]) and scheme in ("http", "https")
    return scheme if known else str(scope.get("scheme", "http"))


def network_of(address: str) -> str:
    """An address of IPv4 as it is, the network of one of IPv6, other text as it is."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address[:100]
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    if parsed.is_loopback:
        return str(parsed)
    host_bits = 128 - _NETWORK_V6
    return f"{IPv6Address(int(parsed) >> host_bits << host_bits)}/{_NETWORK_V6}"


def _forwarded(scope: Scope) -> list[str]:
    """Addresses of the header, the last proxy's at the end."""
    values = [value for name, value in scope["headers"] if name == _FORWARDED]
    hops = b",".join(values).decode("latin-1").split(",")
    return [hop.strip() for hop in hops if hop.strip()]


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
