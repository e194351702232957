"""What ``ztom cluster`` does: a machine becomes the head of a cluster, or a node of one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from cluster.node_settings import NODE_SETTINGS
from cluster.nodes import RayNode, start_node
from ztom.cli.console import plain_console, print_document
from ztom.errors import ConfigError
from ztom.io.private import private_folder


def node_of(
    host: str,
    *,
    resources: list[str],
    labels: list[str],
    object_store_mib: int | None,
    **options: Any,
) -> RayNode:
    """The node that the options describe.

    Raises:
        ConfigError: A resource or a label is malformed, or no other machine reaches the address.
    """
    _require_reachable(host)
    amounts: dict[str, float] = {}
    for name, value in _pairs(resources, "--resource"):
        try:
            amounts[name] = float(value)
        except ValueError as error:
            raise ConfigError("--resource is no number", got=f"{name}={value}") from error
    size = None if object_store_mib is None else object_store_mib * 2**20
    return RayNode(
        address=host,
        resources=amounts or None,
        labels=dict(_pairs(labels, "--label")) or None,
        object_store_bytes=size,
        **options,
    )


def start_command(node: RayNode, *, block: bool, as_json: bool) -> None:
    """Start Ray on this machine, and say how others join."""
    from serve_apps.server.haproxy import door_settings

    # it has to be there as long as the node is, which may outlive this process
    folder = private_folder(Path(tempfile.mkdtemp(prefix="ztom-node-")))
    says = _sayings(node)
    if block and not as_json:
        _say(says)
    start_node(node, door_settings(folder), block=block)
    if as_json:
        print_document(says)
    elif not block:
        _say(says)


def settings_command(*, as_json: bool) -> None:
    """Print what every node needs in its environment."""
    if as_json:
        print_document(dict(NODE_SETTINGS))
        return
    console = plain_console()
    for name, value in sorted(NODE_SETTINGS.items()):
        console.print(f"{name}={value}")


def _sayings(node: RayNode) -> dict[str, str]:
    if node.head is not None:
        return {"node": node.address, "head": node.head}
    return {
        "head": f"{node.address}:{node.port}",
        "dashboard": f"http://{node.address}:{node.dashboard_port}",
        "join": f"ztom cluster join {node.address}:{node.port} --host ADDRESS",
        "token": "~/.ray/auth_token, the same on every machine",
    }


def _say(says: dict[str, str]) -> None:
    console = plain_console()
    width = max(map(len, says))
    for name, value in says.items():
        console.print(f"{name:{width}}  {value}")


def _pairs(options: list[str], name: str) -> list[tuple[str, str]]:
    pairs = [option.partition("=") for option in options]
    for key, equals, value in pairs:
        if not (key.strip() and equals and value.strip()):
            raise ConfigError(
                f"{name} is malformed", got=f"{key}{equals}{value}", expected="NAME=VALUE"
            )
    return [(key.strip(), value.strip()) for key, _, value in pairs]


def _require_reachable(host: str) -> None:
    if host in ("0.0.0.0", "::", "localhost") or host.startswith("127."):
        raise ConfigError(
            "other machines do not reach this address",
            got=host,
            expected="the address that this machine has in their network",
            fix="`ip address` lists them.",
        )
