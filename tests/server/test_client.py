"""The typed client, and the callback, against a running server."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from search_helpers import bowl
from search_results import make_result
from server_helpers import PASSWORD, Server, serving
from toys import make_plain_chain, reference_blend

from cluster.jobs import JobState
from serve_apps.control_plane.config import ServerConfig
from serve_apps.control_plane.runner import SearchJob
from ztom.checkpoints.checkpoint import open_checkpoint
from ztom.client import Client, RegisterCheckpoints, Trial
from ztom.errors import ConfigError, ServerError
from ztom.ledger import Ledger, NewStudy, StudyStatus, TrialKind, TrialOutcome
from ztom.settings import Settings
from ztom.wire.searches import SearchStatus


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "roots").mkdir()
    config = ServerConfig(
        data=tmp_path / "data", pointer_roots=(str(tmp_path / "roots"),), poll_s=0.02
    )
    with serving(config) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    server.as_user("ada")
    with Client.login(server.url, "ada", PASSWORD) as client:
        yield client


@pytest.fixture
def chain(tmp_path: Path) -> list[Path]:
    return make_plain_chain(tmp_path / "roots" / "chain")


def test_a_project_from_folders_and_back(client: Client, chain, tmp_path) -> None:
    assert client.who_am_i().username == "ada"
    project = client.create_project("support", "for tests")
    client.add_checkpoint(project.id, chain[0], base=True, tag="base")
    (chain[1] / "optimizer.pt").write_bytes(b"not for the server")
    client.add_checkpoint(project.id, chain[1])
    filled = client.point_to(project.id, str(chain[2]), name="third")
    assert filled.base_model is not None
    assert [file.file_name for file in filled.files] == ["01", "third"]
    assert [p.id for p in client.projects()] == [project.id]
    folder = client.download(project.id, filled.files[0].id, tmp_path / "back")
    assert open_checkpoint(str(folder), settings=Settings()).digest == (
        open_checkpoint(str(chain[1]), settings=Settings()).digest
    )
    assert not (folder / "optimizer.pt").exists()
    tuned = client.metatune(project.id, {filled.files[1].id: 0.5}, tmp_path / "tuned.tar")
    found = open_checkpoint(str(tuned), settings=Settings())
    for name, expected in reference_blend(chain, [0.0, 0.5]).items():
        torch.testing.assert_close(found.read(name).double(), expected, rtol=1e-5, atol=1e-6)
    left = client.remove_training(project.id, [filled.files[1].id], tmp_path / "left.tar")
    before = load_file(chain[1] / "model.safetensors")
    assert torch.equal(
        open_checkpoint(str(left), settings=Settings()).read("model.norm.weight"),
        before["model.norm.weight"],
    )
    assert len(client.results(project.id)) == 2
    client.delete_project(project.id, hard=True)
    assert client.projects() == []


def finished_search(config: Path, address: str) -> None:
    """Writes what a search writes into the ledger."""
    with Ledger.open(address) as ledger:
        name = config.parent.name
        study = ledger.studies.create(NewStudy(name, {}, "c", "h", {}, 0)).id
        for number in range(3):
            factors = (0.01 * number, 0.0)
            ledger.studies.ask(study, number=number, kind=TrialKind.SEARCH, factors=factors)
            ledger.studies.tell(study, number, TrialOutcome(error=bowl(factors)))
        ledger.studies.set_status(study, StudyStatus.FINISHED)
        result = make_result(
            study_id=study,
            factors=2,
            trained_model_error=1.0,
            optimized_model_error=0.5,
            optimized_scaling_factors=(0.02, 0.0),
            number_of_inferences=3,
        )
        ledger.studies.save_result(study, result.model_dump(mode="json"))


def write_traffic(folder: Path) -> Path:
    """Enough stimuli to be split into those of the search and those of the proof."""
    path = folder / "traffic.jsonl"
    lines = [{"prompt": word, "expected": "b"} for word in ("one", "two", "three", "four", "five")]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_search_with_its_trials(server: Server, client: Client, chain, tmp_path) -> None:
    runner = server.runner

    def run(job: SearchJob) -> None:
        finished_search(job.config, server.services.config.ledger_address)
        runner.states[job.id] = JobState.SUCCEEDED

    runner.on_submit = run
    project = client.create_project("p")
    for path in chain:
        client.add_checkpoint(project.id, path)
    stimuli = write_traffic(tmp_path)
    trials: list[Trial] = []
    answer = client.search(
        project.id, stimuli=stimuli, limit=0.1, on_trial=trials.append, maxEvaluations=3
    )
    assert [trial.number for trial in trials] == [0, 1, 2]
    assert answer.optimized_scaling_factors == (0.02, 0.0)
    assert answer.verdict is None
    copied = runner.submitted[0].config.parent / "stimuli.jsonl"
    assert copied.read_text() == stimuli.read_text()
    with pytest.raises(ServerError, match="no such data set"):
        client.start_search(project.id, stimuli=f"data:{'0' * 64}.jsonl", limit=0.1)
    with pytest.raises(ServerError, match="allowed roots"):
        client.start_search(project.id, stimuli="file:///etc/passwd", limit=0.1)


def test_a_search_that_fails_says_why(server: Server, client: Client, chain, tmp_path) -> None:
    runner = server.runner

    def run(job: SearchJob) -> None:
        folder = job.config.parent / "run"
        folder.mkdir()
        (folder / "error.txt").write_text("StimuliError: line 3 is blank")
        runner.states[job.id] = JobState.FAILED

    runner.on_submit = run
    project = client.create_project("p")
    for path in chain:
        client.add_checkpoint(project.id, path)
    stimuli = write_traffic(tmp_path)
    with pytest.raises(ServerError, match="line 3 is blank"):
        client.search(project.id, stimuli=stimuli, limit=0.1)


def test_refusals_and_absence_are_said(server: Server, client: Client) -> None:
    with pytest.raises(ServerError, match=r"status 404.*no such project"):
        client.project("0" * 32)
    with pytest.raises(ServerError, match="status 401"):
        Client.login(server.url, "ada", "not the password")
    with pytest.raises(ServerError, match="cannot be reached"):
        Client("http://127.0.0.1:9", key="k").projects()
    with pytest.raises(ConfigError, match="no server"):
        Client()


def test_a_refusal_has_its_status(server: Server, client: Client) -> None:
    with pytest.raises(ServerError) as missing:
        client.project("0" * 32)
    assert missing.value.status == 404
    assert pickle.loads(pickle.dumps(missing.value)).status == 404
    with pytest.raises(ServerError) as away:
        Client("http://127.0.0.1:9", key="k").projects()
    assert away.value.status is None


@pytest.mark.parametrize(
    "body", [b"<html>", b"", b'{"name": "p"}', b"[1]", b'[{"id": 1}]'], ids=str
)
def test_an_answer_of_another_server_is_an_error(body: bytes) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as other:
        thread = threading.Thread(target=other.serve_forever, daemon=True)
        thread.start()
        with Client(f"http://127.0.0.1:{other.server_port}", key="k") as client:
            for call in (client.projects, lambda: client.project("0" * 32)):
                with pytest.raises(ServerError, match="not one that this client knows"):
                    call()
        other.shutdown()
        thread.join(10)


def test_what_a_newer_server_adds_is_left_aside() -> None:
    known = {
        "requestId": "1",
        "projectId": None,
        "kind": "edit",
        "status": "queued",
        "reason": None,
        "studyId": None,
        "checkpointId": None,
        "createdAt": "now",
        "endedAt": None,
        "hasArtifact": False,
        "result": None,
        "progress": {
            "trials": 0,
            "maxEvaluations": None,
            "bestError": None,
            "bestFactors": None,
        },
    }
    more = known | {"later": 1, "progress": known["progress"] | {"later": 1}}
    assert SearchStatus.parse(more) == SearchStatus.parse(known)


def test_the_client_needs_no_ray_and_no_torch() -> None:
    code = (
        "import sys, ztom.client; "
        "heavy = {'ray', 'torch', 'vllm', 'transformers', 'numpy', 'sqlalchemy'}; "
        "heavy &= set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_callback_registers_what_a_training_saves(client: Client, chain, tmp_path) -> None:
    project = client.create_project("training")
    callback = RegisterCheckpoints(client, project.id)
    args = SimpleNamespace(output_dir=str(tmp_path / "out"))
    main = SimpleNamespace(is_world_process_zero=True, global_step=10)
    chain[0].parent.rename(tmp_path / "out")
    (tmp_path / "out" / "00").rename(tmp_path / "out" / "checkpoint-10")
    (tmp_path / "out" / "01").rename(tmp_path / "out" / "checkpoint-20")
    callback.on_save(args, main, None)
    callback.on_save(args, SimpleNamespace(is_world_process_zero=False, global_step=20), None)
    assert callback.registered == ["checkpoint-10"]
    client.delete_project(project.id)
    callback.on_save(args, SimpleNamespace(is_world_process_zero=True, global_step=20), None)
    assert callback.registered == ["checkpoint-10"]  # refused, and the training goes on
    callback._project_id = client.create_project("again").id
    callback.on_train_end(args, main, None)
    assert callback.registered == ["checkpoint-10", "checkpoint-20"]
