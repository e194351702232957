"""Where a call to a service may end up: not in the network behind this machine.

A user names what is looked up, the operator names the service; but the service may answer with a
redirect, and a name may mean another machine a moment later. So each hop is looked at twice: the
addresses of its host before it is connected to, and the address that the socket really has before a
byte is sent. Addresses at which clouds hand out credentials are always refused; those of private
networks and of this machine are, where the service itself is a public one. Behind a proxy it is the
proxy that connects, and nothing is looked at.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any
from urllib.request import getproxies

from ztom.errors import ReferenceRefusedError

#: Beyond the link-local ones (169.254.169.254, fe80::): metadata of AWS over IPv6, and of Alibaba.
_METADATA = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200")))
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
#: What httpx calls with the name of a step and its details.
_Trace = Callable[[str, dict[str, Any]], object]


class AddressGuard:
    """Hooks of an HTTP client (of httpx, by either name) that follows redirects.

    What the service's own name meant first decides whether it may lead inside.

    Args:
        service: Host of the service, as the operator named it.
    """

    def __init__(self, service: str) -> None:
        self._service = service
        self._meant: list[_Address] = []

    def before(self, request: Any) -> None:
        """Refuse a hop whose host has an address that is not for us, now or when connected to.

        Raises:
            ReferenceRefusedError: It has.
        """
        if getproxies():
            return
        self._meant = self._meant or _addresses_of(self._service)
        host = str(request.url.host)
        self._check(host, _addresses_of(host))
        before = request.extensions.get("trace")
        before = before.others if isinstance(before, _AtConnect) else before  # of another hop
        request.extensions["trace"] = _AtConnect(partial(self._check, host), before)

    def after(self, response: Any) -> None:
        """Refuse an answer that came from an address that is not for us.

        Raises:
            ReferenceRefusedError: It did.
        """
        stream = response.extensions.get("network_stream")
        peer = stream.get_extra_info("server_addr") if stream is not None else None
        if peer and not getproxies():
            self._check(str(response.request.url.host), [_address(str(peer[0]))])

    def add_to(self, client: Any) -> None:
        """Have a client call the hooks, once."""
        hooks = client.event_hooks
        if any(isinstance(getattr(hook, "__self__", None), AddressGuard) for hook in _all(hooks)):
            return
        hooks["request"] = [*hooks.get("request", ()), self.before]
        hooks["response"] = [*hooks.get("response", ()), self.after]
        client.event_hooks = hooks

    def _check(self, host: str, addresses: Iterable[_Address]) -> None:
        for address in addresses:
            if _is_metadata(address) or (_is_inside(address) and not self._service_is_inside()):
                raise ReferenceRefusedError(
                    f"{host} is an address of the network behind this machine",
                    got=str(address),
                    expected=f"a public address, as {self._service} has, which led there",
                )

    def _service_is_inside(self) -> bool:
        return any(map(_is_inside, self._meant))


class _AtConnect:
    """What httpx calls at each step of a hop; TLS and the request come after connecting.

    Args:
        check: Function that raises for addresses that are refused.
        others: What was to be called before; None is nothing.
    """

    def __init__(self, check: Callable[[list[_Address]], None], others: _Trace | None) -> None:
        self._check = check
        self.others = others

    def __call__(self, step: str, details: dict[str, Any]) -> None:
        if step == "connection.connect_tcp.complete":
            stream = details["return_value"]
            try:
                self._check([_address(str(stream.get_extra_info("server_addr")[0]))])
            except ReferenceRefusedError:
                stream.close()
                raise
        if self.others is not None:
            self.others(step, details)


def _all(hooks: dict[str, list[Any]]) -> list[Any]:
    return [hook for listed in hooks.values() for hook in listed]


def _is_metadata(address: _Address) -> bool:
    return address.is_link_local or address in _METADATA


def _is_inside(address: _Address) -> bool:
    return not address.is_global or address.is_multicast


def _addresses_of(host: str) -> list[_Address]:
    """What a name means now; nothing where it means nothing, which the call itself will say."""
    try:
        entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [_address(str(entry[4][0])) for entry in entries]


def _address(text: str) -> _Address:
    """An address; one of IPv4 in the form of IPv6 is what it stands for."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if isinstance(mapped, ipaddress.IPv4Address) else address
