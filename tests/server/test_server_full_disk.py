"""A server whose disk is full, for real: a sentence, try again, and nothing half done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import faults
import pytest
import requests
from server_helpers import Server, serving, tar_of
from toys import make_plain_chain

from serve_apps.control_plane.config import ServerConfig
from ztom.ledger import Ledger


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with faults.small_disk(tmp_path / "disk", mib=4) as disk:
        config = ServerConfig(
            data=disk / "data", pointer_roots=(str(tmp_path / "roots"),), poll_s=0.05
        )
        with serving(config) as server:
            yield server


def refusal(answer: requests.Response, tmp_path: Path) -> str:
    """The sentence of a refusal that may be tried again."""
    assert answer.status_code == 503, answer.text
    assert answer.headers["Retry-After"] == "2"
    assert str(tmp_path) not in answer.text, "no path of the server"
    detail: str = answer.json()["detail"]
    return detail


@pytest.mark.abuse(59, 104)
def test_nothing_is_half_done_and_all_goes_on(server: Server, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    ada = server.as_user("ada")
    project = server.project(ada)
    checkpoint = tar_of(make_plain_chain(tmp_path / "roots" / "chain", members=1)[0])
    rows = server.services.ledger.audit.length()
    store = server.services.store
    faults.fill(disk, leaving=32 * 1024)

    big = checkpoint + bytes(-len(checkpoint) % 512) + bytes(2**20)
    detail = refusal(server.upload(ada, project, big), tmp_path)
    assert "disk is full" in detail
    assert list(store.staging.iterdir()) == []
    assert list(store.checkpoints.iterdir()) == []
    assert server.services.ledger.projects.get(project).files == ()

    filler = faults.fill(disk)
    answers = [ada.post(f"{server.url}/project", json={"name": f"p{n}"}) for n in range(300)]
    refused = [answer for answer in answers if answer.status_code != 201]
    assert refused, "what the ledger had in reserve is used up"
    assert all("full" in refusal(answer, tmp_path) for answer in refused)
    made = {answer.json()["id"] for answer in answers if answer.status_code == 201}
    listed = {item["id"] for item in ada.get(f"{server.url}/project").json()}
    assert listed == made | {project}, "what was refused is not there, and what was not is"
    assert requests.get(f"{server.url}/health", timeout=10).status_code == 200

    filler.unlink()
    assert ada.post(f"{server.url}/project", json={"name": "after"}).status_code == 201
    assert server.upload(ada, project, checkpoint).status_code == 201
    assert server.services.ledger.audit.check() >= rows + len(made) + 2
    with Ledger.read(disk / "data" / "ledger.db") as ledger:
        ledger.audit.check()


def test_a_search_that_cannot_be_written_is_not_on_record(server: Server, tmp_path: Path) -> None:
    disk, roots = tmp_path / "disk", tmp_path / "roots"
    ada = server.as_user("ada")
    project = server.project(ada)
    for path in make_plain_chain(roots / "chain", members=2):
        assert server.upload(ada, project, tar_of(path)).status_code == 201
    lines = "".join(f'{{"prompt": "{n}", "expected": "{"e" * 9000}"}}\n' for n in range(60))
    (roots / "s.jsonl").write_text(lines)
    body = {
        "projectId": project,
        "scalingFactorLimit": 0.3,
        "stimulusPaths": [str(roots / "s.jsonl")],
        "error": "rouge_l",
        "maxEvaluations": 3,
    }
    filler = faults.fill(disk, leaving=256 * 1024)
    answer = ada.post(f"{server.url}/v1/searches", json=body, timeout=60)
    refusal(answer, tmp_path)
    assert server.services.ledger.requests.open() == ()
    assert list(server.services.store.requests.iterdir()) == []
    assert server.runner.submitted == []
    filler.unlink()
    assert ada.post(f"{server.url}/v1/searches", json=body, timeout=60).status_code == 202
    assert len(server.services.ledger.requests.open()) == 1


def test_a_result_that_cannot_be_kept_is_a_sentence(server: Server, tmp_path: Path) -> None:
    """The ledger has reserve in its log; the file of the result has none."""
    ada = server.as_user("ada")
    project = server.project(ada)
    for path in make_plain_chain(tmp_path / "roots" / "chain", members=2):
        sent = server.upload(ada, project, tar_of(path))
    file = sent.json()["fileList"][-1]["id"]
    body = {"projectId": project, "fileId": file}
    whole = ada.post(f"{server.url}/static_analysis", json=body, timeout=60)
    assert whole.status_code == 200, whole.text
    outcomes = []
    for leaving in range(0, 160 * 1024, 8 * 1024):
        filler = faults.fill(tmp_path / "disk", leaving=leaving)
        answer = ada.post(f"{server.url}/static_analysis", json=body, timeout=60)
        outcomes.append(answer.status_code)
        if answer.status_code != 200:
            refusal(answer, tmp_path)
        filler.unlink()
    assert {200, 503} == set(outcomes), outcomes
    left = [path.name for path in server.services.store.requests.rglob("*.tmp")]
    assert left == []
