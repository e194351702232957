"""Searches on the server: what is due when, crashes, two replicas, and their events."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from gate_repository import make_locked
from server_helpers import Server, serving, tar_of
from toys import make_plain_chain
from variant_folders import wait_for

from cluster.jobs import JobState
from serve_apps.control_plane.config import ServerConfig
from serve_apps.control_plane.runner import SearchJob
from serve_apps.control_plane.scores import Scorer
from serve_apps.control_plane.searches import Situation, Step, advance, next_step
from serve_apps.control_plane.work import Scored
from serve_apps.server.background import HeadExport, tidy
from ztom.blending.chain import load_chain
from ztom.errors import AuditError, EngineError, StorageError
from ztom.evaluation.suites.lock import load_locked
from ztom.ledger import Ledger, NewStudy
from ztom.ledger.audit import SignedHead, read_head
from ztom.ledger.audit_store import AuditChain
from ztom.ledger.checkpoints import FileStatus
from ztom.ledger.requests import NewRequest, RequestKind, RequestStatus
from ztom.search.config_files import load_config
from ztom.settings import Settings


def situation(**more: object) -> Situation:
    return Situation(
        **{
            "status": RequestStatus.RUNNING,
            "job": JobState.RUNNING,
            "attempts": 1,
            "most_attempts": 3,
            "others_running": False,
            "has_result": False,
            "explained": False,
            **more,
        }
    )


@pytest.mark.parametrize(
    ("now", "step"),
    [
        (situation(status=RequestStatus.QUEUED, job=None), Step.START),
        (situation(status=RequestStatus.QUEUED, job=None, others_running=True), Step.NOTHING),
        (situation(status=RequestStatus.QUEUED), Step.NOTHING),  # its old job is being stopped
        (situation(), Step.NOTHING),
        (situation(has_result=True), Step.NOTHING),  # its process still writes
        (situation(job=JobState.SUCCEEDED, has_result=True), Step.FINISH),
        (situation(job=JobState.UNKNOWN, has_result=True), Step.FINISH),
        (situation(job=JobState.UNKNOWN), Step.START),
        (situation(job=JobState.FAILED), Step.START),
        (situation(job=JobState.FAILED, explained=True), Step.FAIL),
        (situation(job=JobState.STOPPED), Step.FAIL),
        (situation(job=JobState.UNKNOWN, attempts=3), Step.FAIL),
        (situation(status=RequestStatus.CANCELLED, job=JobState.STOPPED), Step.NOTHING),
        (situation(status=RequestStatus.FINISHED, job=JobState.SUCCEEDED), Step.NOTHING),
    ],
)
def test_what_is_due(now: Situation, step: Step) -> None:
    assert next_step(now) is step


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "roots").mkdir()
    config = ServerConfig(
        data=tmp_path / "data",
        pointer_roots=(str(tmp_path / "roots"),),
        poll_s=3600,  # the tests say when
        audit_head=str(tmp_path / "elsewhere.json"),
    )
    with serving(config) as server:
        yield server


@pytest.fixture
def ada(server: Server) -> requests.Session:
    return server.as_user("ada")


@pytest.fixture
def body(server: Server, ada: requests.Session, tmp_path: Path) -> dict[str, object]:
    project = server.project(ada)
    for path in make_plain_chain(tmp_path / "chain"):
        server.upload(ada, project, tar_of(path))
    (tmp_path / "roots" / "a.jsonl").write_text('{"prompt": "1"}\n{"prompt": "2"}')
    (tmp_path / "roots" / "b.jsonl").write_text('{"prompt": "3"}\n')
    (tmp_path / "roots" / "e.txt").write_text("x\ny\nz\n")
    paths = [str(tmp_path / "roots" / name) for name in ("a.jsonl", "b.jsonl")]
    return {
        "projectId": project,
        "scalingFactorLimit": 0.3,
        "stimulusPaths": paths,
        "expectedOutputPath": str(tmp_path / "roots" / "e.txt"),
        "inferenceConfigJson": {"max_new_tokens": 7},
        "maxEvaluations": 9,
        "seed": 4,
    }


def started(server: Server, ada: requests.Session, body: dict[str, object]) -> str:
    answer = ada.post(f"{server.url}/v1/searches", json=body, timeout=30)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["requestId"])


def state(server: Server, request: str) -> RequestStatus:
    return server.services.ledger.requests.get(request).status


def test_the_file_that_the_search_runs_on(server, ada, body) -> None:
    request = started(server, ada, body)
    advance(server.services)
    job = server.runner.submitted[0]
    config = load_config(job.config, [])
    assert config.name == request
    assert config.scaling_factor_limit == 0.3
    assert config.inference_config.max_new_tokens == 7
    assert (config.budget.evaluations, config.seed) == (9, 4)
    assert config.stimuli.read_text().splitlines() == [f'{{"prompt": "{n}"}}' for n in (1, 2, 3)]
    assert config.expected_outputs is not None
    assert job.config.stat().st_mode & 0o077 == 0
    assert len(config.chain.checkpoints) == 3
    assert str(server.services.config.data) in job.environment["ZTOM_ALLOWED_ROOTS"]
    assert "password" not in yaml.safe_dump(dict(job.environment))


def test_the_search_opens_its_chain_whatever_the_operator_denies(
    server, ada, body, monkeypatch
) -> None:
    """What is denied to pointers are the server's own files, among which its uploads are."""
    monkeypatch.setenv("ZTOM_DENIED_ROOTS", json.dumps([str(server.services.config.data)]))
    started(server, ada, body)
    advance(server.services)
    job = server.runner.submitted[0]
    for name, value in job.environment.items():
        monkeypatch.setenv(name, value)
    chain = load_chain(load_config(job.config).chain, settings=Settings())
    assert chain.transitions == 2


def test_suites_are_copied_as_locked_and_bring_no_code(server, ada, body, tmp_path) -> None:
    suite = make_locked(tmp_path / "roots", "mine")
    request = started(server, ada, {**body, "suitePaths": [str(suite)]})
    advance(server.services)
    (copy,) = load_config(server.runner.submitted[0].config, []).suites
    assert copy == server.services.store.requests / request / "suites" / "0"
    assert load_locked(copy).digest == load_locked(suite).digest
    for wrong, said in (
        (make_locked(tmp_path / "elsewhere"), "outside the allowed roots"),
        (tmp_path / "roots", "no locked suite"),
        (
            make_locked(
                tmp_path / "roots", "code", layer="task", metric="user", function="mine:score"
            ),
            "from the command line",
        ),
    ):
        answer = ada.post(
            f"{server.url}/v1/searches", json={**body, "suitePaths": [str(wrong)]}, timeout=30
        )
        assert answer.status_code in (400, 403, 422), answer.text
        assert said in answer.text


def test_one_at_a_time_and_the_next_when_it_ends(server, ada, body) -> None:
    first, second = (started(server, ada, body) for _ in range(2))
    for _ in range(3):
        advance(server.services)
    assert [state(server, r) for r in (first, second)] == ["running", "queued"]
    assert len(server.runner.submitted) == 1
    ada.post(f"{server.url}/v1/searches/{first}/cancel", timeout=30)
    advance(server.services)
    assert [state(server, r) for r in (first, second)] == ["cancelled", "running"]
    ada.post(f"{server.url}/v1/searches/{first}/resume", timeout=30)
    assert state(server, first) is RequestStatus.QUEUED


def test_two_replicas_start_it_once(server, ada, body) -> None:  # row 65
    request = started(server, ada, body)
    seen = server.services.ledger.requests.get(request)
    assert server.services.ledger.requests.start(request, job="a", instead_of=seen.job)
    assert server.services.ledger.requests.start(request, job="b", instead_of=seen.job) is None
    assert server.services.ledger.requests.get(request).job == "a"


def test_a_job_that_is_gone_is_started_again_a_few_times(server, ada, body) -> None:
    request = started(server, ada, body)
    for _ in range(10):
        advance(server.services)
        server.runner.states.clear()
    assert len(server.runner.submitted) == 3
    assert len({job.id for job in server.runner.submitted}) == 3
    ended = server.services.ledger.requests.get(request)
    assert ended.status is RequestStatus.FAILED
    assert "after 3 attempts" in str(ended.reason)


def test_a_cluster_that_takes_no_job_costs_no_attempt(server, ada, body) -> None:
    request = started(server, ada, body)

    def refuse(job: SearchJob) -> None:
        server.runner.states.clear()
        raise EngineError("Ray took no job")

    server.runner.on_submit = refuse
    for _ in range(10):
        advance(server.services)
    assert len(server.runner.submitted) == 10
    assert state(server, request) is RequestStatus.RUNNING
    server.runner.on_submit = lambda job: None
    advance(server.services)
    seen = server.services.ledger.requests.get(request)
    assert (seen.attempts, seen.job) == (1, server.runner.submitted[-1].id)


def test_a_job_that_was_taken_without_a_word_goes_on(server, ada, body) -> None:
    request = started(server, ada, body)

    def silent(job: SearchJob) -> None:
        raise EngineError("Ray took no job", got="timed out")

    server.runner.on_submit = silent
    for _ in range(3):
        advance(server.services)
    (job,) = server.runner.submitted
    assert server.services.ledger.requests.get(request).job == job.id


def test_of_two_jobs_the_one_on_record_goes_on(server, ada, body) -> None:
    request = started(server, ada, body)
    ledger = server.services.ledger.requests
    server.runner.on_submit = lambda job: ledger.start(request, job="other", instead_of=job.id)
    advance(server.services)
    assert server.runner.stopped == [server.runner.submitted[0].id]


def test_its_own_explanation_ends_it_at_once(server, ada, body) -> None:
    request = started(server, ada, body)
    advance(server.services)
    job = server.runner.submitted[0]
    (job.config.parent / "run").mkdir()
    stored = server.services.store.checkpoints / "a.tar"
    (job.config.parent / "run" / "error.txt").write_text(f"ChainError: {stored} does not fit")
    server.runner.states[job.id] = JobState.FAILED
    advance(server.services)
    ended = server.services.ledger.requests.get(request)
    # where the server keeps its files is nothing to tell
    assert (ended.status, ended.reason) == ("failed", "ChainError: checkpoints/a.tar does not fit")
    events = ada.get(f"{server.url}/v1/searches/{request}/events", timeout=30).text
    last = json.loads(events.strip().split("\n")[-1].removeprefix("data: "))
    assert last["reason"] == "ChainError: checkpoints/a.tar does not fit"
    waiting = ada.post(f"{server.url}/v1/searches/{request}/resume", timeout=30)
    assert waiting.status_code == 202


def test_ray_that_says_nothing_changes_nothing(server, ada, body) -> None:
    request = started(server, ada, body)
    advance(server.services)

    def silent(job_id: str) -> tuple[JobState, str]:
        raise EngineError("Ray does not say how a job is")

    server.runner.state = silent
    advance(server.services)
    assert state(server, request) is RequestStatus.RUNNING


def test_a_search_is_on_record_once_it_can_be_started(server, ada, body, monkeypatch) -> None:
    folders = server.services.store.requests
    refused = ada.post(
        f"{server.url}/v1/searches", json={**body, "expectedOutputPath": "/none"}, timeout=30
    )
    assert refused.status_code == 422
    assert server.services.ledger.requests.open() == ()
    assert list(folders.iterdir()) == []

    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("serve_apps.control_plane.searches.write_whole", full)
    answer = ada.post(f"{server.url}/v1/searches", json=body, timeout=30)
    assert (answer.status_code, "disk is full" in answer.text) == (503, True)
    assert server.services.ledger.requests.open() == ()
    assert list(folders.iterdir()) == []


def test_a_search_that_is_cancelled_while_it_starts_is_stopped(server, ada, body) -> None:
    request = started(server, ada, body)
    ledger = server.services.ledger.requests
    server.runner.on_submit = lambda job: ledger.end(
        request, RequestStatus.CANCELLED, reason="meanwhile"
    )
    advance(server.services)
    assert server.runner.stopped == [server.runner.submitted[0].id]


def test_one_that_cannot_be_moved_does_not_hold_the_others(server, ada, body) -> None:
    first, second = (started(server, ada, body) for _ in range(2))
    advance(server.services)
    job = server.services.ledger.requests.get(first).job
    known = server.runner.state

    def state_of(job_id: str) -> tuple[JobState, str]:
        if job_id == job:
            raise EngineError("Ray does not say how a job is")
        return known(job_id)

    server.runner.state = state_of
    server.services.ledger.requests.end(second, RequestStatus.CANCELLED, reason="no")
    ada.post(f"{server.url}/v1/searches/{second}/resume", timeout=30)
    advance(server.services)
    assert state(server, second) is RequestStatus.QUEUED  # the first still has the machine
    assert state(server, first) is RequestStatus.RUNNING


def test_a_result_that_nobody_waited_for_is_written_down_once(server, ada, body) -> None:
    request = started(server, ada, body)
    advance(server.services)
    variant = server.services.store.requests / request / "run" / "variant"
    variant.mkdir(parents=True)
    (variant / "config.json").write_text("{}")
    with Ledger.open(server.services.config.ledger_address) as ledger:
        study = ledger.studies.create(NewStudy(request, {}, "c", "h", {}, 0)).id
        proof = {
            "trained_model_error": 2.0,
            "optimized_model_error": 1.5,
            "verdict": {"outcome": "improved"},
            "variant": str(variant),
            "variant_digest": "d" * 64,
        }
        ledger.studies.save_result(
            study,
            {
                "trained_model_error": 2.1,
                "optimized_model_error": 1.4,
                "optimized_scaling_factors": [0.1, 0.2],
                "number_of_inferences": 9,
                "stop_reason": "budget",
                "proof": proof,
            },
        )
    server.runner.states[server.runner.submitted[0].id] = JobState.SUCCEEDED
    for _ in range(3):
        advance(server.services)
    project = ada.get(f"{server.url}/project/{body['projectId']}", timeout=30).json()
    assert [file["part"] for file in project["fileList"]].count("MASTERED") == 1
    found = ada.get(f"{server.url}/v1/searches/{request}", timeout=30).json()
    assert found["result"]["optimized_scaling_factors"] == [0.1, 0.2]
    assert found["result"]["holdout"]["verdict"] == {"outcome": "improved"}
    again = started(server, ada, body)  # the mastered one is no part of the chain
    advance(server.services)
    config = load_config(server.services.store.requests / again / "search.yaml", [])
    assert len(config.chain.checkpoints) == 3


def test_leftovers_of_a_killed_server(server: Server, tmp_path: Path) -> None:
    services = server.services
    server.as_user("ada")
    ada = services.ledger.accounts.for_login("ada")
    assert ada is not None
    dead, alive = (
        services.ledger.requests.create(NewRequest(RequestKind.METATUNE, ada[0].id))
        for _ in range(2)
    )
    services.ledger.requests.start(dead.id, job="replica-of-yesterday")
    services.ledger.requests.start(alive.id, job=services.store.replica)
    (services.store.staging / "half.part").write_bytes(b"x")
    being_written = services.store.begin()
    being_written.write(b"y")
    tidy(services)
    assert state(server, dead.id) is RequestStatus.FAILED
    assert state(server, alive.id) is RequestStatus.RUNNING
    assert [path.suffix for path in services.store.staging.iterdir()] == [".part"]
    being_written.discard()
    assert list(services.store.staging.iterdir()) == []


def test_the_signed_end_of_the_chain_goes_elsewhere(server: Server, tmp_path: Path) -> None:
    server.as_user("somebody")
    HeadExport().write(server.services)
    head = read_head(tmp_path / "elsewhere.json")
    head.check()
    assert server.services.ledger.audit.check(head) == head.sequence > 0


def test_the_end_of_the_chain_is_signed_when_it_has_moved(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed: list[int] = []
    sign = AuditChain.sign

    def counted(self: AuditChain, *arguments: Any, **options: Any) -> SignedHead:
        head = sign(self, *arguments, **options)
        signed.append(head.sequence)
        return head

    # the server signs once itself when it starts
    wait_for((tmp_path / "elsewhere.json").exists, "the first head")
    monkeypatch.setattr(AuditChain, "sign", counted)
    server.as_user("somebody")
    export = HeadExport()
    for each in (export, export, HeadExport()):  # the last one as after a restart
        each.write(server.services)
    server.as_user("somebody-else")
    export.write(server.services)
    assert len(signed) == len(set(signed)) == 2
    assert read_head(tmp_path / "elsewhere.json").sequence == signed[-1]


def test_a_head_of_another_chain_is_never_written_over(server: Server, tmp_path: Path) -> None:
    server.as_user("somebody")
    HeadExport().write(server.services)
    path = tmp_path / "elsewhere.json"
    evidence = path.read_bytes()
    with sqlite3.connect(server.services.config.data / "ledger.db") as raw:
        for name in ("audit_no_update", "audit_no_delete", "audit_at_the_end"):
            raw.execute(f"DROP TRIGGER {name}")
        raw.execute("DELETE FROM audit")
    raw.close()
    for name in ("one", "two", "three"):
        server.as_user(name)
    with pytest.raises(AuditError, match="signed"):
        HeadExport().write(server.services)
    assert path.read_bytes() == evidence


def test_what_may_pass_is_tried_again(server, ada, body, monkeypatch) -> None:
    monkeypatch.setattr("serve_apps.control_plane.scores._PAUSE_S", 0.0)
    calls: list[int] = []

    async def call(function: object, /, *arguments: object, **options: object) -> Scored:
        calls.append(1)
        if len(calls) < 3:
            raise StorageError("the store says 503")
        return Scored("d" * 64)

    project = str(body["projectId"])
    ids = [file.id for file in server.services.ledger.projects.get(project).files]
    for file_id in ids:
        server.services.ledger.files.recompute(project, file_id)
    monkeypatch.setattr(server.runner, "call", call)
    scorer = Scorer()
    for _ in range(3):
        asyncio.run(scorer.round(server.services))
    files = server.services.ledger.projects.get(project).files
    assert {file.status for file in files} == {FileStatus.VALID}
