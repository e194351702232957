"""Endpoints: whose they are, how they are declared in a file, and their end."""

from __future__ import annotations

from typing import Any

import openai
import pytest
import requests
from gateway_calls import chat, chats, make_key, said
from variant_folders import FAST, deploy, gateway_looks, ready, variant, wait_for

from ztom.errors import ServerError


def test_an_endpoint_is_its_projects(server, admin) -> None:
    owner, stranger = server.as_user("owner"), server.as_user("stranger")
    project = server.project(owner)
    folder, digest = variant(server, "one")
    body = {"alias": "mine", "path": str(folder), "projectId": project}
    assert owner.post(f"{server.url}/v1/deployments", json=body, timeout=30).status_code == 202
    wait_for(
        lambda: owner.get(f"{server.url}/v1/endpoints/mine", timeout=30).status_code == 200,
        "the endpoint",
    )
    for method, path in (
        ("GET", "/v1/endpoints/mine"),
        ("DELETE", "/v1/endpoints/mine"),
        ("POST", "/v1/endpoints/mine/promote"),
        ("POST", "/v1/endpoints/mine/rollback"),
        ("PATCH", "/v1/endpoints/mine/traffic"),
        ("GET", f"/v1/deployments/{digest}"),
    ):
        answer = stranger.request(method, server.url + path, json={}, timeout=30)
        assert answer.status_code == 404, f"{method} {path}: {answer.status_code}"
    assert stranger.get(f"{server.url}/v1/endpoints", timeout=30).json() == []
    theirs = {"alias": "mine", "path": str(folder)}
    assert stranger.post(f"{server.url}/v1/deployments", json=theirs, timeout=30).status_code == 403
    other = server.project(stranger, "other")
    theirs["projectId"] = other
    assert stranger.post(f"{server.url}/v1/deployments", json=theirs, timeout=30).status_code == 404


def test_an_endpoint_that_is_removed_is_gone(server, admin, ask) -> None:
    _, digest = deploy(server, admin, "one")
    admin.endpoints.remove("support")
    gateway_looks(server)
    with pytest.raises(openai.NotFoundError):
        chat(ask)
    wait_for(lambda: f"delete variant-one-{digest[:12]}" in server.stage.log, "its removal")
    with pytest.raises(ServerError, match="404"):
        admin.endpoints.get("support")


def test_a_file_of_endpoints_is_applied_once(server, admin, ask) -> None:
    folders = {name: variant(server, name) for name in ("one", "two", "acme", "three")}

    def spec(name: str, **more: Any) -> dict[str, Any]:
        return {"path": str(folders[name][0]), "name": name, **more}

    wanted = {
        "support": {
            "stable": spec("one"),
            "candidate": spec("two", canary=10, shadow=50),
            "rules": [spec("acme", header="x-customer", value="acme")],
        }
    }
    first = admin.endpoints.apply(wanted, dry_run=True)
    assert [change.text[0] for change in first] == ["+", "+", "+"]
    assert admin.endpoints.deployments() == []
    admin.endpoints.apply(wanted)
    assert admin.endpoints.apply(wanted) == [], "under way"
    for name in ("one", "two", "acme"):
        ready(admin, folders[name][1], server)
    assert admin.endpoints.apply(wanted, dry_run=True) == []
    found = admin.endpoints.get("support")
    assert (found.canary_percent, found.shadow_percent) == (10, 50)
    assert len(found.rules) == 1
    wanted["support"]["candidate"]["canary"] = 25
    wanted["support"]["rules"] = []
    assert [c.action for c in admin.endpoints.apply(wanted)] == ["traffic", "unrule"]
    assert admin.endpoints.get("support").canary_percent == 25
    del wanted["support"]["candidate"]
    assert [c.action for c in admin.endpoints.apply(wanted)] == ["withdraw"]
    wanted["support"] |= {"stable": spec("three"), "rollout": FAST}
    assert [c.action for c in admin.endpoints.apply(wanted)] == ["deploy"]
    assert admin.endpoints.apply(wanted) == []
    ready(admin, folders["three"][1], server)
    assert admin.endpoints.apply(wanted) == [], "a release is under way"
    assert len(admin.endpoints.releases()) == 1
    assert admin.endpoints.apply({}) == []
    assert [c.action for c in admin.endpoints.apply({}, prune=True)] == ["remove"]
    with pytest.raises(ServerError, match="404"):
        admin.endpoints.get("support")


@pytest.mark.parametrize(
    "wanted",
    [
        {"support": {}},
        {"support": {"stable": {"path": "/nowhere"}, "canray": 1}},
        {"support": {"stable": {"path": "/nowhere"}}},
        {"a b": {"stable": {"path": "/nowhere"}}},
        {"support": {"stable": {"path": "x", "options": {"max_replica": 3}}}},
    ],
)
def test_files_that_are_wrong_are_refused_whole(server, admin, wanted) -> None:
    with pytest.raises(ServerError, match="422"):
        admin.endpoints.apply(wanted)
    assert admin.endpoints.deployments() == []


def test_a_file_with_one_variant_that_is_refused_changes_nothing(server, admin) -> None:
    good, _ = variant(server, "good")
    bad, _ = variant(server, "bad", verdict=None)
    files = {"aa": good, "zz": bad}
    wanted = {alias: {"stable": {"path": str(folder)}} for alias, folder in files.items()}
    with pytest.raises(ServerError, match="not proved"):
        admin.endpoints.apply(wanted)
    assert admin.endpoints.deployments() == []


def test_a_variant_under_a_second_alias_goes_on_under_the_first(server, admin, ask) -> None:
    folder, digest = deploy(server, admin, "one", alias="a")
    with chats(ask, model="a") as traffic:
        admin.endpoints.deploy("b", path=folder)
        ready(admin, digest, server)
        traffic.after(20)
    assert traffic.failures == []
    assert said(chat(ask, "b")) == "I am one."
    assert len(server.stage.apps) == 1


def test_another_project_cannot_take_a_deployment_over(server, admin, ask) -> None:
    folder, digest = deploy(server, admin, "one")
    stranger = server.as_user("stranger")
    body = {"alias": "theirs", "path": str(folder), "projectId": server.project(stranger)}
    answer = stranger.post(f"{server.url}/v1/deployments", json=body, timeout=30)
    assert answer.status_code == 409
    assert admin.endpoints.deployment(digest).project_id is None


@pytest.mark.abuse(77)
def test_endpoints_of_a_project_are_for_its_members(server, admin) -> None:
    owner = server.as_user("owner")
    project = server.project(owner)
    folder, digest = variant(server, "one")
    body = {"alias": "mine", "path": str(folder), "projectId": project}
    assert owner.post(f"{server.url}/v1/deployments", json=body, timeout=30).status_code == 202
    ready(admin, digest, server)
    for name, sees in (("owner", True), ("stranger", False)):
        with openai.OpenAI(
            base_url=f"{server.url}/v1", api_key=make_key(server, name), max_retries=0
        ) as client:
            assert bool(client.models.list().data) is sees
            for model in ("mine", digest, f"mine@{digest[:12]}"):
                if sees:
                    assert said(chat(client, model)) == "I am mine."
                else:
                    with pytest.raises(openai.NotFoundError):
                        chat(client, model)
    elsewhere = server.project(owner, "elsewhere")
    bound = make_key(server, "owner", projectId=elsewhere)
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key=bound, max_retries=0) as client,
        pytest.raises(openai.NotFoundError),
    ):
        chat(client, "mine")


def test_a_project_that_serves_is_not_deleted(server, admin) -> None:
    owner = server.as_user("owner")
    project = server.project(owner)
    folder, digest = variant(server, "one")
    body = {"alias": "mine", "path": str(folder), "projectId": project}
    owner.post(f"{server.url}/v1/deployments", json=body, timeout=30)
    ready(admin, digest, server)
    gone = {"projectIds": [project], "hardDelete": True}
    assert owner.delete(f"{server.url}/project", json=gone, timeout=30).status_code == 409
    assert owner.delete(f"{server.url}/v1/endpoints/mine", timeout=30).status_code == 204
    wait_for(lambda: not admin.endpoints.deployments(), "the end of the deployment")
    assert owner.delete(f"{server.url}/project", json=gone, timeout=30).status_code == 204
    body["projectId"] = server.project(owner)
    again = owner.post(f"{server.url}/v1/deployments", json=body, timeout=30)
    assert again.status_code == 202, "the alias is free"


def test_a_key_for_inference_reads_nothing_else(server, admin) -> None:
    key = make_key(server, "ada", scopes=["infer"])
    headers = {"Authorization": f"Bearer {key}"}
    assert requests.get(f"{server.url}/v1/models", headers=headers, timeout=30).status_code == 200
    for path in ("/project", "/v1/endpoints", "/v1/keys", "/api/auth/user"):
        answer = requests.get(server.url + path, headers=headers, timeout=30)
        assert answer.status_code == 403, path
