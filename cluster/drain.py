"""What a worker does before its machine goes: Ray gives its replicas away, and that is waited for.

``python -m cluster.drain --within 60`` is the last thing that the chart has a worker's pod do
(``preStop``). Ray places nothing on a node that drains, and Serve starts its replicas elsewhere
before it stops them here; the node ends by itself as soon as nothing runs on it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from ztom.errors import EngineError

_EVERY_S = 0.5
_ANSWER_S = 10.0


class Nodes(Protocol):
    """What is asked of a cluster's head."""

    def living(self) -> dict[str, str]:
        """Addresses of the nodes that live, by their ids."""

    def drain(self, node_id: str, *, within_s: float) -> None:
        """Have a node given no more work, and its replicas moved.

        Raises:
            EngineError: The head refuses.
        """


class HeadNodes:
    """The nodes of a cluster, as its head knows them.

    Args:
        address: Address of the head as ``host:port``.
    """

    def __init__(self, address: str) -> None:
        import ray

        self._head = ray._raylet.GcsClient(address=address)

    def living(self) -> dict[str, str]:
        """Addresses of the nodes that live, by their ids."""
        from ray.core.generated.gcs_pb2 import GcsNodeInfo

        nodes = self._head.get_all_node_info(timeout=_ANSWER_S)
        return {
            node_id.hex(): info.node_manager_address
            for node_id, info in nodes.items()
            if info.state == GcsNodeInfo.GcsNodeState.ALIVE
        }

    def drain(self, node_id: str, *, within_s: float) -> None:
        """Have a node given no more work, and its replicas moved."""
        from ray.core.generated.autoscaler_pb2 import DrainNodeReason

        accepted, reason = self._head.drain_node(
            node_id,
            DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
            "its machine goes",
            int((time.time() + within_s) * 1000),
        )
        if not accepted:
            raise EngineError("the node is not drained", reason=str(reason))


def drain(
    nodes: Nodes,
    address: str,
    *,
    within_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Drain the node at an address, and wait until it has gone.

    Args:
        nodes: Nodes of the cluster.
        address: Address of the node.
        within_s: Seconds that it may take.
        clock: Function that tells the time in seconds.
        sleep: Function that waits for seconds.

    Returns:
        Whether it has gone in time.

    Raises:
        EngineError: The head refuses, or knows no node at the address.
    """
    end = clock() + within_s
    here = [node_id for node_id, place in nodes.living().items() if place == address]
    if not here:
        raise EngineError("there is no node to drain", got=address, expected="a node that lives")
    for node_id in here:
        nodes.drain(node_id, within_s=within_s)
    while clock() < end:
        if not set(here) & set(nodes.living()):
            return True
        sleep(_EVERY_S)
    return False


def argument_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m cluster.drain", description=__doc__)
    parser.add_argument("--within", type=float, required=True, help="seconds that it may take")
    parser.add_argument("--head", default=os.environ.get("RAY_ADDRESS"), help="host:port")
    parser.add_argument("--address", help="this machine's address in the cluster's network")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Drain this machine's node of the cluster at ``RAY_ADDRESS``; returns the exit status."""
    parser = argument_parser()
    options = parser.parse_args(arguments)
    if not options.head:
        parser.error("no head: set RAY_ADDRESS, or give --head host:port")
    address = options.address or _own_address(options.head)
    try:
        gone = drain(HeadNodes(options.head), address, within_s=options.within)
    except EngineError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{address} {'is drained' if gone else 'still has work'}\n")
    return 0 if gone else 1


def _own_address(head: str) -> str:
    from ray._private.services import get_node_ip_address

    return str(get_node_ip_address(head))


if __name__ == "__main__":
    sys.exit(main())
