"""What came of a search: its model as a path, its mark, its place in lists, and whose fault it was.

The search itself is made up here; ``tests/outside`` has a real one.
"""

from __future__ import annotations

import io
import json
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from search_results import make_existing, make_proof, make_result
from server_helpers import Server, serving, tar_of
from toys import make_plain_chain

from cluster.jobs import JobState
from serve_apps.control_plane.config import ServerConfig
from serve_apps.control_plane.runner import SearchJob
from ztom.blending.chain import load_chain
from ztom.ledger import Ledger, NewStudy
from ztom.scoring.proof import ProofOutcome
from ztom.search.config_files import load_config
from ztom.search.result import Proof
from ztom.settings import Settings
from ztom.variants.write import stage_variant

FACTORS = (0.1, -0.2)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "roots").mkdir()
    config = ServerConfig(
        data=tmp_path / "data",
        pointer_roots=(str(tmp_path / "roots"),),
        poll_s=0.05,
        gate_required=False,
    )
    with serving(config) as server:
        yield server


@pytest.fixture
def ada(server: Server) -> requests.Session:
    return server.as_user("ada")


@pytest.fixture
def body(server: Server, ada: requests.Session, tmp_path: Path) -> dict[str, Any]:
    project = server.project(ada)
    for path in make_plain_chain(tmp_path / "chain"):
        server.upload(ada, project, tar_of(path), fileName=path.name)
    server.scored(ada, project)
    lines = [json.dumps({"prompt": f"item {i}", "expected": f"{i}"}) for i in range(12)]
    (tmp_path / "roots" / "a.jsonl").write_text("\n".join(lines))
    return {
        "projectId": project,
        "scalingFactorLimit": 0.3,
        "stimulusPaths": [str(tmp_path / "roots" / "a.jsonl")],
        "error": "rouge_l",
    }


def proof_of(outcome: ProofOutcome, **more: Any) -> Proof:
    proof = make_proof()
    decision = proof.decision.model_copy(update={"outcome": outcome})
    nothing = {"variant": None, "variant_digest": None}
    return proof.model_copy(update={"decision": decision, **nothing, **more})


def search_writes(server: Server, job: SearchJob, proof: Proof, folder: str) -> None:
    """What the process of a search leaves when it ends."""
    config = load_config(job.config)
    chain = load_chain(config.chain, settings=Settings())
    with stage_variant(chain, FACTORS, config.output / folder) as staged:
        manifest = staged.publish()
    if folder == "variant":
        found = {"variant": str(config.output / folder), "variant_digest": manifest.digest}
        proof = proof.model_copy(update=found)
    with Ledger.open(server.services.config.ledger_address) as ledger:
        study = ledger.studies.create(NewStudy(config.name, {}, "c", "h", {}, 0)).id
        result = make_result(
            study_id=study,
            factors=2,
            optimized_scaling_factors=FACTORS,
            proof=proof,
            **make_existing(),
        )
        content = result.model_dump(mode="json")
        ledger.studies.save_result(study, content)
    (config.output / "result.json").write_text(json.dumps(content))
    server.runner.states[job.id] = JobState.SUCCEEDED


def searched(
    server: Server, session: requests.Session, body: dict[str, Any], proof: Proof, folder: str
) -> dict[str, Any]:
    server.runner.on_submit = lambda job: search_writes(server, job, proof, folder)
    url = f"{server.url}/dynamic_analysis/zto/batch"
    answer = session.post(url, json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_model_that_is_not_proved_has_a_path_and_keeps_its_mark(server, ada, body) -> None:
    proof = proof_of(ProofOutcome.INCONCLUSIVE)
    answer = searched(server, ada, body, proof, "unproven")
    result = answer["result"]
    assert {name: answer[name] for name in result} == result
    assert answer["advice"] == "checkpoint 00-base alone is better: use it"
    assert answer["best_existing"]["outcome"] == "worse"
    assert answer["best_existing"]["improvement"]["high"] < 0
    assert [(m["name"], m["holdout_error"]) for m in answer["existing"]] == [
        ("00-base", 2.809),
        ("01-last", 3.13),
        ("average", 2.9),
    ]
    assert answer["baseline_inferences"] == 4
    assert answer["step_gains"][0] == {"name": "00-base -> 01-last", "gain": 0.1, "share": 1.0}
    assert answer["step_warnings"] == ["step x changes nothing"]
    assert (answer["requestId"], answer["checkpoint_id"]) == (answer["request_id"], None)
    path = f"{body['projectId']}/results/{answer['requestId']}.tar"
    assert (result["mastered_path"], result["unproven"]) == (path, True)
    other = server.project(ada, "another")
    pointer = {"projectId": other, "filePath": path, "format": "HF_TEXT_GENERATION"}
    made = ada.post(f"{server.url}/project/file/external", json=pointer, timeout=30)
    assert made.status_code == 201, made.text
    (file,) = made.json()["fileList"]
    assert (file["unproven"], file["storage"]) == (True, "MANAGED")
    content = ada.get(
        f"{server.url}/project/file/{file['id']}", params={"projectId": other}, timeout=30
    ).content
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert {"config.json", "manifest.json"} <= set(archive.getnames())
    # a copy of the pointer keeps it too
    again = {**pointer, "projectId": server.project(ada, "third"), "filePath": file["filePath"]}
    made = ada.post(f"{server.url}/project/file/external", json=again, timeout=30).json()
    assert made["fileList"][0]["unproven"] is True
    check_serving(server, ada, body["projectId"], path, other, file["id"])
    # what another project's search made stays when the pointer goes
    gone = {"projectId": other, "fileId": file["id"], "hardDelete": True}
    ada.delete(f"{server.url}/project/file", json=gone, timeout=30)
    third = {**pointer, "projectId": server.project(ada, "fourth")}
    assert ada.post(f"{server.url}/project/file/external", json=third, timeout=30).ok


def check_serving(
    server: Server, ada: requests.Session, project: str, path: str, other: str, file: str
) -> None:
    url = f"{server.url}/v1/deployments"
    by_path = {"alias": "by-path", "now": True, "projectId": project, "path": path}
    by_file = {"alias": "by-file", "now": True, "projectId": other, "fileId": file}
    for wanted in (by_path, by_file):
        refused = ada.post(url, json=wanted, timeout=30)
        assert refused.status_code == 422, refused.text
        assert "not proved to be better" in refused.json()["detail"]
    allowed = ada.post(url, json={**by_path, "insist": True}, timeout=30)
    assert allowed.status_code == 202, allowed.text
    assert allowed.json()["insisted"] is True
    assert str(server.services.config.data) not in allowed.text


def test_insisting_publishes_it_and_proves_nothing(server, ada, body) -> None:
    proof = proof_of(ProofOutcome.NO_IMPROVEMENT, insisted=True)
    answer = searched(server, ada, body, proof, "variant")
    assert answer["result"]["unproven"] is True
    project = ada.get(f"{server.url}/project/{body['projectId']}", timeout=30).json()
    (mastered,) = [file for file in project["fileList"] if file["part"] == "MASTERED"]
    assert (mastered["id"], mastered["unproven"]) == (answer["checkpoint_id"], True)


def test_what_is_proved_has_no_mark_and_the_artifact_is_its_json(server, ada, body) -> None:
    submitted = threading.Event()
    server.runner.on_submit = lambda job: submitted.set()
    request = ada.post(f"{server.url}/v1/searches", json=body, timeout=30).json()["requestId"]
    assert submitted.wait(30)
    address = f"{server.url}/project/{body['projectId']}/analysis/result/artifact"
    early = ada.get(address, params={"requestId": request, "mode": "STREAM"}, timeout=30)
    assert early.status_code == 404
    path = f"{body['projectId']}/results/{request}.tar"
    pointer = {"projectId": body["projectId"], "filePath": path}
    url = f"{server.url}/project/file/external"
    assert ada.post(url, json=pointer, timeout=30).status_code == 404
    search_writes(server, server.runner.submitted[-1], make_proof(), "variant")
    deadline = time.monotonic() + 30
    while (
        late := ada.get(address, params={"requestId": request, "mode": "STREAM"}, timeout=30)
    ).status_code == 404:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert late.headers["content-type"].startswith("application/")
    assert late.json()["trained_model_error"] > 0
    assert late.json()["optimized_scaling_factors"] == list(FACTORS)
    signed = ada.get(address, params={"requestId": request}, timeout=30).json()
    assert requests.get(signed, timeout=30).json() == late.json()
    answer = ada.get(f"{server.url}/v1/searches/{request}", timeout=30).json()
    assert answer["result"]["unproven"] is False
    file = ada.post(url, json=pointer, timeout=30).json()["fileList"][-1]
    assert (file["unproven"], file["part"]) == (False, "ITERATION")


def test_searches_are_listed_for_those_who_may_see_them(server, ada, body) -> None:
    server.runner.on_submit = lambda job: None
    url = f"{server.url}/v1/searches"
    ids = [ada.post(url, json=body, timeout=30).json()["requestId"] for _ in range(2)]
    listed = ada.get(url, timeout=30).json()
    assert [search["requestId"] for search in listed] == ids[::-1]
    assert listed[0]["progress"]["maxEvaluations"] == 50
    of_project = ada.get(url, params={"projectId": body["projectId"], "limit": 1}, timeout=30)
    assert [search["requestId"] for search in of_project.json()] == ids[1:]
    stranger = server.as_user("eve")
    assert stranger.get(url, timeout=30).json() == []
    theirs = stranger.get(url, params={"projectId": body["projectId"]}, timeout=30)
    assert theirs.status_code == 404
    chief = server.as_user("chief", admin=True)
    assert len(chief.get(url, timeout=30).json()) == 2
    assert ada.get(url, params={"limit": 0}, timeout=30).status_code == 422


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("ChainError: checkpoints do not fit", 422),
        ("ScoringError: no finite number", 422),
        ("CapabilityError: a stimulus does not fit", 422),
        ("EngineError: vLLM does not start", 500),
        ("StorageError: the disk is full", 500),
        ("KeyError: 'x'", 500),
    ],
)
def test_whose_fault_a_failed_search_was(server, ada, body, reason, status) -> None:
    def fail(job: SearchJob) -> None:
        run = job.config.parent / "run"
        run.mkdir()
        folder = server.services.store.cache
        (run / "error.txt").write_text(f"{reason} in {folder}/x. Raise the memory.")
        server.runner.states[job.id] = JobState.FAILED

    server.runner.on_submit = fail
    answer = ada.post(f"{server.url}/dynamic_analysis/zto/batch", json=body, timeout=60)
    assert answer.status_code == status, answer.text
    request = server.services.ledger.requests.of_project(body["projectId"])[-1].id
    assert request in answer.json()["detail"]
    assert str(server.services.config.data) not in answer.text
    assert ("memory" in answer.text) == (status == 422)
    if status == 500:
        assert answer.headers["X-Ztom-Request-Id"] == request


def test_a_search_and_a_deployment_make_room(server, ada, body) -> None:
    server.runner.on_submit = lambda job: None
    ada.post(f"{server.url}/v1/searches", json=body, timeout=30)
    deadline = time.monotonic() + 30
    while not (server.runner.submitted and server.runner.rooms):
        assert time.monotonic() < deadline
        time.sleep(0.01)
