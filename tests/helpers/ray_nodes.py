"""A cluster of several Ray nodes on this machine: daemons that are really killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cluster.environment import environment, worker_environment

#: What `ray.cluster_utils.Cluster` is told of each node, so that nothing is written for long.
_SMALL = {"object_store_memory": 80 * 2**20, "include_dashboard": False}


class LocalNodes:
    """A head without CPUs, which the driver is on, and workers that come and go."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        with environment(worker_environment()):
            self._cluster: Any = Cluster(
                initialize_head=True,
                head_node_args={"num_cpus": 0, **_SMALL},
                shutdown_at_exit=False,
            )
        self.address: str = self._cluster.address

    def add(self, **resources: Any) -> Any:
        """Start a worker; resources are those of ``ray start``.

        Returns:
            What `kill` takes.
        """
        with environment(worker_environment()):
            return self._cluster.add_node(**{"num_cpus": 1, **_SMALL, **resources})

    def kill(self, node: Any) -> None:
        """Kill every process of a worker, as when its machine loses power."""
        self._cluster.remove_node(node, allow_graceful=False)

    def stop(self) -> None:
        """Kill what is left."""
        self._cluster.shutdown()


@contextmanager
def local_nodes() -> Iterator[LocalNodes]:
    """A cluster for the time of a test, with no worker yet."""
    nodes = LocalNodes()
    try:
        yield nodes
    finally:
        nodes.stop()
