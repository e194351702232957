"""Ray for the time of a context: the one that is there, or one started on this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import ray
from ray._private import parameter
from ray.exceptions import RayError

from cluster.environment import environment, require_short_folder, worker_environment
from cluster.leftovers import end_leftovers
from cluster.ports import free_port
from cluster.shutdown import interrupted_unless
from ztom.errors import ClusterEndedError

_LOOPBACK = "127.0.0.1"
#: What no Ray is without, as `ray._private.ray_constants` names them.
_DAEMONS = ("raylet", "gcs_server")


@dataclass(frozen=True, slots=True)
class RayConnection:
    """The Ray that this process is connected to.

    Attributes:
        is_ours: True where it was started here and ends with the connection.
        dashboard: Address of Ray's dashboard, as in ``http://127.0.0.1:8265``; empty where it has
            none, and where the process was connected before.
    """

    is_ours: bool
    dashboard: str


@contextmanager
def ray_connection(
    *, dashboard: bool = False, variables: Mapping[str, str] | None = None
) -> Iterator[RayConnection]:
    """Connect to Ray.

    That is the Ray which this process is connected to already, and stays so; or the cluster at
    ``RAY_ADDRESS``, which a Ray job finds there. Otherwise a local one is started on the loopback
    interface and ended afterwards.

    Args:
        dashboard: Whether a local Ray gets its dashboard, which takes jobs.
        variables: Environment of the processes of a local Ray, on top of `worker_environment`.
    """
    if ray.is_initialized():
        yield RayConnection(is_ours=False, dashboard="")
        return
    with ExitStack() as undo:
        undo.callback(ray.shutdown)
        if os.environ.get("RAY_ADDRESS"):
            yield RayConnection(is_ours=False, dashboard=_dashboard_of(_init()))
        else:
            context = _start(dashboard=dashboard, variables=variables or {})
            undo.callback(end_leftovers, _raylet())
            undo.callback(ray.shutdown)
            yield RayConnection(is_ours=True, dashboard=_dashboard_of(context))


def dashboard_address() -> str:
    """Address of the dashboard of the Ray that this process is in; empty where it has none.

    As the cluster's head wrote it down: what a worker's own process has is Ray's default.
    """
    url = ray._private.services.get_webui_url_from_internal_kv()
    return f"http://{url}" if url else ""


def node_address() -> str:
    """Address of the node that this process is on."""
    return str(ray.util.get_node_ip_address())


def ended_with_ray() -> AbstractContextManager[None]:
    """A context of the main thread that ends when no node is left of this Ray.

    It ends with `ClusterEndedError`; what waits for Ray's answers would wait for ever.
    """
    error = ClusterEndedError(
        "Ray has ended, and with it what it served",
        reason="no node of it is left",
        fix="Start it again; a server goes on with its deployments and searches.",
    )
    return interrupted_unless(_is_alive, error)


def require_ray(*, within_s: float = 15.0) -> None:
    """See that the Ray which this process is connected to still starts processes.

    Args:
        within_s: Seconds that it may take.

    Raises:
        ClusterEndedError: It does not.
    """
    try:
        ray.get(ray.remote(num_cpus=0)(_nothing).remote(), timeout=within_s)
    except RayError as error:
        raise ClusterEndedError("Ray has ended", reason=type(error).__name__) from error


def _nothing() -> None:
    pass


def _is_alive() -> bool:
    """Whether the daemons of this Ray run.

    Those that were started here are looked at as processes, which shows at once that one has died;
    of a cluster it is known what its head says of its nodes.
    """
    node = ray._private.worker._global_node
    if node is not None and any(name in _DAEMONS for name, _ in node.dead_processes()):
        return False
    return any(node["Alive"] for node in ray.nodes())


def _raylet() -> int:
    """Process id of the raylet that was started here."""
    (process,) = ray._private.worker._global_node.all_processes["raylet"]
    return int(process.process.pid)


def _start(*, dashboard: bool, variables: Mapping[str, str]) -> ray.RayContext:
    require_short_folder()
    options: dict[str, object] = {"include_dashboard": dashboard}
    if dashboard:
        options |= {"dashboard_host": _LOOPBACK, "dashboard_port": free_port(_LOOPBACK, 0)}
    with environment({**worker_environment(), **variables}), _agent_on_any_port():
        return _init(address="local", **options)


@contextmanager
def _agent_on_any_port() -> Iterator[None]:
    """Have the agent of a node that is started take a free port.

    The agent starts jobs. `ray start` has an option for its port; `ray.init` has none, and its own
    is the same for every Ray on a machine, so that the second one there takes no jobs.
    """
    usual = parameter.RayParams
    parameter.RayParams = partial(usual, dashboard_agent_listen_port=0)
    try:
        yield
    finally:
        parameter.RayParams = usual


def _init(**options: object) -> ray.RayContext:
    return ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)


def _dashboard_of(context: ray.RayContext) -> str:
    return f"http://{context.dashboard_url}" if context.dashboard_url else ""
