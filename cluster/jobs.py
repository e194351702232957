"""Ray jobs: commands that run on the cluster and outlive whoever submitted them."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from ztom.errors import EngineError

#: How Ray's client words an answer that is no success; the status is nowhere else.
_HTTP_STATUS = re.compile(r"^Request failed with status code (\d{3})\b")
_NOT_FOUND = 404
_SHOWN = 500


class JobState(StrEnum):
    """Where a job stands; `UNKNOWN` is one that Ray has never heard of."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Job:
    """A command to be run.

    Attributes:
        id: The submission id, which is never used twice.
        command: Program and arguments.
        environment: Variables on top of what a process of the cluster has.
        metadata: Labels that Ray's dashboard shows.
        cluster: Address of the cluster that runs it, as ``host:port``. Ray itself has a job look
            for one, and where several are on a machine it may find another. None leaves it to Ray.
        folder: Local folder that the job's process is started in a copy of; None for none.
    """

    id: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    cluster: str | None = None
    folder: Path | None = None

    @property
    def entrypoint(self) -> str:
        """The command line for a shell; Ray sets ``RAY_ADDRESS``, so that it is set once more."""
        pinned = () if self.cluster is None else ("env", f"RAY_ADDRESS={self.cluster}")
        return shlex.join([*pinned, *self.command])


class JobClient(Protocol):
    """What is used of Ray's ``JobSubmissionClient``."""

    def submit_job(self, **options: Any) -> str:
        """Start a job."""

    def get_job_info(self, job_id: str) -> Any:
        """How a job is, with ``status`` and ``message``."""

    def get_job_logs(self, job_id: str) -> str:
        """What a job has printed so far."""

    def stop_job(self, job_id: str) -> bool:
        """Ask a job to end."""


class RayJobs:
    """The jobs of one cluster.

    Args:
        dashboard: Address of Ray's dashboard, as in ``http://127.0.0.1:8265``.
        connect: Factory of the client for an address; Ray's own client when None.
    """

    def __init__(
        self, dashboard: str, *, connect: Callable[[str], JobClient] | None = None
    ) -> None:
        self._dashboard = dashboard
        self._connect = connect or _ray_client
        self._client: JobClient | None = None

    def submit(self, job: Job) -> None:
        """Start a job.

        Raises:
            EngineError: Ray did not take it, or did not say so.
        """
        environment: dict[str, Any] = {"env_vars": dict(job.environment)}
        if job.folder is not None:
            environment["working_dir"] = str(job.folder)
        with _ray_errors("Ray took no job"):
            self._jobs().submit_job(
                entrypoint=job.entrypoint,
                submission_id=job.id,
                runtime_env=environment,
                metadata=dict(job.metadata),
            )

    def state(self, job_id: str) -> tuple[JobState, str]:
        """Where a job stands, and the last message of its own or of Ray about it.

        Raises:
            EngineError: Ray does not say.
        """
        with _ray_errors("Ray does not say how a job is"):
            try:
                info = self._jobs().get_job_info(job_id)
            except RuntimeError as error:
                if _http_status(error) == _NOT_FOUND:
                    return JobState.UNKNOWN, ""
                raise
        return _STATES.get(info.status, JobState.RUNNING), info.message or ""

    def logs(self, job_id: str) -> str:
        """What a job has printed so far.

        Raises:
            EngineError: Ray does not say.
        """
        with _ray_errors("Ray does not say what a job printed"):
            return str(self._jobs().get_job_logs(job_id))

    def stop(self, job_id: str) -> None:
        """Ask a job to end; nothing where none of the id runs.

        Raises:
            EngineError: Ray does not stop it, or does not say so.
        """
        if self.state(job_id)[0] is not JobState.RUNNING:
            return
        with _ray_errors("Ray does not stop a job"):
            self._jobs().stop_job(job_id)

    def _jobs(self) -> JobClient:
        if self._client is None:
            self._client = self._connect(self._dashboard)
        return self._client


#: Ray's states that are ends; in all others a job runs, or is about to.
_STATES = {
    "SUCCEEDED": JobState.SUCCEEDED,
    "FAILED": JobState.FAILED,
    "STOPPED": JobState.STOPPED,
}


def _ray_client(dashboard: str) -> JobClient:
    from ray.job_submission import JobSubmissionClient

    client: JobClient = JobSubmissionClient(dashboard)
    return client


@contextlib.contextmanager
def _ray_errors(message: str) -> Iterator[None]:
    """Raise what Ray's client raises as `EngineError`; a cluster that starts says 500 a while."""
    from ray.exceptions import RayError

    try:
        yield
    except (RuntimeError, OSError, RayError) as error:  # OSError: those of requests, too
        raise EngineError(
            message,
            reason=f"{type(error).__name__}: {str(error)[-_SHOWN:]}",
            fix="Is Ray's dashboard running? Its log is dashboard.log in Ray's session folder.",
        ) from error


def _http_status(error: RuntimeError) -> int | None:
    match = _HTTP_STATUS.match(str(error))
    return int(match[1]) if match else None
