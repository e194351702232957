"""What is wrong with a cluster: reports of all its nodes, compared.

Pure but for `examination`, which has them made (`cluster.examination`).
"""

from __future__ import annotations

import json
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from cluster.examination import NodeQuestions, NodeReport, reports_in
from cluster.jobs import Job, JobState, RayJobs
from ztom.errors import EngineError

#: Seconds by which clocks may differ: tokens, deadlines and records are compared by them.
MOST_CLOCK_S = 2.0
_LIMIT_S = 240.0
_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class NodeProblem:
    """Something that is wrong.

    Attributes:
        node: Address of the node; empty where it is the cluster's.
        what: Sentence that says what is wrong, without a full stop.
        fix: What mends it.
        name: Name of what is wrong: ``image``, ``settings``, ``token``, ``place`` and others.
    """

    node: str
    what: str
    fix: str
    name: str


def examination(jobs: RayJobs, questions: NodeQuestions) -> list[NodeReport]:
    """Have every node of a cluster looked at.

    Args:
        jobs: The jobs of the cluster.
        questions: What is looked at besides what every node has to have.

    Raises:
        EngineError: The cluster does not answer, or the job failed; its last line says why.
    """
    job_id = f"ztom-examination-{secrets.token_hex(6)}"
    command = ["python", "-m", "cluster.examination", json.dumps(asdict(questions))]
    jobs.submit(Job(job_id, command, metadata={"ztom": "examination"}))
    deadline = time.monotonic() + _LIMIT_S
    while (state := jobs.state(job_id))[0] is JobState.RUNNING:
        if time.monotonic() > deadline:
            jobs.stop(job_id)
            raise EngineError("the cluster was not examined in time", got=f"{_LIMIT_S:g} s")
        time.sleep(_POLL_S)
    lines = jobs.logs(job_id).splitlines()
    reports = reports_in(lines)
    if reports is None:
        last = next((line for line in reversed(lines) if line.strip()), state[1])
        raise EngineError(
            "the cluster could not be examined",
            reason=last,
            fix="Is the same version of ztom installed on its nodes?",
        )
    return reports


def problems_of(reports: Sequence[NodeReport]) -> list[NodeProblem]:
    """What is wrong with a cluster, by its nodes' reports.

    Args:
        reports: A report of every node.
    """
    known = [report for report in reports if not report.failure]
    problems = []
    for report in reports:
        if report.failure:
            what = f"nothing is known of it: {report.failure}"
            problems.append(NodeProblem(report.address, what, "Start it anew.", "node"))
    for find in (_images, _settings, _tokens, _clocks, _places, _gpus):
        problems += find(known)
    return problems


def _images(reports: Sequence[NodeReport]) -> Iterator[NodeProblem]:
    """Packages of which a node has another version than most have."""
    for package in sorted({name for report in reports for name in report.versions}):
        versions = [report.versions.get(package, "none") for report in reports]
        usual = Counter(versions).most_common(1)[0][0]
        for report, value in zip(reports, versions, strict=True):
            if value != usual:
                what = f"it has {package} {value}, and others have {usual}"
                yield NodeProblem(report.address, what, "Start all nodes from one image.", "image")


def _settings(reports: Sequence[NodeReport]) -> Iterator[NodeProblem]:
    fix = "Start it with `ztom cluster`, or set what `ztom cluster settings` prints."
    for report in reports:
        for name, harm in report.missing.items():
            yield NodeProblem(report.address, f"{name} is not set: {harm}", fix, "settings")


def _tokens(reports: Sequence[NodeReport]) -> Iterator[NodeProblem]:
    head = next((report for report in reports if report.head), None)
    fix = "Give all nodes the token of the head (~/.ray/auth_token, or a secret)."
    for report in reports:
        if not report.token:
            yield NodeProblem(report.address, "it has no token", fix, "token")
        elif head is not None and report.token != head.token:
            yield NodeProblem(report.address, "its token is not the head's", fix, "token")


def _clocks(reports: Sequence[NodeReport]) -> Iterator[NodeProblem]:
    for report in reports:
        if abs(report.clock_s) > MOST_CLOCK_S:
            what = f"its clock is {report.clock_s:+.1f} s from the head's"
            yield NodeProblem(report.address, what, "Run a time service (chrony) on it.", "clock")


def _places(reports: Sequence[NodeReport]) -> Iterator[NodeProblem]:
    for report in reports:
        for place, reason in report.unreadable.items():
            fix = "Use a place that every node reads: a bucket, or a disk that all of them share."
            yield NodeProblem(report.address, f"it cannot read {place}: {reason}", fix, "place")
        if report.ledger:
            fix = "Can the node reach the database, and is its address the same from everywhere?"
            what = f"it does not reach the database: {report.ledger}"
            yield NodeProblem(report.address, what, fix, "ledger")
        if report.shared:
            fix = "Mount the same disk on it."
            yield NodeProblem(report.address, report.shared, fix, "shared disk")


def _gpus(reports: Sequence[NodeReport]) -> Iterator[NodeProblem]:
    for report in reports:
        if len(report.gpus) != report.ray_gpus and report.gpus:
            what = f"it has {len(report.gpus)} GPUs, and Ray hands out {report.ray_gpus:g}"
            yield NodeProblem(report.address, what, "Start it with --gpus.", "gpu")
