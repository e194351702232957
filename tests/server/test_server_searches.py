"""Searches on the server: what is due when, crashes, two replicas, and their events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import yaml
from gate_repository import make_locked
from search_results import make_proof, make_result
from server_helpers import Server, serving, tar_of
from toys import make_plain_chain

from cluster.jobs import JobState
from serve_apps.control_plane.config import ServerConfig
from serve_apps.control_plane.runner import SearchJob
from serve_apps.control_plane.scores import Scorer
from serve_apps.control_plane.searches import JobSituation, Step, advance, next_step
from serve_apps.control_plane.work import CheckpointScores
from ztom.blending.chain import load_chain
from ztom.errors import EngineError, StorageError
from ztom.evaluation.suites.lock import load_locked
from ztom.ledger import Ledger, NewStudy, TrialKind, TrialOutcome
from ztom.ledger.checkpoints import FileStatus
from ztom.ledger.requests import RequestStatus
from ztom.search.config_files import load_config
from ztom.settings import Settings


def situation(**more: object) -> JobSituation:
    return JobSituation(
        **{
            "status": RequestStatus.RUNNING,
            "job": JobState.RUNNING,
            "attempts": 1,
            "most_attempts": 3,
            "has_result": False,
            "explained": False,
            **more,
        }
    )


@pytest.mark.parametrize(
    ("now", "step"),
    [
        (situation(status=RequestStatus.QUEUED, job=None), Step.START),
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
def test_what_is_due(now: JobSituation, step: Step) -> None:
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


def test_as_many_as_there_are_engines_for_and_projects_take_turns(server, ada, body) -> None:
    eve = server.as_user("eve")
    other = server.project(eve)
    for path in sorted(Path(str(body["stimulusPaths"][0])).parent.parent.glob("chain/*")):
        server.upload(eve, other, tar_of(path))
    mine = [started(server, ada, body) for _ in range(3)]
    theirs = started(server, eve, {**body, "projectId": other})
    server.runner.places = 2
    advance(server.services)
    assert [state(server, r) for r in mine] == ["running", "queued", "queued"]
    assert state(server, theirs) is RequestStatus.RUNNING


@pytest.mark.abuse(65)
def test_two_replicas_start_it_once(server, ada, body) -> None:
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


@pytest.mark.abuse(56, 57)
def test_a_search_that_gets_on_is_never_given_up(server, ada, body) -> None:
    """Its processes are killed again and again, each time after a trial; then before one."""
    request = started(server, ada, body)
    ledger = server.services.ledger
    advance(server.services)
    study = ledger.studies.create(NewStudy(request, {}, "c", "h", {}, 0)).id
    for number in range(8):
        ledger.studies.ask(study, number=number, kind=TrialKind.SEARCH, factors=(0.1, 0.2))
        ledger.studies.tell(study, number, TrialOutcome(error=1.0))
        server.runner.states.clear()
        advance(server.services)
        assert ledger.requests.get(request).attempts == 1
    assert len(server.runner.submitted) == 9
    for _ in range(10):
        server.runner.states.clear()
        advance(server.services)
    assert len(server.runner.submitted) == 9 + 2
    assert state(server, request) is RequestStatus.FAILED


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
        proof = make_proof().model_copy(
            update={"variant": str(variant), "variant_digest": "d" * 64}
        )
        result = make_result(
            study_id=study, factors=2, optimized_scaling_factors=(0.1, 0.2), proof=proof
        )
        ledger.studies.save_result(study, result.model_dump(mode="json"))
    server.runner.states[server.runner.submitted[0].id] = JobState.SUCCEEDED
    for _ in range(3):
        advance(server.services)
    project = ada.get(f"{server.url}/project/{body['projectId']}", timeout=30).json()
    assert [file["part"] for file in project["fileList"]].count("MASTERED") == 1
    answer = ada.get(f"{server.url}/v1/searches/{request}", timeout=30).json()
    assert answer["result"]["optimized_scaling_factors"] == [0.1, 0.2]
    assert answer["result"]["holdout"]["verdict"] == proof.decision.model_dump(mode="json")
    assert answer["result"]["verdict"] == "improved"
    assert answer["result"]["variant_digest"] == "d" * 64
    again = started(server, ada, body)  # the mastered one is no part of the chain
    advance(server.services)
    config = load_config(server.services.store.requests / again / "search.yaml", [])
    assert len(config.chain.checkpoints) == 3


def test_a_result_that_cannot_be_read_ends_the_search(server, ada, body) -> None:
    request = started(server, ada, body)
    advance(server.services)
    with Ledger.open(server.services.config.ledger_address) as ledger:
        study = ledger.studies.create(NewStudy(request, {}, "c", "h", {}, 0)).id
        ledger.studies.save_result(study, {"trained_model_error": "of a later version"})
    server.runner.states[server.runner.submitted[0].id] = JobState.SUCCEEDED
    advance(server.services)
    ended = server.services.ledger.requests.get(request)
    assert ended.status is RequestStatus.FAILED
    assert f"the result of study {study} cannot be read" in str(ended.reason)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"error": "rouge_x"}, "Did you mean rouge_l?"),
        ({"error": "no function"}, "unknown error function"),
        ({"error": {"function": "rouge_l", "device": "cuda"}}, "does not take device"),
        ({"error": {"function": "cross_entropy", "source": "labels"}}, "none are given"),
        ({"error": "accuracy", "labels": ["a", "a"]}, "a class label is given twice"),
        ({"sampler": "bayes"}, "unknown sampler: got bayes"),
        ({"sampler": "gradient", "error": "rouge_l"}, "got rouge_l, which reads the answer's text"),
        ({"scalingFactorLimit": 0}, "greater than 0"),
        ({"maxEvaluations": 10_001}, "at most 10000"),
        ({"seed": -1}, "at least 0"),
        ({"inferenceConfigJson": {"temperature": -1}}, "inferenceConfigJson is wrong"),
        ({"holdoutExpectedOutputPath": "ROOTS/e.txt"}, "without holdout"),
        ({"expectedOutputPath": "ROOTS/short.txt"}, "got 2 expected outputs, expected 3"),
        ({"expectedOutputPath": None}, "expected"),
        ({"stimulusPaths": ["ROOTS/one.jsonl"], "expectedOutputPath": None}, "one side empty"),
        (
            {
                "stimulusPaths": ["ROOTS/one.jsonl"],
                "expectedOutputPath": None,
                "holdoutPath": "ROOTS/one.jsonl",
            },
            "1 of 1 holdout stimuli are in the search set",
        ),
        ({"engine": {"name": "torch", "module": "os:system"}}, "without a module"),
    ],
)
def test_what_is_wrong_is_refused_before_there_is_a_search(
    server, ada, body, tmp_path, changes, reason
) -> None:
    roots = tmp_path / "roots"
    (roots / "one.jsonl").write_text('{"prompt": "a", "expected": "b"}\n')
    (roots / "short.txt").write_text("x\ny\n")
    changes = json.loads(json.dumps(changes).replace("ROOTS", str(roots)))
    answer = ada.post(f"{server.url}/v1/searches", json={**body, **changes}, timeout=30)
    assert answer.status_code == 422, answer.text
    assert reason in answer.text
    assert str(server.services.config.data) not in answer.text
    assert server.services.ledger.requests.open() == ()
    assert list(server.services.store.requests.iterdir()) == []


def test_data_too_large_to_be_read_at_once_is_read_by_the_search(
    server, ada, body, tmp_path, monkeypatch
) -> None:
    (tmp_path / "roots" / "one.jsonl").write_text('{"prompt": "a", "expected": "b"}\n')
    one = {"stimulusPaths": [str(tmp_path / "roots" / "one.jsonl")], "expectedOutputPath": None}
    monkeypatch.setattr("serve_apps.control_plane.searches._READ_AT_ONCE_BYTES", 8)
    assert state(server, started(server, ada, {**body, **one})) is RequestStatus.QUEUED


def test_what_may_pass_is_tried_again(server, ada, body, monkeypatch) -> None:
    monkeypatch.setattr("serve_apps.control_plane.scores._PAUSE_S", 0.0)
    calls: list[int] = []

    async def call(function: object, /, *arguments: object, **options: object) -> CheckpointScores:
        calls.append(1)
        if len(calls) < 3:
            raise StorageError("the store says 503")
        return CheckpointScores("d" * 64)

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
