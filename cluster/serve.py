"""Ray Serve: starting it, starting applications on it, and why one of them does not run.

Nothing of Serve is imported before it is needed: it reads its environment when it is.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from ztom.errors import ConfigError

if TYPE_CHECKING:
    from ray import serve
    from ray.serve.schema import ApplicationStatusOverview

_NO_PLACE = (
    r"to be scheduled\..*Resources required for each replica: (?P<needs>.+?), "
    r"total resources available: (?P<free>.+?)\. "
)


def serve_is_running() -> bool:
    """Whether Serve listens in the Ray that this process is connected to."""
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    return bool(serve.status().proxies)


def session_name() -> str:
    """Name of this Ray, which no other has: it is new at each start of a cluster."""
    import ray

    return str(ray.get_runtime_context().get_session_name())


def start_serve(*, host: str, port: int, every_node: bool = False) -> None:
    """Have Serve listen.

    Args:
        host: Address to listen on.
        port: Port to listen on.
        every_node: Whether each node of the cluster has a front door, so that one may die; only
            the head node otherwise.
    """
    from ray import serve
    from ray.serve.config import HTTPOptions, ProxyLocation

    doors = ProxyLocation.EveryNode if every_node else ProxyLocation.HeadOnly
    serve.start(proxy_location=doors, http_options=HTTPOptions(host=host, port=port))


def stop_serve() -> None:
    """Take Serve down, with every application on it."""
    from ray import serve

    serve.shutdown()


def start_application(
    application: serve.Application, *, name: str, route_prefix: str | None
) -> None:
    """Have Serve start an application; it is not waited for.

    Args:
        application: The bound deployments.
        name: Name of the Serve application.
        route_prefix: Path under which it is reached over HTTP; None for only by handle.

    Raises:
        ConfigError: Serve refuses it.
    """
    from ray import serve
    from ray.serve.exceptions import RayServeException

    target = serve.RunTarget(application, name=name, route_prefix=route_prefix)
    try:
        serve.run_many([target], wait_for_applications_running=False)
    except RayServeException as error:
        raise ConfigError("Serve refuses the application", got=last_error(str(error))) from error


def delete_application(name: str) -> None:
    """Take an application down once it has answered what it is answering, and wait for that."""
    from ray import serve

    serve.delete(name)


def application_status(name: str) -> ApplicationStatusOverview | None:
    """How an application is; None where Serve knows none of the name."""
    from ray import serve

    return serve.status().applications.get(name)


def reason_of(application: ApplicationStatusOverview) -> str:
    """Why an application is as it is, as its last error or message says."""
    messages = (deployment.message for deployment in application.deployments.values())
    return last_error("\n".join([application.message, *messages]))


def missing_place(application: ApplicationStatusOverview) -> str:
    """What a replica waits for that the cluster does not have free; empty where none waits."""
    for deployment in application.deployments.values():
        match = re.search(_NO_PLACE, deployment.message)
        if match is not None:
            return f"no place for it yet: it needs {match['needs']}, free are {match['free']}"
    return ""


def last_error(message: str) -> str:
    """The error at the bottom of the traceback in which Serve reports a failed start."""
    errors = re.findall(r"^(?:\w+\.)*(\w+(?:Error|Exception): .+)$", message, flags=re.MULTILINE)
    return errors[-1] if errors else message.strip()[-500:]
