"""What members of a chain may differ in, said over HTTP and in a search's file on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from saved_models import edit_config, edit_json
from server_helpers import Server, serving, tar_of
from toys import make_chain

from serve_apps.control_plane.config import ServerConfig
from serve_apps.control_plane.searches import advance
from ztom.cli.actions.remote_search import search_options
from ztom.engines.config import EngineConfig
from ztom.search.config_files import load_config

CONFIG = {"allowConfigDifferences": ["rms_norm_eps"]}
SHORT = json.dumps({"max_new_tokens": 3})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("differences")
    engine = EngineConfig(name="torch", dtype="float32")
    with serving(ServerConfig(data=home / "data", poll_s=0.05, engine=engine)) as server:
        yield server


@pytest.fixture(scope="module")
def ada(server: Server) -> requests.Session:
    return server.as_user("ada")


@pytest.fixture(scope="module")
def project(
    server: Server, ada: requests.Session, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """A chain whose latest has another epsilon than the first."""
    paths = make_chain(tmp_path_factory.mktemp("chain"), members=2)
    edit_config(paths[1], rms_norm_eps=1e-5)
    project = server.project(ada, "differences")
    for path in paths:
        server.upload(ada, project, tar_of(path), fileName=path.name)
    return server.scored(ada, project)


def test_a_file_that_differs_is_valid_and_says_what_it_takes(project) -> None:
    first, second = project["fileList"]
    assert (first["status"], first["message"]) == ("VALID", None)
    assert second["status"] == "VALID"
    assert "rms_norm_eps (1e-06 / 1e-05)" in second["message"]
    assert second["totalWeightContribution"] > 0


def test_work_on_the_chain_goes_on_where_the_request_allows_it(server, ada, project) -> None:
    file = project["fileList"][1]["id"]
    common = {"projectId": project["id"]}
    for path, body in (
        ("static_analysis", {"fileId": file}),
        ("metatune", {"fileIds": [file], "scalingFactors": [0.5]}),
        ("edit", {"fileIds": [file]}),
    ):
        url = f"{server.url}/{path}"
        refused = ada.post(url, json={**common, **body}, timeout=60)
        assert refused.status_code == 422, (path, refused.text)
        assert "rms_norm_eps" in refused.json()["detail"]
        assert "allowConfigDifferences" in refused.json()["detail"]
        other = {"allowConfigDifferences": "hidden_act", "allowTokenizerDifferences": True}
        wrong = ada.post(url, json={**common, **body, **other}, timeout=60)
        assert (wrong.status_code, "rms_norm_eps" in wrong.json()["detail"]) == (422, True)
        answer = ada.post(url, json={**common, **body, **CONFIG}, timeout=60)
        assert answer.status_code == 200, (path, answer.text)


def test_engines_hold_the_chain_where_the_request_allows_it(server, ada, project) -> None:
    file = project["fileList"][1]
    form = {"projectId": project["id"], "fileId": file["id"], "scalingFactor": "0.5"}
    form |= {"inferenceConfigJson": SHORT}
    url = f"{server.url}/dynamic_analysis/sensitivity"
    stimulus = {"file": ("prompt.json", json.dumps([{"role": "user", "content": "open"}]))}
    refused = ada.post(url, data=form, files=stimulus, timeout=60)
    assert (refused.status_code, "rms_norm_eps" in refused.text) == (422, True)
    form["allowConfigDifferences"] = "rms_norm_eps, hidden_act"  # lists are comma-joined in forms
    answer = ada.post(url, data=form, files=stimulus, timeout=60)
    assert answer.status_code == 200, answer.text
    # a file that is asked alone does not need the chain
    body = {"modelPath": file["filePath"], "inferenceConfigJson": SHORT}
    url = f"{server.url}/dynamic_analysis/inference"
    alone = ada.post(url, data=body, files=stimulus, timeout=60)
    assert alone.status_code == 200, alone.text
    within = ada.post(url, data={**body, "allowConfigDifferences": "rms_norm_eps"}, files=stimulus)
    assert within.json()["model_output"] == alone.json()["model_output"]
    assert answer.json()["model_output"] == alone.json()["model_output"]


def test_a_search_over_http_says_it_in_its_file(server, ada, project) -> None:
    data = b"".join(b'{"prompt": "%d", "expected": "1"}\n' % number for number in range(40))
    stored = ada.post(
        f"{server.url}/v1/data",
        data={"projectId": project["id"]},
        files={"file": ("a.jsonl", data)},
        timeout=30,
    ).json()["reference"]
    body = {"projectId": project["id"], "scalingFactorLimit": 0.3, "stimulusPaths": [stored]}
    url = f"{server.url}/v1/searches"
    refused = ada.post(url, json=body, timeout=30)
    assert (refused.status_code, "rms_norm_eps" in refused.json()["detail"]) == (422, True)
    allowed = {**CONFIG, "allowTokenizerDifferences": True}
    answer = ada.post(url, json={**body, **allowed}, timeout=30)
    assert answer.status_code == 202, answer.text
    advance(server.services)
    chain = load_config(server.runner.submitted[-1].config).chain
    assert chain.allow_config_differences == ("rms_norm_eps",)
    assert chain.allow_tokenizer_differences is True


def test_a_search_from_a_file_here_takes_what_the_chain_says(tmp_path: Path) -> None:
    allowed = {"allow_config_differences": ["rms_norm_eps"], "allow_tokenizer_differences": True}
    edit_json(tmp_path / "chain.yaml", {"checkpoints": ["a", "b"], **allowed})  # JSON is YAML
    for chain in ("chain.yaml", {"checkpoints": ["a", "b"], **allowed}):
        options = search_options({"stimuli": "gs://b/s.jsonl", "chain": chain}, tmp_path)
        assert options["allowConfigDifferences"] == ["rms_norm_eps"]
        assert options["allowTokenizerDifferences"] is True
    for chain in ("elsewhere.yaml", {"checkpoints": ["a", "b"]}):
        options = search_options({"stimuli": "gs://b/s.jsonl", "chain": chain}, tmp_path)
        assert not options.keys() & {"allowConfigDifferences", "allowTokenizerDifferences"}
