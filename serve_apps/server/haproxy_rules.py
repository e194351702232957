"""What is changed in the HAProxy configuration that Ray Serve writes, before HAProxy reads it.

Serve has no option for any of it:

* Its pages of statistics and metrics are for this machine only.
* A client has a deadline for its headers, and for the next piece of its body; who names no account
  has one for the whole body, which stays here until it is whole: a gateway waits for no stranger.
* An address has so many connections, and so many requests without an account, at once.
* The gateway learns the address that a request came from, whatever the caller writes about it.
* An HAProxy that has just been started and knows no application yet says 503, not 404.
* One that reaches no gateway says 502, 503 or 504 in the form of OpenAI's errors, not 500 for all.

Run as a program, this file makes the changes and becomes HAProxy. It imports nothing but the
standard library, so that this takes milliseconds (`serve_apps.server.haproxy` calls it).
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

HEADERS_S = 15
#: Without a byte from a client that has not sent all of its request, or does not take its answer.
CLIENT_S = 120
#: Of a body whose sender names no account.
STRANGERS_BODY_S = 5
#: At once, by one address: a quarter of all connections that HAProxy takes; strangers' requests.
CONNECTIONS, STRANGERS_REQUESTS = 1024, 64
UNREACHABLE = json.dumps(
    {
        "error": {
            "message": "The gateway cannot be reached; try again.",
            "type": "server_error",
            "param": None,
            "code": "unavailable",
        }
    }
)
_MANY = "Too many requests from your address are in work: log in, or wait until one has ended."
TOO_MANY = json.dumps(
    {
        "detail": _MANY,
        "error": {"message": _MANY, "type": "invalid_request_error", "param": None, "code": None},
    }
)
_DONE = "# changed by ztom"
#: Where requests come in, as Serve calls it.
_FRONTEND = "frontend http_frontend"
#: An address, of IPv6 the network that a customer of a provider has.
_ADDRESS = "src,ipmask(32,64)"
_STRANGER = "!ztom_account !ztom_health"
#: Of whoever called through a proxy of the operator's, which has added it.
_FORWARDED = "hdr_ip(x-forwarded-for,-1),ipmask(32,64)"
_GUARDS = (
    "option forwardfor",
    f"tcp-request connection track-sc0 {_ADDRESS} table ztom_addresses",
    f"tcp-request connection reject if !ztom_proxy {{ sc0_conn_cur gt {CONNECTIONS} }}",
    "acl ztom_account req.hdr(authorization) -m found",
    "acl ztom_account req.hdr(x-api-key) -m found",
    "acl ztom_health path /health",
    "acl ztom_body req.hdr(transfer-encoding) -m found",
    "acl ztom_body req.hdr_val(content-length) gt 0",
    f"http-request track-sc1 {_ADDRESS} table ztom_strangers if {_STRANGER} !ztom_proxy",
    f"http-request track-sc1 {_FORWARDED} table ztom_strangers if {_STRANGER} ztom_proxy",
    f"http-request return status 429 content-type application/json string '{TOO_MANY}' "
    f"hdr retry-after 2 if {_STRANGER} {{ sc1_conn_cur gt {STRANGERS_REQUESTS} }}",
    f"http-request wait-for-body time {STRANGERS_BODY_S}s if {_STRANGER} ztom_body",
)
#: Tables that only count.
_TABLES = tuple(
    line
    for name in ("ztom_addresses", "ztom_strangers")
    for line in (
        f"backend {name}",
        "    stick-table type ipv6 size 100k expire 1m store conn_cur",
    )
)
_ANSWER = f"content-type application/json string '{UNREACHABLE}' hdr retry-after 1"

_CLIENT = re.compile(r"^(?P<indent> *)timeout client \d+\w*$")
_BIND = re.compile(r"^(?P<indent> *)bind (?P<address>\S*):(?P<port>\d+)$")
_NO_APPLICATION = re.compile(r"^(?P<start> *http-request return status) 404 (?P<rest>.*)$")
_ERROR_FILE = re.compile(r"^(?P<indent> *)errorfile (?P<status>50[234]) ")
_BACKUP = re.compile(r"^(?P<indent> *)server (?P<name>\S+) .* backup$")


def rewrite(configuration: str, private_ports: Collection[int], trusted: Sequence[str] = ()) -> str:
    """The configuration as HAProxy is to read it; one that was changed before stays as it is.

    Args:
        configuration: Text of the file that Serve wrote.
        private_ports: Ports that only this machine may reach.
        trusted: Addresses of the operator's proxies, who call for many.

    Raises:
        ValueError: A private port would be open to the network all the same.
    """
    if configuration.startswith(_DONE):
        return configuration
    lines = [
        changed
        for line in configuration.splitlines()
        for changed in _changed(line, private_ports, trusted)
    ]
    for line in lines:
        _refuse_exposed(line, private_ports)
    return "\n".join([_DONE, *lines, *_TABLES]) + "\n"


def _changed(line: str, private_ports: Collection[int], trusted: Sequence[str]) -> Iterator[str]:
    """The lines that stand in the place of one line."""
    if line == "defaults":
        yield line
        yield f"    timeout http-request {HEADERS_S}s"
    elif deadline := _CLIENT.match(line):
        yield f"{deadline['indent']}timeout client {CLIENT_S}s"
    elif line == _FRONTEND:
        yield line
        yield f"    acl ztom_proxy {' '.join(['src', *trusted]) if trusted else 'always_false'}"
        yield from (f"    {guard}" for guard in _GUARDS)
    elif (bind := _BIND.match(line)) and _is_private(bind, private_ports):
        yield f"{bind['indent']}bind 127.0.0.1:{bind['port']}"
    elif rule := _NO_APPLICATION.match(line):
        yield f"{rule['start']} 503 {rule['rest']} hdr retry-after 1"
    elif file := _ERROR_FILE.match(line):
        yield f"{file['indent']}http-error status {file['status']} {_ANSWER}"
    elif server := _BACKUP.match(line):
        yield line
        # Serve's own proxy, which is asked where no gateway is, knows none either
        unless_well = f"{{ status 500 }} {{ srv_name -m str {server['name']} }}"
        yield f"{server['indent']}http-response return status 503 {_ANSWER} if {unless_well}"
    else:
        yield line


def _is_private(bind: re.Match[str], private_ports: Collection[int]) -> bool:
    return int(bind["port"]) in private_ports and bind["address"] in ("", "*")


def _refuse_exposed(line: str, private_ports: Collection[int]) -> None:
    words = line.split()
    if words[:1] != ["bind"]:
        return
    for address in words[1:2]:
        host, _, port = address.rpartition(":")
        if port.isdigit() and int(port) in private_ports and host != "127.0.0.1":
            raise ValueError(f"HAProxy would show its own pages to the network: {line.strip()!r}")


def main(arguments: Sequence[str]) -> None:
    """Change the files named after ``-f`` and become HAProxy.

    Args:
        arguments: Path of HAProxy, private ports and addresses of proxies, ``--``, and HAProxy's
            own arguments.
    """
    end = arguments.index("--")
    program, ours = arguments[0], arguments[1:end]
    ports = [int(port) for port in ours if port.isdigit()]
    trusted = [address for address in ours if not address.isdigit()]
    options = arguments[end + 1 :]
    for option, value in pairwise(options):
        if option == "-f" and os.access(value, os.W_OK):
            path = Path(value)
            text = rewrite(path.read_text(encoding="utf-8"), ports, trusted)
            path.write_text(text, encoding="utf-8")
    os.execv(program, [program, *options])


if __name__ == "__main__":
    main(sys.argv[1:])
