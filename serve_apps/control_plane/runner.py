"""Where work is done: on Ray, as tasks (edits, analyses) and as jobs (searches).

`Runner` is what the routes see. `RayRunner` is the real one; there is no other in the package.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from cluster.jobs import Job, JobState, RayJobs
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
    """Tasks and jobs of the Ray cluster that the process is in.

    Args:
        dashboard: Address of Ray's dashboard, which takes jobs.
    """

    def __init__(self, dashboard: str) -> None:
        self._jobs = RayJobs(dashboard)
        self._at_once = asyncio.Semaphore(_TASKS_AT_ONCE)
        self._waiting = 0

    async def call(self, function: Callable[..., T], /, *args: Any, **options: Any) -> T:
        """See `Runner.call`; a few run at once, some more wait, and others are refused."""
        if self._waiting >= _TASKS_WAITING:
            raise EngineError("too much work waits already", fix="Send it again in a while.")
        self._waiting += 1
        try:
            async with self._at_once:
                return await self._run(function, *args, **options)
        finally:
            self._waiting -= 1

    async def _run(self, function: Callable[..., T], /, *args: Any, **options: Any) -> T:
        import ray
        from ray.exceptions import RayError, RayTaskError

        # No CPU is reserved: an edit does not wait for a search that has them all to end.
        runs_engine = function.__name__ == "answer"
        gpus = 1 if runs_engine and ray.cluster_resources().get("GPU") else 0
        # An engine's process ends with it. Others serve a while: a new one takes five seconds of a
        # core before it begins, which every upload would wait for.
        calls = 1 if runs_engine else _TASKS_PER_PROCESS
        task = ray.remote(num_cpus=0, num_gpus=gpus, max_retries=0, max_calls=calls)(function)
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
        command = [sys.executable, "-m", "tune_search", str(job.config), "--resume"]
        self._jobs.submit(Job(job.id, command, job.environment, {"ztom": "search"}))

    def state(self, job_id: str) -> tuple[JobState, str]:
        """See `Runner.state`."""
        return self._jobs.state(job_id)

    def stop(self, job_id: str) -> None:
        """See `Runner.stop`."""
        self._jobs.stop(job_id)
