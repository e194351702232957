"""What existing scripts rely on: scores, members, results, paths and requests, over the wire."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import torch
from safetensors.torch import load_file, save_file
from server_helpers import PASSWORD, Server, serving, tar_of
from toys import make_adapter_chain, make_plain_chain

from serve_apps.control_plane.config import ServerConfig


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records")


@pytest.fixture(scope="module")
def roots(home: Path) -> Path:
    (home / "roots").mkdir()
    return home / "roots"


@pytest.fixture(scope="module")
def server(home: Path, roots: Path) -> Iterator[Server]:
    config = ServerConfig(data=home / "data", pointer_roots=(str(roots),), poll_s=0.05)
    with serving(config) as server:
        yield server


@pytest.fixture(scope="module")
def ada(server: Server) -> requests.Session:
    return server.as_user("ada")


@pytest.fixture(scope="module")
def chain(home: Path) -> list[Path]:
    return make_plain_chain(home / "chain")


@pytest.fixture(scope="module")
def project(server: Server, ada: requests.Session, chain: list[Path]) -> dict[str, Any]:
    project = server.project(ada, "records")
    for path in chain:
        server.upload(ada, project, tar_of(path), fileName=path.name)
    return server.scored(ada, project)


def test_static_analysis_is_signed_and_has_a_request(server, ada, project, chain) -> None:
    files = project["fileList"]
    name = "model.layers.0.mlp.up_proj.weight"
    body = {"projectId": project["id"], "fileId": files[2]["id"], "weightNames": name}
    answer = ada.post(f"{server.url}/static_analysis", json=body, timeout=60).json()
    assert list(answer["result"]["absolute_weight_difference"]) == [name]
    histogram = answer["result"]["parameter_histograms"][name]
    assert len(histogram["bin_edges"]) == len(histogram["bin_counts"]) + 1
    address = f"{server.url}/project/{project['id']}/analysis/result"
    (stored,) = ada.get(address, params={"requestId": answer["requestId"]}, timeout=30).json()
    assert (stored["kind"], stored["status"]) == ("static_analysis", "finished")
    whole = ada.get(
        f"{address}/artifact",
        params={"requestId": answer["requestId"], "mode": "STREAM"},
        timeout=30,
    ).json()
    assert whole == answer["result"]
    unknown = ada.post(
        f"{server.url}/static_analysis", json={**body, "weightNames": ["no.such"]}, timeout=60
    )
    assert unknown.status_code == 422


def test_biases_one_by_one_and_the_golden_scores(server, ada, home) -> None:
    """Three layers of sizes 4:1:1:1 with these mean absolute changes, half of them downwards."""
    scores = ((0.515, 0.498, 0.527, 0.506), (0.494, 0.494, 0.559, 0.585))
    scores += ((0.520, 0.513, 0.533, 0.522),)
    old, new = {}, {}
    for layer, row in enumerate(scores):
        for part, (size, score) in enumerate(zip((4, 1, 1, 1), row, strict=True)):
            name = f"model.layers.{layer}.part{part}.weight"
            old[name] = torch.zeros(size * 2, 4)
            step = torch.full((size * 2, 4), score * 1e-3)
            step[::2] *= -1
            new[name] = step
    old["model.norm.bias"] = torch.zeros(3)
    new["model.norm.bias"] = torch.tensor([0.5, -0.25, 0.0])
    for path, state in zip(
        make_plain_chain(home / "golden", states=[old, new]), (old, new), strict=True
    ):
        save_file(state, path / "model.safetensors", metadata={"format": "pt"})
    project = server.project(ada, "golden")
    for path in sorted((home / "golden").iterdir()):
        server.upload(ada, project, tar_of(path), fileName=path.name)
    files = server.scored(ada, project)["fileList"]
    body = {"projectId": project, "fileId": files[1]["id"], "comparisonType": "CHOSEN"}
    answer = ada.post(f"{server.url}/static_analysis", json=body, timeout=60).json()["result"]
    assert answer["weight_summary_score"] == pytest.approx(0.51681e-3, rel=1e-4)
    assert answer["absolute_bias_difference"] == {"model.norm.bias": [0.5, -0.25, 0.0]}
    assert answer["bias_summary_score"] == pytest.approx(0.25)
    rows = answer["absolute_weight_difference"]["model.layers.0.part0.weight"]
    assert rows == pytest.approx([-0.515e-3, 0.515e-3] * 4)
    assert answer["parameter_scores"]["model.layers.2.part3.weight"] == pytest.approx(0.522e-3)
    assert files[1]["totalWeightContribution"] == pytest.approx(0.51681e-3, rel=1e-4)
    assert files[1]["totalBiasContribution"] == pytest.approx(0.25)


def test_contributions_are_null_for_the_first_file_only(project) -> None:
    first, *rest = project["fileList"]
    assert (first["totalWeightContribution"], first["totalBiasContribution"]) == (None, None)
    assert all(file["totalWeightContribution"] > 0 for file in rest)
    assert [file["totalBiasContribution"] for file in rest] == [0.0, 0.0]


def test_a_file_that_cannot_be_used_keeps_nobody_waiting(server, ada, home) -> None:
    paths = make_plain_chain(home / "damaged")
    state = load_file(paths[1] / "model.safetensors")
    state["model.norm.weight"][0] = torch.nan
    save_file(state, paths[1] / "model.safetensors", metadata={"format": "pt"})
    project = server.project(ada, "damaged")
    for path in paths:
        server.upload(ada, project, tar_of(path), fileName=path.name)
    first, damaged, last = server.scored(ada, project)["fileList"]
    assert [file["status"] for file in (first, damaged, last)] == ["VALID", "INVALID", "VALID"]
    both = ("totalWeightContribution", "totalBiasContribution")
    assert [first[key] for key in both] == [None, None]
    assert [damaged[key] for key in both] == [0.0, 0.0]
    assert "model.norm.weight holds values that are NaN" in damaged["message"]
    # the last one before it that can be used: the same once the damaged one is taken out
    left = {"projectId": project, "fileId": damaged["id"]}
    ada.delete(f"{server.url}/project/file", json=left, timeout=30)
    body = {"projectId": project, "fileId": last["id"]}
    answer = ada.post(f"{server.url}/static_analysis", json=body, timeout=60).json()
    assert last[both[0]] == pytest.approx(answer["result"]["weight_summary_score"], rel=1e-6)


def test_metadata_names_layers_weights_and_biases(server, ada, project, chain) -> None:
    address = f"{server.url}/project/{project['id']}/metadata"
    metadata = ada.get(address, timeout=30).json()
    names = load_file(chain[-1] / "model.safetensors")
    assert set(metadata["weightNames"]) == set(names)
    assert metadata["biasNames"] == []
    assert "model.layers.0.mlp.up_proj" in metadata["layerNames"]
    assert (metadata["checkpoints"], metadata["transitions"]) == (3, 2)
    empty = server.project(ada, "empty")
    assert ada.get(f"{server.url}/project/{empty}/metadata", timeout=30).content == b""


def test_adapters_bring_their_base_model(server, ada, home, roots) -> None:
    (base, *adapters), _ = make_adapter_chain(home / "adapters")
    (roots / "org").mkdir()
    base.rename(roots / "org" / "tiny")
    project = server.project(ada, "adapters")
    for path in adapters:
        config = json.loads((path / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = "org/tiny"
        (path / "adapter_config.json").write_text(json.dumps(config))
        server.upload(ada, project, tar_of(path), fileName=path.name)
    files = server.scored(ada, project)["fileList"]
    assert [file["status"] for file in files] == ["VALID"] * 3, files
    assert all(file["totalWeightContribution"] > 0 for file in files)
    metadata = ada.get(f"{server.url}/project/{project}/metadata", timeout=30).json()
    assert (metadata["checkpoints"], metadata["transitions"]) == (4, 3)
    assert "model.layers.1.mlp.up_proj.lora_A.default" in metadata["layerNames"]
    body = {"projectId": project, "fileIds": [files[0]["id"]], "scalingFactors": [0.5]}
    tuned = ada.post(f"{server.url}/metatune", json=body, timeout=60)
    assert tuned.status_code == 200, tuned.text


def test_adapters_whose_base_is_nowhere_say_so(server, ada, home) -> None:
    (_, *adapters), _ = make_adapter_chain(home / "lost")
    project = server.project(ada, "lost")
    for path in adapters:
        config = json.loads((path / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = "../../org/nowhere"
        (path / "adapter_config.json").write_text(json.dumps(config))
        files = server.upload(ada, project, tar_of(path), fileName=path.name).json()["fileList"]
    body = {"projectId": project, "fileId": files[0]["id"]}
    answer = ada.post(f"{server.url}/static_analysis", json=body, timeout=60)
    assert answer.status_code == 422
    assert "the base model that the adapter names is not to be had" in answer.json()["detail"]


def test_members_and_users_answer_with_one_object(server, ada, project) -> None:
    server.as_user("bob")
    address = f"{server.url}/project/{project['id']}/user"
    new = {"emailAddress": "bob@example.org", "permissions": ["READ"]}
    added = ada.post(address, json=new, timeout=30).json()
    assert (added["username"], added["permissions"]) == ("bob", ["READ"])
    patch = {"permissions": ["READ", "WRITE"]}
    changed = ada.patch(f"{address}/{added['id']}", json=patch, timeout=30).json()
    assert changed["role"] == "EDITOR"
    eve = server.as_user("eve")
    me = eve.patch(f"{server.url}/api/auth/user", json={"username": "Eve2"}, timeout=30)
    assert (me.status_code, me.json()["username"]) == (200, "eve2")
    credentials = {"username": "eve2", "password": PASSWORD}
    assert requests.post(f"{server.url}/api/auth/login", json=credentials, timeout=30).ok
    taken = eve.patch(f"{server.url}/api/auth/user", json={"username": "ada"}, timeout=30)
    assert taken.status_code == 409


def test_unknown_keywords_of_projects_are_tolerated(server, ada) -> None:
    body = {"name": "loose", "colour": "blue"}
    made = ada.post(f"{server.url}/project", json=body, timeout=30)
    assert made.status_code == 201
    assert made.json()["warnings"] == ["'colour' is not known and was ignored"]
    patch = {"projectId": made.json()["id"], "description": "d", "size": 3}
    changed = ada.patch(f"{server.url}/project", json=patch, timeout=30).json()
    assert (changed["description"], len(changed["warnings"])) == ("d", 1)


def test_a_base_model_is_deleted_by_its_file_id(server, ada, chain) -> None:
    project = server.project(ada, "based")
    document = ada.post(
        f"{server.url}/project/base-model",
        data={"projectId": project, "format": "HF_TEXT_GENERATION"},
        files={"file": ("b.tar", tar_of(chain[-1]))},
        timeout=60,
    ).json()
    url = f"{server.url}/project/base-model"
    other = ada.delete(url, json={"projectId": project, "fileId": "0" * 32}, timeout=30)
    assert other.status_code == 404
    body = {"projectId": project, "fileId": document["baseModel"]["id"], "hardDelete": True}
    assert ada.delete(url, json=body, timeout=30).json()["baseModel"] is None


def test_results_are_oldest_first_and_one_is_a_list(server, ada, project) -> None:
    address = f"{server.url}/project/{project['id']}/analysis/result"
    body = {"projectId": project["id"], "fileId": project["fileList"][1]["id"]}
    ids = [
        ada.post(f"{server.url}/static_analysis", json=body, timeout=60).json()["requestId"]
        for _ in range(2)
    ]
    everything = ada.get(address, timeout=30).json()
    assert [request["requestId"] for request in everything][-2:] == ids
    (one,) = ada.get(address, params={"requestId": ids[0]}, timeout=30).json()
    assert one["requestId"] == ids[0]


def test_an_artifact_is_an_address_or_the_bytes(server, ada, project) -> None:
    body = {"projectId": project["id"], "fileId": project["fileList"][1]["id"]}
    request = ada.post(f"{server.url}/static_analysis", json=body, timeout=60).json()["requestId"]
    address = f"{server.url}/project/{project['id']}/analysis/result/artifact"
    whole = ada.get(address, params={"requestId": request, "mode": "STREAM"}, timeout=30)
    for mode in ({}, {"mode": "SIGNED"}, {"mode": "URL"}):
        signed = ada.get(address, params={"requestId": request, **mode}, timeout=30)
        assert signed.headers["content-type"] == "application/json"
        assert requests.get(signed.json(), timeout=30).content == whole.content
    odd = ada.get(address, params={"requestId": request, "mode": "FAX"}, timeout=30)
    assert odd.status_code == 422


def test_the_same_routes_below_api_v2(server, ada, project) -> None:
    for prefix in ("/api/v2", "/api/v2/api"):
        credentials = {"username": "ada", "password": PASSWORD}
        token = requests.post(f"{server.url}{prefix}/auth/login", json=credentials, timeout=30).text
        headers = {"Authorization": f"Bearer {token}"}
        listed = requests.get(f"{server.url}/api/v2/project", headers=headers, timeout=30).json()
        assert project["id"] in [entry["id"] for entry in listed]
    assert requests.get(f"{server.url}/api/v2/health", timeout=30).status_code == 200
    assert requests.get(f"{server.url}/api/v2/project", timeout=30).status_code == 401
    assert ada.get(f"{server.url}/api/v2/nothing", timeout=30).status_code == 404


STEP = {"fileId": "FILE", "layerNames": "model.norm, lm_head"}
BATCH = {**STEP, "stimulusPaths": ["/a.json"], "batchSize": 2, "inferenceConfigJson": "{}"}
EXPERTS = {"analysisType": "ROUTER", "numExperts": "2"}
TOLD = {"comparisonType": "LATEST"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("comparative", {"fileId": "FILE"}),
        ("comparative/batch", {**BATCH, "layerNames": ["model.norm"]}),
        ("contribution", {**STEP, **TOLD}),
        ("contribution/batch", {**BATCH, **TOLD, "unchangedActivationThreshold": "0.0"}),
        ("correlation/batch", BATCH),
        ("moe", {**STEP, **EXPERTS}),
        ("moe/batch", {**BATCH, **EXPERTS}),
    ],
)
def test_analyses_that_come_later_read_their_requests(server, ada, project, path, body) -> None:
    file = project["fileList"][1]["id"]
    body = json.loads(json.dumps(body).replace("FILE", file))
    body["projectId"] = project["id"]
    url = f"{server.url}/dynamic_analysis/{path}"

    def send(content: dict[str, Any]) -> requests.Response:
        if path.endswith("/batch"):
            return ada.post(url, json=content, timeout=30)
        return ada.post(url, data=content, files={"file": ("a.json", b"[]")}, timeout=30)

    answer = send(body)
    assert answer.status_code == 501, answer.text
    assert "not supported yet" in answer.json()["detail"]
    assert send({**body, "fileId": "nobody"}).status_code == 422
    assert send({**body, "projectId": "0" * 32}).status_code == 404
    if path.startswith("moe"):
        assert send({**body, "analysisType": "GATE"}).status_code == 422
        body.pop("layerNames")
        assert send(body).status_code == 422


def test_pointers_take_paths_of_the_server(server, ada, project) -> None:
    file = project["fileList"][0]
    other = server.project(ada, "pointing")
    body = {"projectId": other, "filePath": file["filePath"], "format": "HF_TEXT_GENERATION"}
    answer = ada.post(f"{server.url}/project/file/external", json=body, timeout=30)
    assert answer.status_code == 201, answer.text
    (copy,) = answer.json()["fileList"]
    assert (copy["storage"], copy["fileName"]) == ("MANAGED", file["fileName"])
    content = [
        ada.get(
            f"{server.url}/project/file/{entry['id']}", params={"projectId": owner}, timeout=30
        ).content
        for entry, owner in ((file, project["id"]), (copy, other))
    ]
    assert content[0] == content[1]
    ada.delete(
        f"{server.url}/project/file",
        json={"projectId": other, "fileId": copy["id"], "hardDelete": True},
        timeout=30,
    )
    again = ada.get(
        f"{server.url}/project/file/{file['id']}",
        params={"projectId": project["id"]},
        timeout=30,
    )
    assert again.content == content[0]
