"""What is changed in the HAProxy configuration that Ray Serve writes, before HAProxy reads it.

Serve has no option for any of it:

* Its pages of statistics and metrics are for this machine only.
* A client has a deadline for its headers.
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
_DONE = "# changed by ztom"
_ANSWER = f"content-type application/json string '{UNREACHABLE}' hdr retry-after 1"

_BIND = re.compile(r"^(?P<indent> *)bind (?P<address>\S*):(?P<port>\d+)$")
_NO_APPLICATION = re.compile(r"^(?P<start> *http-request return status) 404 (?P<rest>.*)$")
_ERROR_FILE = re.compile(r"^(?P<indent> *)errorfile (?P<status>50[234]) ")
_BACKUP = re.compile(r"^(?P<indent> *)server (?P<name>\S+) .* backup$")


def rewrite(configuration: str, private_ports: Collection[int]) -> str:
    """The configuration as HAProxy is to read it; one that was changed before stays as it is.

    Args:
        configuration: Text of the file that Serve wrote.
        private_ports: Ports that only this machine may reach.

    Raises:
        ValueError: A private port would be open to the network all the same.
    """
    if configuration.startswith(_DONE):
        return configuration
    lines = [
        changed for line in configuration.splitlines() for changed in _changed(line, private_ports)
    ]
    for line in lines:
        _refuse_exposed(line, private_ports)
    return "\n".join([_DONE, *lines]) + "\n"


def _changed(line: str, private_ports: Collection[int]) -> Iterator[str]:
    """The lines that stand in the place of one line."""
    if line == "defaults":
        yield line
        yield f"    timeout http-request {HEADERS_S}s"
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
        arguments: Path of HAProxy, private ports, ``--``, and HAProxy's own arguments.
    """
    end = arguments.index("--")
    program, ports = arguments[0], [int(port) for port in arguments[1:end]]
    options = arguments[end + 1 :]
    for option, value in pairwise(options):
        if option == "-f" and os.access(value, os.W_OK):
            path = Path(value)
            path.write_text(rewrite(path.read_text(encoding="utf-8"), ports), encoding="utf-8")
    os.execv(program, [program, *options])


if __name__ == "__main__":
    main(sys.argv[1:])
