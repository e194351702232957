"""Where work is done: on Ray, as tasks (edits, analyses) and as jobs (searches).

`Runner` is what the routes see. `RayRunner` is the real one; there is no other in the package.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ztom.errors import EngineError, ZtomError

T = TypeVar("T")

_TASKS_AT_ONCE, _TASKS_WAITING = 4, 64


class JobState(StrEnum):
    """Where a job stands, as far as the server needs to know."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SearchJob:
    """A search to be run by `python -m tune_search`.

    Attributes:
        id: Of the job, never used twice.
        config: The search's file.
        environment: Further variables.
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
        self._dashboard = dashboard
        self._client: Any = None
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
        gpus = 1 if function.__name__ == "answer" and ray.cluster_resources().get("GPU") else 0
        task = ray.remote(num_cpus=0, num_gpus=gpus, max_retries=0, max_calls=1)(function)
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
        try:
            self._jobs().submit_job(
                entrypoint=shlex.join(
                    [sys.executable, "-m", "tune_search", str(job.config), "--resume"]
                ),
                submission_id=job.id,
                runtime_env={"env_vars": dict(job.environment)},
                metadata={"ztom": "search"},
            )
        except (RuntimeError, OSError) as error:  # a cluster that starts says 500 for a while
            raise EngineError("Ray took no job", got=str(error)[-500:]) from error

    def state(self, job_id: str) -> tuple[JobState, str]:
        """See `Runner.state`."""
        from ray.job_submission import JobStatus

        try:
            info = self._jobs().get_job_info(job_id)
        except RuntimeError as error:
            if "404" in str(error) or "does not exist" in str(error):
                return JobState.UNKNOWN, ""
            raise EngineError("Ray does not say how a job is", got=type(error).__name__) from error
        except OSError as error:  # requests' errors are
            raise EngineError(
                "Ray's dashboard does not answer", got=type(error).__name__
            ) from error
        states = {
            JobStatus.SUCCEEDED: JobState.SUCCEEDED,
            JobStatus.FAILED: JobState.FAILED,
            JobStatus.STOPPED: JobState.STOPPED,
        }
        return states.get(info.status, JobState.RUNNING), info.message or ""

    def stop(self, job_id: str) -> None:
        """See `Runner.stop`."""
        if self.state(job_id)[0] is not JobState.RUNNING:
            return
        try:
            self._jobs().stop_job(job_id)
        except (RuntimeError, OSError) as error:
            raise EngineError("Ray does not stop a job", got=type(error).__name__) from error

    def _jobs(self) -> Any:
        if self._client is None:
            from ray.job_submission import JobSubmissionClient

            try:
                self._client = JobSubmissionClient(self._dashboard)
            except (ConnectionError, RuntimeError) as error:
                raise EngineError(
                    "Ray takes no jobs", got=type(error).__name__, fix="Is its dashboard running?"
                ) from error
        return self._client
