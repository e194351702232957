"""Starting on Ray and Serve, and stopping: what the launchers and the controller share.

Nothing of Ray is imported before it is needed: it reads its environment when it is.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from ztom.errors import ConfigError

if TYPE_CHECKING:
    from ray import serve
    from ray.serve.schema import ApplicationStatusOverview

logger = logging.getLogger(__name__)

_NO_PLACE = (
    r"to be scheduled\..*Resources required for each replica: (?P<needs>.+?), "
    r"total resources available: (?P<free>.+?)\. "
)
_NEVER_A_CLUSTER = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


def loopback_only() -> dict[str, str]:
    """What has to be in the environment, before Ray's import, for a local Ray to stay local.

    It opens its ports on every interface unless it is told that it will never be a cluster. The
    variable's name is about other systems; its effect is the same on Linux.
    """
    if os.environ.get("RAY_ADDRESS"):
        return {}
    return {_NEVER_A_CLUSTER: os.environ.get(_NEVER_A_CLUSTER, "0")}


def terminate_like_interrupt() -> None:
    """Ray's own answer to SIGTERM, which this replaces, aborts the process with nothing stopped."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def forgiving(call: Callable[..., object], *arguments: object) -> None:
    """Undo steps must not keep later ones from running."""
    try:
        call(*arguments)
    except Exception as error:
        logger.warning("while stopping: %s: %s", type(error).__name__, error)


def start_application(target: serve.RunTarget) -> None:
    """Have Serve start an application; it is not waited for.

    Raises:
        ConfigError: Serve refuses it.
    """
    from ray import serve
    from ray.serve.exceptions import RayServeException

    try:
        serve.run_many([target], wait_for_applications_running=False)
    except RayServeException as error:
        raise ConfigError("Serve refuses the application", got=reason(str(error))) from error


def reason_of(application: ApplicationStatusOverview) -> str:
    """Why an application is as it is, as its last error or message says."""
    deployments = application.deployments.values()
    return reason("\n".join([application.message, *(each.message for each in deployments)]))


def missing_place(application: ApplicationStatusOverview) -> str:
    """What a replica waits for that the cluster does not have free; empty where none waits."""
    for deployment in application.deployments.values():
        found = re.search(_NO_PLACE, deployment.message)
        if found is not None:
            return f"no place for it yet: it needs {found['needs']}, free are {found['free']}"
    return ""


def reason(message: str) -> str:
    """The error at the bottom of the traceback in which Serve reports a failed start."""
    errors = re.findall(r"^(?:\w+\.)*(\w+(?:Error|Exception): .+)$", message, flags=re.MULTILINE)
    return errors[-1] if errors else message.strip()[-500:]
