"""``ztom searches`` and ``ztom search --project`` against a server; the search itself is made up.

``tests/outside`` has a real one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import command_line
import pytest
import yaml
from search_results import make_proof, make_result
from server_helpers import Server, tar_of
from toys import make_plain_chain

from cluster.jobs import JobState
from serve_apps.control_plane.runner import SearchJob
from ztom.client import Client
from ztom.ledger import Ledger, NewStudy
from ztom.ledger.records import StudyStatus, TrialKind, TrialOutcome
from ztom.scoring.proof import ProofOutcome
from ztom.search.config_files import load_config
from ztom.search.result import Proof

Run = Callable[..., CompletedProcess[str]]
FACTORS = (0.01, -0.02)


def search_ends(server: Server, job: SearchJob, proof: Proof | None) -> None:
    """What the process of a search leaves in the ledger: two trials, one failed, and a result."""
    config = load_config(job.config)
    with Ledger.open(server.services.config.ledger_address) as ledger:
        study = ledger.studies.create(NewStudy(config.name, {}, "c", "h", {}, 0)).id
        for number, outcome in enumerate((TrialOutcome(error=0.5), TrialOutcome(reason="NaN"))):
            ledger.studies.ask(study, number=number, kind=TrialKind.SEARCH, factors=FACTORS)
            ledger.studies.tell(study, number, outcome)
        ledger.studies.set_status(study, StudyStatus.FINISHED)
        result = make_result(
            study_id=study, factors=2, optimized_scaling_factors=FACTORS, proof=proof
        )
        ledger.studies.save_result(study, result.model_dump(mode="json"))
    config.output.mkdir(exist_ok=True)
    (config.output / "result.json").write_text(result.model_dump_json())
    server.runner.states[job.id] = JobState.SUCCEEDED


def proof_of(outcome: ProofOutcome) -> Proof:
    proof = make_proof()
    nothing = {"variant": None, "variant_digest": None}
    decision = proof.decision.model_copy(update={"outcome": outcome})
    return proof.model_copy(update={"decision": decision, **nothing})


@pytest.fixture
def run(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs commands as ada, who has the project ``support``."""
    ada = server.as_user("ada")
    project = server.project(ada, "support")
    for path in make_plain_chain(tmp_path / "chain"):
        server.upload(ada, project, tar_of(path), fileName=path.name)
    server.scored(ada, project)
    monkeypatch.setenv("ZTOM_API_KEY", server.token("ada"))
    monkeypatch.setenv("ZTOM_SERVER", server.url)
    return command_line.ztom


@pytest.fixture
def file(tmp_path: Path) -> Path:
    lines = [json.dumps({"prompt": f"item {i}", "expected": f"{i}"}) for i in range(12)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    content = {"stimuli": "a.jsonl", "error": "rouge_l", "budget": {"evaluations": 2}}
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "search.yaml"


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (ProofOutcome.IMPROVED, 0),
        (ProofOutcome.NO_IMPROVEMENT, 1),
        (ProofOutcome.INCONCLUSIVE, 2),
        (None, 2),
    ],
)
def test_the_exit_status_says_the_outcome_where_it_is_asked_for(
    server: Server, run: Run, file: Path, outcome: ProofOutcome | None, status: int
) -> None:
    proof = None if outcome is None else proof_of(outcome)
    server.runner.on_submit = lambda job: search_ends(server, job, proof)
    search = ("search", file, "--project", "support")
    done = run(*search, "--exit-status")
    assert done.returncode == status, done.stderr
    assert f"proof       {outcome or 'none'}" in done.stdout
    if status == 1:  # without the option a result is 0, whatever it says
        plain = run(*search, "--json")
        assert plain.returncode == 0
        assert json.loads(plain.stdout)["verdict"] == "no improvement"


def test_a_search_that_failed_is_an_error_in_any_case(server: Server, run: Run, file: Path) -> None:
    def fail(job: SearchJob) -> None:
        (job.config.parent / "run").mkdir()
        (job.config.parent / "run" / "error.txt").write_text("ChainError: they do not fit")
        server.runner.states[job.id] = JobState.FAILED

    server.runner.on_submit = fail
    done = run("search", file, "--project", "support", "--exit-status")
    assert (done.returncode, "they do not fit" in done.stderr) == (3, True)


def test_trials_of_a_search_as_lines_and_as_documents(
    server: Server, run: Run, file: Path, tmp_path: Path
) -> None:
    proof = proof_of(ProofOutcome.IMPROVED)
    server.runner.on_submit = lambda job: search_ends(server, job, proof)
    answer: dict[str, Any] = json.loads(
        run("search", file, "--project", "support", "--json").stdout
    )
    request = answer["requestId"]
    events = run("searches", "events", request)
    assert events.returncode == 0, events.stderr
    assert events.stdout.splitlines() == [
        "trial 0 (search) 0.50000 at +0.010 -0.020",
        "trial 1 (search) failed: NaN at +0.010 -0.020",
        "finished",
    ]
    assert events.stderr.startswith("waiting for trials ...")
    rows = run("searches", "events", request, "--json")
    assert rows.stderr == ""
    trials = [json.loads(line) for line in rows.stdout.splitlines()]
    assert [(trial["number"], trial["error"]) for trial in trials] == [(0, 0.5), (1, None)]
    shown = run("searches", "show", request)
    assert shown.stdout.startswith(f"{request}: finished, 2 of 2+ trials, best error 0.50000")
    assert request in run("searches", "list", "support").stdout
    saved = tmp_path / "result.json"
    whole = run("searches", "result", "support", request, "--output", saved)
    assert whole.returncode == 0, whole.stderr
    assert json.loads(saved.read_text())["optimized_scaling_factors"] == list(FACTORS)


def test_a_search_is_cancelled_and_resumed(server: Server, run: Run, file: Path) -> None:
    server.runner.on_submit = lambda job: None
    assert json.loads(run("searches", "list", "support", "--json").stdout) == []
    with Client(server.url, key=server.token("ada")) as client:
        request = client.start_search(
            "support", stimuli=file.with_name("a.jsonl"), limit=0.1, error="rouge_l"
        )
    cancelled = run("searches", "cancel", request)
    assert (cancelled.returncode, cancelled.stdout) == (0, f"{request}: cancelled\n")
    events = run("searches", "events", request)
    assert events.stdout == "cancelled: cancelled by a user\n"
    resumed = run("searches", "resume", request, "--json")
    assert json.loads(resumed.stdout)["status"] in ("queued", "running")
