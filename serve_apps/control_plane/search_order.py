"""Which search is next: as many run as there are places, and projects take turns.

A project with a hundred searches in the queue does not keep another one's first search waiting: of
those that wait, the next is of the project that has the fewest under way, and of equals the one
that came first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ztom.ledger.requests import RequestRecord


def next_to_start(
    waiting: Sequence[RequestRecord], running: Sequence[RequestRecord], *, places: int
) -> RequestRecord | None:
    """The search whose turn it is; None where none waits, or all places are taken.

    Args:
        waiting: Searches in the queue, in the order in which they came.
        running: Searches under way.
        places: Searches that the cluster has engines for.
    """
    if not waiting or len(running) >= places:
        return None
    under_way = Counter(request.project_id for request in running)
    return min(waiting, key=lambda request: under_way[request.project_id])


def search_places(*, gpus: float, cpu_nodes: int, replicas: int, gpus_per_engine: int) -> int:
    """Searches that a cluster has engines for, at least one.

    Without GPUs an engine takes the cores of a machine, so that each has room for one.

    Args:
        gpus: GPUs of the cluster.
        cpu_nodes: Machines of the cluster that have CPUs for work.
        replicas: Engines of one search.
        gpus_per_engine: GPUs of one engine.
    """
    engines = int(gpus // gpus_per_engine) if gpus >= 1 else cpu_nodes
    return max(1, engines // replicas)
