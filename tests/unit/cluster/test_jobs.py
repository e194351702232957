"""Ray jobs: what is submitted, and what becomes of the errors of Ray's client."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus

from cluster.jobs import Job, JobState, RayJobs
from ztom.errors import EngineError

FAILURES = [
    RuntimeError("Request failed with status code 500: job 404 cannot be asked for."),
    ConnectionError("refused"),
    AuthenticationError("no token"),
]


@dataclass
class Client:
    """Ray's client, as far as it is used."""

    status: Any = JobStatus.RUNNING
    message: str | None = "going on"
    error: Exception | None = None
    submitted: list[dict[str, Any]] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)

    def submit_job(self, **options: Any) -> str:
        self._fail()
        self.submitted.append(options)
        return str(options["submission_id"])

    def get_job_info(self, job_id: str) -> SimpleNamespace:
        self._fail()
        return SimpleNamespace(status=self.status, message=self.message)

    def get_job_logs(self, job_id: str) -> str:
        self._fail()
        return f"printed by {job_id}"

    def stop_job(self, job_id: str) -> bool:
        self.stopped.append(job_id)
        return True

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


def jobs(client: Client) -> RayJobs:
    return RayJobs("http://dashboard", connect=lambda address: client)


def test_a_job_joins_the_cluster_that_runs_it() -> None:
    """Ray tells a job to look for a cluster; with two on a machine it found the other one."""
    client = Client()
    jobs(client).submit(Job("j", ["python", "-m", "x"], cluster="10.0.0.1:6379"))
    assert client.submitted[0]["entrypoint"] == "env RAY_ADDRESS=10.0.0.1:6379 python -m x"


def test_a_command_is_submitted_as_a_shell_reads_it() -> None:
    client = Client()
    jobs(client).submit(Job("j", ["python", "-m", "x", "a b"], {"A": "1"}, {"kind": "search"}))
    assert client.submitted == [
        {
            "entrypoint": "python -m x 'a b'",
            "submission_id": "j",
            "runtime_env": {"env_vars": {"A": "1"}},
            "metadata": {"kind": "search"},
        }
    ]


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (JobStatus.PENDING, JobState.RUNNING),
        (JobStatus.RUNNING, JobState.RUNNING),
        (JobStatus.SUCCEEDED, JobState.SUCCEEDED),
        (JobStatus.FAILED, JobState.FAILED),
        (JobStatus.STOPPED, JobState.STOPPED),
    ],
)
def test_rays_states_are_ours(status: JobStatus, state: JobState) -> None:
    assert jobs(Client(status)).state("j") == (state, "going on")
    assert jobs(Client(status, message=None)).state("j") == (state, "")


def test_a_job_that_ray_never_heard_of_is_unknown_and_is_not_stopped() -> None:
    client = Client(
        error=RuntimeError("Request failed with status code 404: Job j does not exist.")
    )
    assert jobs(client).state("j") == (JobState.UNKNOWN, "")
    jobs(client).stop("j")
    assert client.stopped == []


@pytest.mark.parametrize("error", FAILURES)
def test_an_error_is_an_answer_of_no_job(error: Exception) -> None:
    client = Client(error=error)
    with pytest.raises(EngineError, match="took no job"):
        jobs(client).submit(Job("404", ["true"]))
    with pytest.raises(EngineError, match="does not say how a job is"):
        jobs(client).state("404")
    with pytest.raises(EngineError, match="does not say how a job is"):
        jobs(client).stop("404")


def test_only_a_running_job_is_stopped() -> None:
    running, ended = Client(JobStatus.PENDING), Client(JobStatus.FAILED)
    jobs(running).stop("j")
    jobs(ended).stop("j")
    assert (running.stopped, ended.stopped) == (["j"], [])


def test_a_dashboard_that_does_not_answer_is_asked_again_later() -> None:
    answers = iter([ConnectionError("refused"), Client()])

    def connect(address: str) -> Client:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    ray_jobs = RayJobs("http://dashboard", connect=connect)
    with pytest.raises(EngineError, match="dashboard"):
        ray_jobs.state("j")
    assert ray_jobs.state("j")[0] is JobState.RUNNING


def test_a_job_starts_in_a_copy_of_its_folder(tmp_path: Path) -> None:
    client = Client()
    jobs(client).submit(Job("j", ["x"], {"A": "1"}, folder=tmp_path))
    assert client.submitted[0]["runtime_env"] == {
        "env_vars": {"A": "1"},
        "working_dir": str(tmp_path),
    }


def test_what_a_job_printed_is_passed_on() -> None:
    assert jobs(Client()).logs("j") == "printed by j"
    with pytest.raises(EngineError, match="Ray does not say what a job printed"):
        jobs(Client(error=RuntimeError("no such job"))).logs("j")
