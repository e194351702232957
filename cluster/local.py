"""The Ray that a search runs on: the one it is inside of, the one it is pointed to, or its own."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# A local Ray opens its ports on every interface unless it is told, before its import, that it will
# never be a cluster. The variable's name is about other systems; its effect is the same on Linux.
if not os.environ.get("RAY_ADDRESS"):
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

import ray

logger = logging.getLogger(__name__)

#: What Tune reads from the environment: no loggers, no signal handling, no saved state in between.
_TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, and put back what was there."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


@contextmanager
def ray_for_search(replicas: int) -> Iterator[None]:
    """Connect to Ray for the time of a search.

    Inside a Ray job, or with ``RAY_ADDRESS`` set, that is the running cluster. Otherwise a local
    one is started on the loopback interface, without a dashboard, and ended afterwards.

    Args:
        replicas: Engines on this machine, which share its cores.
    """
    with environment(_TUNE_ENVIRONMENT):
        if ray.is_initialized():
            yield
            return
        _connect(replicas)
        try:
            yield
        finally:
            ray.shutdown()


def _connect(replicas: int) -> None:
    options = {"log_to_driver": False, "logging_level": logging.ERROR}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**options)
        return
    with environment(_local_environment(replicas)):
        ray.init(address="local", include_dashboard=False, **options)


def _local_environment(replicas: int) -> dict[str, str]:
    """What the processes of a local Ray inherit.

    Ray would give each of them one thread; engines and error functions take turns, so each may have
    all cores of its share. They import what the driver can: a user's error function, say.
    """
    threads = str(max(1, (os.cpu_count() or 1) // replicas))
    return {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads),
        "RAY_USAGE_STATS_ENABLED": os.environ.get("RAY_USAGE_STATS_ENABLED", "0"),
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
    }
