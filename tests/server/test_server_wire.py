"""The control plane over a socket, as users' existing code speaks to it."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import torch
from safetensors.torch import load_file
from server_helpers import PASSWORD, Server, serving, tar_of
from toys import make_plain_chain, reference_blend

from serve_apps.control_plane.config import ServerConfig


@pytest.fixture
def server(tmp_path: Path, ledger_address: str) -> Iterator[Server]:
    (tmp_path / "roots").mkdir()
    config = ServerConfig(
        data=tmp_path / "data",
        ledger=ledger_address,
        pointer_roots=(str(tmp_path / "roots"),),
        poll_s=0.05,
    )
    with serving(config) as server:
        yield server


@pytest.fixture
def ada(server: Server) -> requests.Session:
    return server.as_user("ada")


@pytest.fixture
def chain(tmp_path: Path) -> list[Path]:
    return make_plain_chain(tmp_path / "roots" / "chain")


def filled(server: Server, session: requests.Session, chain: list[Path]) -> tuple[str, list[str]]:
    project = server.project(session)
    for path in chain:
        answer = server.upload(session, project, tar_of(path), fileName=path.name, tag="t")
        assert answer.status_code == 201, answer.text
    return project, [file["id"] for file in answer.json()["fileList"]]


def unpacked(content: bytes, folder: Path) -> Path:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_register_log_in_and_who_am_i(server: Server) -> None:
    account = {
        "username": "grace",
        "emailAddress": "grace@example.org",
        "password": PASSWORD,
        "firstName": "Grace",
        "lastName": "H.",
    }
    server.services.ledger.invitations.invite("grace@example.org", may_deploy=False, actor="t")
    made = requests.post(f"{server.url}/api/auth/register", json=account, timeout=30)
    assert made.status_code == 201
    session = server.as_user("grace")
    me = session.get(f"{server.url}/api/auth/user", timeout=30).json()
    assert (me["username"], me["roles"], me["enabled"]) == ("grace", ["USER"], True)
    assert session.get(f"{server.url}/api/auth/admin", timeout=30).status_code == 403
    anonymous = requests.get(f"{server.url}/api/auth/user", timeout=30)
    assert anonymous.status_code == 401
    assert set(anonymous.json()) == {"detail"}
    assert requests.get(f"{server.url}/health", timeout=30).json()["status"] == "ok"


def test_files_come_back_as_they_went_in_and_get_scores(server, ada, chain, tmp_path) -> None:
    project, ids = filled(server, ada, chain)
    document = server.scored(ada, project)
    files = document["fileList"]
    assert [file["fileName"] for file in files] == [path.name for path in chain]
    assert files[0]["totalWeightContribution"] is None
    states = [load_file(path / "model.safetensors") for path in chain]
    for before, after, file in zip(states, states[1:], files[1:], strict=False):
        change = torch.cat([(after[n] - before[n]).abs().flatten().double() for n in after])
        assert file["totalWeightContribution"] == pytest.approx(float(change.mean()), rel=1e-6)
        assert file["totalBiasContribution"] == 0.0
    url = f"{server.url}/project/file"
    one = ada.get(f"{url}/{ids[1]}", params={"projectId": project}, timeout=30)
    assert one.content == tar_of(chain[1])
    assert one.headers["content-type"] == "application/octet-stream"
    everything = ada.get(url, params={"projectId": project}, timeout=30)
    with zipfile.ZipFile(io.BytesIO(everything.content)) as archive:
        assert archive.testzip() is None
        assert archive.read(archive.namelist()[2]) == tar_of(chain[2])
    gone = ada.delete(url, json={"projectId": project, "fileId": ids[0]}, timeout=30)
    assert [file["id"] for file in gone.json()["fileList"]] == ids[1:]


@pytest.mark.abuse(10)
def test_the_same_upload_twice_is_one_file(server, ada, chain) -> None:
    project, ids = filled(server, ada, chain)
    again = server.upload(ada, project, tar_of(chain[0]))
    assert [file["id"] for file in again.json()["fileList"]] == ids
    assert len(list(server.services.store.checkpoints.iterdir())) == len(chain)
    assert list(server.services.store.staging.iterdir()) == []


def test_metatune_and_edit_give_the_blend_and_leave_a_row(server, ada, chain, tmp_path) -> None:
    project, ids = filled(server, ada, chain)
    body = {"projectId": project, "fileIds": ids[1:], "scalingFactors": [0.5, -0.25], "odd": 1}
    answer = ada.post(f"{server.url}/metatune", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    assert "odd" in answer.headers["X-Ztom-Warnings"]
    folder = unpacked(answer.content, tmp_path / "tuned")
    found = load_file(folder / "model.safetensors")
    for name, expected in reference_blend(chain, [0.5, -0.25]).items():
        torch.testing.assert_close(found[name].double(), expected, rtol=1e-5, atol=1e-6)
    removed = ada.post(
        f"{server.url}/edit", json={"projectId": project, "fileIds": [ids[2]]}, timeout=60
    )
    left = load_file(unpacked(removed.content, tmp_path / "edited") / "model.safetensors")
    before = load_file(chain[1] / "model.safetensors")
    assert all(torch.equal(left[name], before[name]) for name in before)
    events = [e.event for e in server.services.ledger.audit.entries()]
    blends = [event for event in events if event.action == "variant.blend"]
    assert [event.after for event in blends] == [
        answer.headers["X-Ztom-Variant"],
        removed.headers["X-Ztom-Variant"],
    ]
    assert {event.actor for event in blends} == {f"user:{_id(server, 'ada')}"}
    (result,) = ada.get(
        f"{server.url}/project/{project}/analysis/result",
        params={"requestId": answer.headers["X-Ztom-Request-Id"]},
        timeout=30,
    ).json()
    assert result["result"]["factors"] == [0.5, -0.25]


def test_metatune_takes_a_factor_for_each_file_and_group(server, ada, chain, tmp_path) -> None:
    project, ids = filled(server, ada, chain)
    body = {
        "projectId": project,
        "fileIds": [ids[2]],
        "scalingFactors": [-1.0, 0.0, 0.0],
        "factorGroups": {"kinds": ["attention", "mlp"]},
    }
    answer = ada.post(f"{server.url}/metatune", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    got = load_file(unpacked(answer.content, tmp_path / "tuned") / "model.safetensors")
    before, after = (load_file(path / "model.safetensors") for path in chain[1:3])
    for name, tensor in got.items():
        assert torch.equal(tensor, (before if "self_attn" in name else after)[name])
    (result,) = ada.get(
        f"{server.url}/project/{project}/analysis/result",
        params={"requestId": answer.headers["X-Ztom-Request-Id"]},
        timeout=30,
    ).json()
    assert result["result"]["factors"] == [0.0, 0.0, 0.0, -1.0, 0.0, 0.0]
    labels = result["result"]["factorLabels"]
    assert [label.rpartition(": ")[2] for label in labels] == ["attention", "mlp", "rest"] * 2
    for wrong, said in (
        ({"scalingFactors": [0.5]}, "6, one per transition and group"),
        ({"factorGroups": {"layers": 0}}, "factorGroups"),
        ({"factorGroups": {"layers": 99}}, "fewer layers"),
    ):
        refused = ada.post(f"{server.url}/metatune", json=body | wrong, timeout=60)
        assert refused.status_code == 422, refused.text
        assert said in refused.text


def test_static_analysis(server, ada, chain) -> None:
    project, ids = filled(server, ada, chain)
    name = "model.layers.0.mlp.up_proj.weight"
    body = {"projectId": project, "fileId": ids[1], "comparisonType": "CHOSEN"}
    answer = ada.post(
        f"{server.url}/static_analysis", json={**body, "weightNames": [name]}, timeout=60
    ).json()
    old, new = (load_file(path / "model.safetensors")[name] for path in chain[:2])
    rows = (new.double() - old.double()).mean(dim=1)
    assert answer["absolute_weight_difference"] == {name: pytest.approx(rows.tolist(), rel=1e-5)}
    score = float((new.double() - old.double()).abs().mean())
    assert answer["weight_summary_score"] == pytest.approx(score, rel=1e-5)
    assert answer["parameter_scores"] == {name: pytest.approx(score, rel=1e-5)}
    assert sum(answer["parameter_histograms"][name]["bin_counts"]) == new.numel()
    assert answer["bias_summary_score"] == 0.0
    assert answer["result"]["parameter_scores"] == answer["parameter_scores"]
    latest = {**body, "fileId": ids[2], "comparisonType": "LATEST"}
    nothing = ada.post(f"{server.url}/static_analysis", json=latest, timeout=60).json()
    assert nothing["weight_summary_score"] == 0
    first = ada.post(f"{server.url}/static_analysis", json={**body, "fileId": ids[0]}, timeout=60)
    assert first.status_code == 422


def test_pointers_and_base_model(server, ada, chain) -> None:
    project = server.project(ada)
    body = {"projectId": project, "format": "HF_TEXT_GENERATION", "fileName": "one"}
    url = f"{server.url}/project/file/external"
    base = ada.post(url, json={**body, "filePath": str(chain[0]), "baseModel": True}, timeout=30)
    assert base.status_code == 201, base.text
    answer = ada.post(url, json={**body, "filePath": str(chain[1])}, timeout=30)
    document = answer.json()
    assert document["baseModel"]["storage"] == "POINTER"
    assert [file["fileName"] for file in document["fileList"]] == ["one"]
    file = document["fileList"][0]["id"]
    moved = {"projectId": project, "fileId": file, "filePath": str(chain[2]), "tag": "new"}
    assert ada.patch(url, json=moved, timeout=30).json()["fileList"][0]["tag"] == "new"
    scored = server.scored(ada, project)["fileList"][0]
    assert scored["totalWeightContribution"] > 0
    again = ada.post(
        f"{server.url}/project/base-model",
        data={"projectId": project, "format": "HF_TEXT_GENERATION"},
        files={"file": ("b.tar", tar_of(chain[0]))},
        timeout=30,
    )
    assert again.status_code == 409
    changed = ada.patch(
        f"{server.url}/project/base-model",
        data={"projectId": project, "fileName": "b"},
        files={"file": ("b.tar", tar_of(chain[0]))},
        timeout=30,
    )
    assert changed.json()["baseModel"]["storage"] == "MANAGED"
    gone = ada.delete(f"{server.url}/project/base-model", json={"projectId": project}, timeout=30)
    assert gone.json()["baseModel"] is None
    content = ada.get(
        f"{server.url}/project/file/{file}", params={"projectId": project}, timeout=30
    )
    with tarfile.open(fileobj=io.BytesIO(content.content)) as archive:
        assert "model.safetensors" in archive.getnames()


def test_a_pointer_that_names_its_base_model(server, ada, chain) -> None:
    project = server.project(ada)
    body = {"projectId": project, "filePath": str(chain[1]), "baseModel": str(chain[0])}
    for _ in range(2):
        answer = ada.post(f"{server.url}/project/file/external", json=body, timeout=30)
    assert answer.json()["baseModel"]["fileName"] == chain[0].name
    assert [file["fileName"] for file in answer.json()["fileList"]] == [chain[1].name]


def test_what_comes_later_says_so(server, ada) -> None:
    for name in ("ONNX", "KERAS", "HF_IMAGE_TEXT_TO_TEXT"):
        answer = ada.post(f"{server.url}/project", json={"name": "p", "format": name}, timeout=30)
        assert answer.status_code == 501


def _id(server: Server, name: str) -> str:
    found = server.services.ledger.accounts.for_login(name)
    assert found is not None
    return found[0].id
