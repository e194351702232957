"""What is wrong with a cluster, by what its nodes report."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobStatus

from cluster.doctor import examination, problems_of
from cluster.examination import (
    MARK,
    NodeQuestions,
    NodeReport,
    ledger_problem,
    reports_in,
    shared_problem,
    token_digest,
    unreadable,
)
from cluster.jobs import RayJobs
from ztom.errors import EngineError

HEAD = NodeReport("10.0.0.5", "a", head=True, versions={"ray": "2.60.0"}, token="12345678")
WORKER = replace(HEAD, address="10.0.0.6", name="b", head=False)


def problems(*reports: NodeReport) -> list[tuple[str, str, str]]:
    return [(problem.name, problem.node, problem.what) for problem in problems_of(reports)]


def test_nodes_that_are_alike_have_no_problem() -> None:
    assert problems(HEAD, WORKER, replace(WORKER, clock_s=0.4)) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"versions": {"ray": "2.59.0"}}, ("image", "it has ray 2.59.0, and others have 2.60.0")),
        ({"versions": {}}, ("image", "it has ray none, and others have 2.60.0")),
        ({"missing": {"X": "slow"}}, ("settings", "X is not set: slow")),
        ({"token": ""}, ("token", "it has no token")),
        ({"token": "87654321"}, ("token", "its token is not the head's")),
        ({"clock_s": -3.2}, ("clock", "its clock is -3.2 s from the head's")),
        ({"unreadable": {"gs://b/x": "no"}}, ("place", "it cannot read gs://b/x: no")),
        ({"ledger": "refused"}, ("ledger", "it does not reach the database: refused")),
        ({"shared": "not there"}, ("shared disk", "not there")),
        ({"gpus": ("T4", "T4"), "ray_gpus": 1}, ("gpu", "it has 2 GPUs, and Ray hands out 1")),
        ({"failure": "died"}, ("node", "nothing is known of it: died")),
    ],
)
def test_each_thing_that_is_wrong_is_named_with_its_node(
    change: dict[str, Any], problem: tuple[str, str]
) -> None:
    name, what = problem
    bad = replace(WORKER, address="10.0.0.7", **change)
    assert problems(HEAD, WORKER, bad) == [(name, "10.0.0.7", what)]


def test_a_node_looks_at_places_ledger_and_disk(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("x")
    here, gone = str(tmp_path / "there"), str(tmp_path / "gone")
    reasons = unreadable(NodeQuestions(places=(here, gone), files=(str(tmp_path / "file"), gone)))
    assert list(reasons) == [gone]
    assert ledger_problem(f"sqlite:///{tmp_path}/ledger.db") == ""
    assert "OperationalError" in ledger_problem(f"sqlite:///{tmp_path}/gone/ledger.db")
    assert "is not there" in shared_problem(str(tmp_path), "abc")
    (tmp_path / ".ztom-abc").write_text("abc")
    assert shared_problem(str(tmp_path), "abc") == ""


def test_a_token_is_compared_by_its_digest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    digest = token_digest()
    assert len(digest) == 8
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    (tmp_path / "token").write_text("secret\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    assert token_digest() == digest


def test_reports_come_out_of_what_the_job_printed() -> None:
    line = MARK + json.dumps([asdict(HEAD)])
    client = _Client(JobStatus.SUCCEEDED, f"starting\n{line}\n")
    assert examination(
        RayJobs("x", connect=lambda _: client), NodeQuestions(places=("gs://b/c",))
    ) == [HEAD]
    command = client.submitted["entrypoint"]
    assert command.startswith("python -m cluster.examination")
    assert "gs://b/c" in command
    assert reports_in(["nothing"]) is None


def test_a_job_that_failed_says_its_last_line() -> None:
    client = _Client(JobStatus.FAILED, "trace\nNo module named cluster\n")
    with pytest.raises(EngineError, match="No module named cluster.*same version of ztom"):
        examination(RayJobs("x", connect=lambda _: client), NodeQuestions())


class _Client:
    """Ray's client, for one job."""

    def __init__(self, status: JobStatus, text: str) -> None:
        self._status, self._text = status, text
        self.submitted: dict[str, Any] = {}

    def submit_job(self, **options: Any) -> str:
        self.submitted = options
        return "job"

    def get_job_info(self, job_id: str) -> SimpleNamespace:
        return SimpleNamespace(status=self._status, message="")

    def get_job_logs(self, job_id: str) -> str:
        return self._text

    def stop_job(self, job_id: str) -> bool:
        return True
