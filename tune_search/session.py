"""The Ray that a search runs on, and what Tune reads from the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.environment import environment
from cluster.local import ray_connection, require_ray
from ztom.errors import EngineError, SearchError

#: What Tune reads from the environment: no loggers, no signal handling, no saved state in between.
_TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # the searcher says how many run at once: none waits for another one's process to start
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",
}


@contextmanager
def ray_for_search(replicas: int) -> Iterator[None]:
    """Connect to Ray for the time of a search; see `cluster.local.ray_connection` for which one.

    Ray would give each process of a local one a single thread; engines and error functions take
    turns, so each may have all cores of its share.

    Args:
        replicas: Number of engines on this machine, which share its cores.

    Raises:
        ClusterEndedError: Ray has ended, and with it what failed in the context.
    """
    threads = str(max(1, (os.cpu_count() or 1) // replicas))
    variables = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)}
    with environment(_TUNE_ENVIRONMENT), ray_connection(variables=variables):
        try:
            yield
        except (EngineError, SearchError):
            require_ray()  # engines that die with their Ray say nothing of the search
            raise
