"""Pointers of a server to the Hub: under the operator's roots, pinned when they are made."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hub_client import use_hub
from hub_server import Hub, hub_server
from server_helpers import Server, serving
from toys import make_plain_chain

from serve_apps.control_plane.config import ServerConfig


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with hub_server() as hub:
        yield hub


@pytest.fixture(scope="module")
def server(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose users may point to one organisation of the Hub."""
    home = tmp_path_factory.mktemp("pointers")
    for path in make_plain_chain(home / "models", members=2):
        hub.add_folder(f"acme/{path.name}", path)
    with pytest.MonkeyPatch.context() as patch:
        use_hub(patch, hub, home / "hub")
        config = ServerConfig(data=home / "data", poll_s=0.05, pointer_roots=("hf://acme",))
        with serving(config) as server:
            yield server


def test_a_chain_on_the_hub_is_a_project(server: Server, hub: Hub) -> None:
    ada = server.as_user("ada")
    project = server.project(ada, "on-the-hub")
    names = sorted(name for _, name in hub.repos)
    url = f"{server.url}/project/file/external"
    for address in (names[0], f"hf://{names[1]}@main"):  # a bare name, and an address
        answer = ada.post(url, json={"projectId": project, "filePath": address}, timeout=60)
        assert answer.status_code == 201, answer.text
    files = server.scored(ada, project)["fileList"]
    assert [file["fileName"] for file in files] == [name.partition("/")[2] for name in names]
    commits = [hub.repos["models", name].refs["main"] for name in names]
    # the branch moves on, and the project's files are what they were
    hub.add(names[1], {"config.json": b"{}"})
    body = {"projectId": project, "fileIds": [files[1]["id"]], "scalingFactors": [0.5]}
    answer = ada.post(f"{server.url}/metatune", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    kept = server.services.ledger.projects.get(project).files
    assert [file.address for file in kept] == [
        f"hf://{name}@{commit}" for name, commit in zip(names, commits, strict=True)
    ]


@pytest.mark.parametrize("address", ["hf://others/base", "others/base", "hf://acme-2/base"])
def test_other_organisations_are_not_asked(server: Server, hub: Hub, address: str) -> None:
    ada = server.as_user("ada")
    project = server.project(ada, "elsewhere")
    body = {"projectId": project, "filePath": address}
    answer = ada.post(f"{server.url}/project/file/external", json=body, timeout=60)
    assert answer.status_code == 422
    assert "allowed roots" in answer.json()["detail"]
    assert not any("others" in request or "acme-2" in request for request in hub.requests)


def test_a_model_that_is_not_there_is_the_callers_to_correct(server: Server) -> None:
    ada = server.as_user("ada")
    project = server.project(ada, "misspelt")
    body = {"projectId": project, "filePath": "hf://acme/nothing"}
    answer = ada.post(f"{server.url}/project/file/external", json=body, timeout=60)
    assert answer.status_code == 422, answer.text
    assert "there is no model acme/nothing" in answer.json()["detail"]
