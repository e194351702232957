"""Where work is done: on Ray, as tasks (edits, analyses), as jobs (searches), in warm engines.

`Runner` is what the routes see. `RayRunner` is the real one; there is no other in the package.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from cluster.jobs import Job, JobState, RayJobs
from serve_apps.control_plane.config import ServerConfig
from serve_apps.control_plane.engine_keeper import KeeperLimits
from serve_apps.control_plane.questions import EngineQuestion, EngineSpec
from serve_apps.control_plane.search_order import search_places
from serve_apps.control_plane.warm_engines import WarmEngines
from ztom.engines.config import EngineConfig
from ztom.errors import EngineError, ZtomError

T = TypeVar("T")

_TASKS_AT_ONCE, _TASKS_WAITING = 4, 64
_TASKS_PER_PROCESS = 50


@dataclass(frozen=True, slots=True)
class SearchJob:
    """A search to be run by `python -m tune_search`.

    Attributes:
        id: The job's id, which is never used twice.
        config: Path of the search's YAML file.
        environment: Variables on top of what a process of the cluster has.
    """

    id: str
    config: Path
    environment: Mapping[str, str]


class Runner(Protocol):
    """Runs work outside of the server's own process."""

    async def call(self, function: Callable[..., T], /, *args: Any, **options: Any) -> T:
        """Run one of `serve_apps.control_plane.work` and wait for it.

        Raises:
            ZtomError: What the function raised, or `EngineError` when its process died.
        """

    async def ask(self, spec: EngineSpec, question: EngineQuestion) -> Any:
        """Ask the engine of a model, which stays loaded for a while.

        Raises:
            ZtomError: The model cannot be loaded, or what the question raised.
        """

    def make_room(self) -> None:
        """Have the engines that stay loaded go, as soon as they answer nobody; not waited for."""

    def search_places(self, engine: EngineConfig) -> int:
        """Searches that there are engines for, at least one.

        Args:
            engine: Engine of a search, and its options.
        """

    def submit(self, job: SearchJob) -> None:
        """Start a search.

        Raises:
            EngineError: Nobody took it, or nobody said so.
        """

    def state(self, job_id: str) -> tuple[JobState, str]:
        """Where a job stands, and what it said last."""

    def stop(self, job_id: str) -> None:
        """Ask a job to end; nothing if there is none."""


class RayRunner:
    """Tasks, jobs and engines of the Ray cluster that the process is in.

    Args:
        dashboard: Address of Ray's dashboard, which takes jobs.
        server: Name of the server, whose processes share their engines.
        limits: How many engines stay loaded, and how long.
    """

    def __init__(self, dashboard: str, *, server: str, limits: KeeperLimits) -> None:
        self._jobs = RayJobs(dashboard)
        self._engines = WarmEngines(server, limits)
        self._at_once = asyncio.Semaphore(_TASKS_AT_ONCE)
        self._waiting = 0

    async def call(self, function: Callable[..., T], /, *args: Any, **options: Any) -> T:
        """See `Runner.call`; a few run at once, some more wait, and others are refused."""
        async with self._place(), self._at_once:
            return await self._run(function, *args, **options)

    async def ask(self, spec: EngineSpec, question: EngineQuestion) -> Any:
        """See `Runner.ask`; so many wait, and others are refused."""
        async with self._place():
            return await self._engines.ask(spec, question)

    def make_room(self) -> None:
        """See `Runner.make_room`."""
        self._engines.make_room()

    def search_places(self, engine: EngineConfig) -> int:
        """See `Runner.search_places`; of what the cluster has now."""
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return search_places(
            gpus=sum(resources.get("GPU", 0) for resources in nodes),
            cpu_nodes=sum(resources.get("CPU", 0) > 0 for resources in nodes),
            replicas=engine.replicas,
            gpus_per_engine=engine.tensor_parallel_size,
        )

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        if self._waiting >= _TASKS_WAITING:
            raise EngineError("too much work waits already", fix="Send it again in a while.")
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    async def _run(self, function: Callable[..., T], /, *args: Any, **options: Any) -> T:
        import ray
        from ray.exceptions import RayError, RayTaskError

        # No CPU is reserved: an edit does not wait for a search that has them all to end.
        # A process serves a while: a new one takes five seconds of a core before it begins, which
        # every upload would wait for.
        options_of = {"num_cpus": 0, "max_retries": 0, "max_calls": _TASKS_PER_PROCESS}
        task = ray.remote(**options_of)(function)
        running = task.remote(*args, **options)
        try:
            answer: T = await running
        except asyncio.CancelledError:  # whoever asked is gone
            ray.cancel(running, force=True)
            raise
        except RayTaskError as error:
            if isinstance(error.cause, ZtomError):
                raise error.cause from None
            raise EngineError("the work failed", got=type(error.cause).__name__) from error
        except RayError as error:
            raise EngineError("the process that did the work died") from error
        return answer

    def submit(self, job: SearchJob) -> None:
        """See `Runner.submit`."""
        import ray

        command = [sys.executable, "-m", "tune_search", str(job.config), "--resume"]
        cluster = ray.get_runtime_context().gcs_address
        self._jobs.submit(
            Job(job.id, command, job.environment, {"ztom": "search"}, cluster=cluster)
        )

    def state(self, job_id: str) -> tuple[JobState, str]:
        """See `Runner.state`."""
        return self._jobs.state(job_id)

    def stop(self, job_id: str) -> None:
        """See `Runner.stop`."""
        self._jobs.stop(job_id)


def ray_runner(config: ServerConfig, dashboard: str) -> RayRunner:
    """The runner of a server, the same for all of its processes.

    Args:
        config: Configuration of the server.
        dashboard: Address of Ray's dashboard, which takes jobs.
    """
    name = hashlib.sha256(str(config.data).encode()).hexdigest()[:16]
    return RayRunner(dashboard, server=name, limits=keeper_limits(config))


def keeper_limits(config: ServerConfig) -> KeeperLimits:
    """What the operator has set for engines that stay loaded."""
    return KeeperLimits(config.warm_engines, config.idle_s, config.answer_timeout_s)
