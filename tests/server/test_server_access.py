"""Who may do what: every route by every role, tokens, keys, limits. Rows 72 to 81 and 84, 86."""

from __future__ import annotations

import base64
import hmac
import json
import logging
import os
import time
from collections.abc import Iterator
from hashlib import sha256, sha384
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests
from server_helpers import PASSWORD, InProcessRunner, Server, Stage, serving
from variant_folders import verdict_of

from cluster.jobs import JobState
from serve_apps.control_plane.access import Permission
from serve_apps.control_plane.config import ServerConfig
from serve_apps.control_plane.services import Services
from serve_apps.control_plane.tokens import LOGIN, Tokens, load_keys, rotate
from serve_apps.server.app import create_app
from ztom.errors import ConfigError
from ztom.ledger.deployments import NewDeployment
from ztom.ledger.requests import NewRequest, RequestKind
from ztom.ledger.verdicts import NewVerdict
from ztom.rollout.plan import parse_plan
from ztom.rollout.routing import Placement, Route, RoutingTable

UNKNOWN = "0" * 32
VARIANT = "a" * 64
VERDICT = b'{"outcome": "pass"}'
PUBLIC_KEY = base64.b64encode(bytes(range(32))).decode()
REMOVAL = ("DELETE", "/v1/endpoints/{alias}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("server")
    with serving(ServerConfig(data=data, poll_s=0.05)) as server:
        yield server


@pytest.fixture(scope="module")
def people(server: Server) -> dict[str, requests.Session]:
    """One of each: what they are is about the project of `project`."""
    everyone = {name: server.as_user(name) for name in ("owner", "editor", "viewer", "stranger")}
    everyone["admin"] = server.as_user("chief", admin=True)
    everyone["anonymous"] = requests.Session()
    return everyone


@pytest.fixture(scope="module")
def project(server: Server, people: dict[str, requests.Session]) -> str:
    project = server.project(people["owner"])
    for name, permission in (("editor", "WRITE"), ("viewer", "READ")):
        answer = people["owner"].post(
            f"{server.url}/project/{project}/user",
            json={"emailAddress": f"{name}@example.org", "permissions": [permission]},
            timeout=30,
        )
        assert answer.status_code == 201, answer.text
    return project


@pytest.fixture(scope="module")
def search(server: Server, project: str) -> str:
    owner = server.services.ledger.accounts.for_login("owner")
    assert owner is not None
    new = NewRequest(RequestKind.SEARCH, owner[0].id, project)
    request = server.services.ledger.requests.create(new)
    server.runner.states["j"] = JobState.RUNNING
    server.services.ledger.requests.start(request.id, job="j")
    return request.id


@pytest.fixture(scope="module")
def release(server: Server, project: str) -> str:
    """An endpoint of the project, ``guarded``, with a deployment, its verdict and a release."""
    endpoints = server.services.ledger.endpoints
    server.services.ledger.verdicts.record(
        NewVerdict(VERDICT, VARIANT, None, "pass", project), actor="t"
    )
    endpoints.claim("guarded", project)
    where = Placement(name="toy", app="x", deployment="variant", folder="/nowhere")
    table = RoutingTable(placements={VARIANT: where}, routes={"guarded": Route(stable=VARIANT)})
    endpoints.change_routing(lambda before: table, actor="t", action="x", subject="y")
    new = NewDeployment(VARIANT, "toy", "/nowhere", project_id=project)
    endpoints.deployments.deploy(new, actor="t")
    rollout = endpoints.rollouts.start(
        "guarded",
        candidate=VARIANT,
        stable=VARIANT,
        plan=parse_plan(),
        actor="t",
    )
    return rollout.id


def routes(services: Services) -> list[tuple[str, str, dict[str, Any]]]:
    paths = create_app(services).openapi()["paths"]
    return [
        (method.upper(), path, operation)
        for path, operations in paths.items()
        for method, operation in operations.items()
    ]


STEP: dict[str, Any] = {"fileId": UNKNOWN, "stimulusPaths": ["/nowhere.jsonl"]}
#: Bodies that name the project, whatever else they hold: who may do it is asked before the rest.
#: A dry run of a deletion is not possible, so deletions name a file that is not there.
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("PATCH", "/project"): {"name": "q"},
    ("DELETE", "/project/file"): {"fileId": UNKNOWN},
    ("POST", "/project/file/external"): {"filePath": "/nowhere"},
    ("PATCH", "/project/file/external"): {"fileId": UNKNOWN},
    ("POST", "/project/file_event"): {"fileId": UNKNOWN},
    ("POST", "/metatune"): {"fileIds": [UNKNOWN], "scalingFactors": [0.1]},
    ("POST", "/edit"): {"fileIds": [UNKNOWN]},
    ("POST", "/static_analysis"): {"fileId": UNKNOWN},
    ("POST", "/dynamic_analysis/sensitivity/batch"): {
        "fileId": UNKNOWN,
        "scalingFactor": "0.5",
        "stimulusPaths": ["/nowhere.jsonl"],
    },
    ("POST", "/dynamic_analysis/comparative/batch"): STEP,
    ("POST", "/dynamic_analysis/contribution/batch"): STEP,
    ("POST", "/dynamic_analysis/correlation/batch"): STEP,
    ("POST", "/dynamic_analysis/moe/batch"): {
        **STEP,
        "layerNames": ["a"],
        "analysisType": "EXPERT",
    },
    ("POST", "/dynamic_analysis/zto/batch"): {
        "scalingFactorLimit": 0.1,
        "stimulusPaths": ["/nowhere.jsonl"],
    },
    ("POST", "/v1/searches"): {"scalingFactorLimit": 0.1, "stimulusPaths": ["/nowhere.jsonl"]},
    ("POST", "/project/{project_id}/user"): {
        "emailAddress": "nobody@example.org",
        "permissions": ["READ"],
    },
    ("PATCH", "/project/{project_id}/user/{user_id}"): {"permissions": ["READ"]},
    ("POST", "/v1/signing-keys"): {"name": "k", "publicKey": PUBLIC_KEY},
    ("POST", "/v1/invitations"): {"emailAddress": "new@example.org"},
    ("POST", "/v1/deployments"): {"alias": "guarded", "path": "/nowhere"},
    ("POST", "/v1/verdicts"): {"verdict": verdict_of(VARIANT)},
    ("DELETE", "/v1/endpoints/{alias}/rules"): {"key": "nobody's"},
    ("POST", "/v1/feedback"): {"responseId": "none", "label": "good"},
}
#: Of these the path says whose it is.
NAMED_BY_PATH = ("{project_id}", "{alias}", "{digest}", "{release_id}", "{sha256}")
FORMS: dict[tuple[str, str], dict[str, str]] = {
    ("POST", "/project/file"): {},
    ("PATCH", "/project/file"): {"fileId": UNKNOWN},
    ("POST", "/project/base-model"): {},
    ("POST", "/v1/data"): {},
    ("PATCH", "/project/base-model"): {},
    ("POST", "/dynamic_analysis/sensitivity"): {"fileId": UNKNOWN, "scalingFactor": "0.5"},
    ("POST", "/dynamic_analysis/comparative"): {"fileId": UNKNOWN},
    ("POST", "/dynamic_analysis/contribution"): {"fileId": UNKNOWN},
    ("POST", "/dynamic_analysis/moe"): {
        "fileId": UNKNOWN,
        "layerNames": "a",
        "analysisType": "EXPERT",
    },
}


def call(
    server: Server,
    session: requests.Session,
    method: str,
    path: str,
    project: str,
    search: str,
    release: str = "",
) -> int:
    url = path.replace("{project_id}", project).replace("{request_id}", search)
    url = url.replace("{alias}", "guarded").replace("{digest}", VARIANT[:12])
    url = url.replace("{release_id}", release).replace("{command}", "resume")
    url = url.replace("{sha256}", sha256(VERDICT).hexdigest())
    for name in ("{user_id}", "{file_id}", "{key_id}"):
        url = url.replace(name, UNKNOWN)
    options: dict[str, Any] = {"params": {"projectId": project, "requestId": UNKNOWN}}
    if (method, path) in FORMS:
        options["data"] = {"projectId": project, **FORMS[method, path]}
        options["files"] = {"file": ("x.tar", b"no tar at all")}
    elif (method, path) == ("DELETE", "/project"):
        options["json"] = {"projectIds": [project, UNKNOWN]}  # all or nothing: so nothing
    elif path == "/v1/apply":
        stable = {"path": "/nowhere"}
        options["json"] = {"endpoints": {"guarded": {"stable": stable, "project": project}}}
    elif path.startswith("/v1/") and path.endswith(("completions", "embeddings")):
        options["json"] = {"model": "none", "prompt": "a", "messages": []}
    else:
        named = {"projectId": project}
        if path == "/v1/feedback" or any(name in path for name in NAMED_BY_PATH):
            named = {}
        options["json"] = {**named, **BODIES.get((method, path), {})}
    if path.endswith("/events"):
        options["stream"] = True
    with session.request(method, server.url + url, timeout=60, **options) as answer:
        return answer.status_code


ALLOWED = {
    Permission.READ: {"owner", "editor", "viewer", "admin"},
    Permission.WRITE: {"owner", "editor", "admin"},
    Permission.MANAGE: {"owner", "admin"},
    Permission.DEPLOY: {"owner", "editor", "admin"},
    Permission.ADMIN: {"admin"},
    Permission.USER: {"owner", "editor", "viewer", "stranger", "admin"},
    Permission.INFER: {"owner", "editor", "viewer", "stranger", "admin"},
}


@pytest.mark.abuse(78)
def test_every_route_declares_a_permission(server: Server) -> None:
    for method, path, operation in routes(server.services):
        assert operation.get("x-permission") in set(Permission), f"{method} {path}"
        public = operation["x-permission"] == Permission.PUBLIC
        assert public or operation["security"] == [{"bearer": []}], f"{method} {path}"
    public = {p for _, p, o in routes(server.services) if o["x-permission"] == Permission.PUBLIC}
    assert public == {"/health", "/api/auth/login", "/api/auth/register", "/v1/artifacts"}


@pytest.mark.abuse(76, 77)
def test_every_route_by_every_role(server, people, project, search, release) -> None:
    for method, path, operation in routes(server.services):
        permission = Permission(operation["x-permission"])
        if permission is Permission.PUBLIC or (method, path) == ("POST", "/project"):
            continue
        if path.endswith(("/cancel", "/resume")) or (method, path) == REMOVAL:
            continue  # they change what the others look at; see below
        for who, session in people.items():
            status = call(server, session, method, path, project, search, release)
            case = f"{method} {path} as {who}: {status}"
            assert status < 500 or status == 501, case
            if who == "anonymous":
                assert status == 401, case
            elif who in ALLOWED[permission]:
                assert status not in (401, 403), case
            elif who == "stranger" and permission is not Permission.ADMIN:
                assert status == 404, case  # a foreign project is none
            else:
                assert status == 403, case


def test_an_endpoint_is_removed_by_who_may(server, people, project, search, release) -> None:
    expected = {"anonymous": 401, "stranger": 404, "viewer": 403, "editor": 204}
    for who, status in expected.items():
        assert call(server, people[who], *REMOVAL, project, search) == status


def test_a_search_is_cancelled_and_resumed_by_who_may(server, people, project, search) -> None:
    for who, expected in (("stranger", 404), ("viewer", 403), ("anonymous", 401)):
        for action in ("cancel", "resume"):
            assert (
                call(
                    server, people[who], "POST", f"/v1/searches/{search}/{action}", project, search
                )
                == expected
            )
    url = f"{server.url}/v1/searches/{search}"
    assert people["editor"].post(f"{url}/cancel", timeout=30).json()["status"] == "cancelled"
    assert server.runner.stopped == ["j"]
    assert people["editor"].post(f"{url}/cancel", timeout=30).status_code == 409
    assert people["editor"].post(f"{url}/resume", timeout=30).json()["status"] == "queued"


def forged(claims: dict[str, Any], header: dict[str, Any], key: bytes, digest: Any = sha384) -> str:
    def part(content: bytes) -> str:
        return base64.urlsafe_b64encode(content).rstrip(b"=").decode()

    body = f"{part(json.dumps(header).encode())}.{part(json.dumps(claims).encode())}"
    return f"{body}.{part(hmac.new(key, body.encode(), digest).digest())}"


@pytest.mark.abuse(72, 73)
def test_tokens_that_do_not_hold(server: Server, people) -> None:
    user = server.services.ledger.accounts.for_login("owner")
    assert user is not None
    key = load_keys(server.services.config.keys / "jwt.keys")[0]
    now = int(time.time())
    good = {"sub": user[0].id, "aud": LOGIN, "iat": now, "exp": now + 60, "ses": user[0].session}
    head = {"alg": "HS384", "typ": "JWT"}
    assert jwt.decode(forged(good, head, key), key, algorithms=["HS384"], audience=LOGIN) == good

    def without(name: str) -> dict[str, Any]:
        return {k: v for k, v in good.items() if k != name}

    bad = [
        forged(good, {**head, "alg": "none"}, key),
        forged(good, {**head, "alg": "nOnE"}, key).rpartition(".")[0] + ".",
        forged(good, {**head, "alg": "HS256"}, key, sha256),
        forged(good, {**head, "alg": "RS384"}, key),
        forged(good, {**head, "crit": ["x"], "x": 1}, key),
        forged(good, head, b"x" * 48),
        forged({**good, "exp": now - 60}, head, key),
        forged({**good, "iat": now + 3600}, head, key),
        forged({**good, "nbf": now + 3600}, head, key),
        forged({**good, "exp": "9" * 20}, head, key),
        forged({**good, "aud": "ztom-artifact"}, head, key),
        forged({**good, "ses": user[0].session + 1}, head, key),
        forged({**good, "sub": UNKNOWN}, head, key),
        forged({**good, "ses": True and "1"}, head, key),
        *(forged(without(name), head, key) for name in good),
        "x" * 10_000,
        "",
    ]
    for token in [forged(good, head, key), *bad]:
        answer = requests.get(
            f"{server.url}/api/auth/user", headers={"Authorization": f"Bearer {token}"}, timeout=30
        )
        assert answer.status_code == (401 if token in bad else 200), token


@pytest.mark.abuse(74)
def test_short_and_open_keys_are_refused(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(ConfigError, match="too short"):
        Tokens((b"four",))
    monkeypatch.setenv("ZTOM_JWT_KEY", "four")
    with pytest.raises(ConfigError, match="at least 48"):
        Services.open(ServerConfig(data=tmp_path / "a"), InProcessRunner(), Stage())
    monkeypatch.delenv("ZTOM_JWT_KEY")
    path = tmp_path / "keys" / "jwt.keys"
    first = load_keys(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_keys(path) == first
    token = Tokens(first).issue("u", audience=LOGIN, seconds=60)
    rotate(path)
    assert Tokens(load_keys(path)).check(token, audience=LOGIN) is not None
    rotate(path)
    assert Tokens(load_keys(path)).check(token, audience=LOGIN) is None
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="read by others"):
        load_keys(path)


@pytest.mark.abuse(76)
def test_a_demotion_or_disabling_works_at_once(server: Server, people) -> None:
    eve = server.as_user("eve", admin=True)
    users = people["admin"].get(f"{server.url}/api/auth/admin/user", timeout=30).json()
    url = f"{server.url}/api/auth/admin/{next(u['id'] for u in users if u['username'] == 'eve')}"
    assert eve.get(f"{server.url}/api/auth/admin", timeout=30).status_code == 200
    people["admin"].patch(url, json={"roles": ["USER"]}, timeout=30)
    assert eve.get(f"{server.url}/api/auth/admin", timeout=30).status_code == 403
    people["admin"].patch(url, json={"enabled": False}, timeout=30)
    assert eve.get(f"{server.url}/api/auth/user", timeout=30).status_code == 401
    login = {"username": "eve", "password": PASSWORD}
    answer = requests.post(f"{server.url}/api/auth/login", json=login, timeout=30)
    assert answer.status_code == 401


def test_api_keys(server: Server, people, project: str) -> None:
    url = f"{server.url}/v1/keys"
    body = {"name": "ci", "scopes": ["read"], "projectId": project}
    made = people["editor"].post(url, json=body, timeout=30).json()
    other = server.project(people["editor"], "another")
    machine = requests.Session()
    machine.headers["X-API-Key"] = made["key"]
    assert machine.get(f"{server.url}/project/{project}", timeout=30).status_code == 200
    assert machine.get(f"{server.url}/project/{other}", timeout=30).status_code == 404
    assert [p["id"] for p in machine.get(f"{server.url}/project", timeout=30).json()] == [project]
    patch = {"projectId": project, "name": "n"}
    assert machine.patch(f"{server.url}/project", json=patch, timeout=30).status_code == 403
    assert machine.post(url, json={"name": "more"}, timeout=30).status_code == 403
    assert "key" not in people["editor"].get(url, timeout=30).json()[0]
    people["editor"].delete(f"{url}/{made['id']}", timeout=30)
    assert machine.get(f"{server.url}/project/{project}", timeout=30).status_code == 401


@pytest.mark.abuse(84)
def test_fields_that_are_nobodys_business_are_refused(server: Server, people) -> None:
    account = {"username": "m", "emailAddress": "m@x", "password": PASSWORD}
    for extra in ({"roles": ["ADMIN"]}, {"isAdmin": True}, {"is_admin": True}, {"enabled": True}):
        answer = requests.post(
            f"{server.url}/api/auth/register", json={**account, **extra}, timeout=30
        )
        assert answer.status_code == 422
    for body in ({"roles": ["ADMIN"]}, {"session": 0}, {"passwordHash": "x"}):
        answer = people["stranger"].patch(f"{server.url}/api/auth/user", json=body, timeout=30)
        assert answer.status_code == 422
    made = people["stranger"].post(
        f"{server.url}/project", json={"name": "p", "id": UNKNOWN}, timeout=30
    )
    # unknown keywords of projects are tolerated, as existing clients send them: named, never taken
    assert (made.status_code, made.json()["id"] != UNKNOWN) == (201, True)
    assert any("id" in warning for warning in made.json()["warnings"])


@pytest.mark.abuse(79, 80)
def test_names_are_values_and_are_shown_as_they_are(server: Server, people) -> None:
    name = "x'; DROP TABLE projects; -- <b>"
    project = server.project(people["stranger"], name)
    found = people["stranger"].get(f"{server.url}/project/{project}", timeout=30).json()
    assert found["name"] == name
    for bad in ("a\r\nSet-Cookie: x", "a\x1b[31m", "\u202e"):
        answer = people["stranger"].post(f"{server.url}/project", json={"name": bad}, timeout=30)
        assert answer.status_code == 422


@pytest.mark.abuse(81)
def test_secrets_and_prompts_stay_out_of_logs_errors_and_audit(
    server: Server, people, project: str, caplog, tmp_path: Path
) -> None:
    canary = "canary-7f3a-secret"
    with caplog.at_level(logging.DEBUG):
        login = {"username": "owner", "password": canary}
        answers = [
            requests.post(f"{server.url}/api/auth/login", json=login, timeout=30),
            requests.post(
                f"{server.url}/api/auth/login", json={"username": "o", "passwd": canary}, timeout=30
            ),
            people["owner"].patch(
                f"{server.url}/api/auth/user", json={"password": canary[:5]}, timeout=30
            ),
            requests.get(
                f"{server.url}/project",
                headers={"Authorization": f"Bearer ztom_{canary}"},
                timeout=30,
            ),
            people["owner"].post(
                f"{server.url}/dynamic_analysis/sensitivity",
                data={"projectId": project, "fileId": UNKNOWN, "scalingFactor": "x" + canary},
                files={"file": ("s.jsonl", json.dumps({"prompt": canary}))},
                timeout=30,
            ),
        ]
    texts = [answer.text for answer in answers]
    texts += [record.getMessage() for record in caplog.records if "urllib3" not in record.name]
    texts += [repr(entry) for entry in server.services.ledger.audit.entries()]
    assert not any(canary in text for text in texts)


@pytest.mark.abuse(86)
def test_other_hosts_and_origins_are_refused(server: Server) -> None:
    for path in ("/docs", "/project", "/health/x", "/v1/models"):
        answer = requests.get(server.url + path, headers={"Host": "evil.example"}, timeout=30)
        assert answer.status_code == 400, path
    answer = requests.options(
        f"{server.url}/project",
        headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"},
        timeout=30,
    )
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("host", ["10.8.0.17", "10.8.0.17:8000", "[fd00::17]", "ztom-head.svc"])
def test_looks_at_the_health_come_by_any_address(server: Server, host: str) -> None:
    """Kubernetes and load balancers call by the address that a node has today."""
    for path in ("/health", "/api/v2/health"):
        answer = requests.get(server.url + path, headers={"Host": host}, timeout=30)
        assert (answer.status_code, answer.json()["status"]) == (200, "ok")


def test_a_new_password_takes_the_old_one_and_ends_tokens(server: Server) -> None:
    session = server.as_user("careful")
    url = f"{server.url}/api/auth/user"
    new = {"password": "another long password"}
    assert session.patch(url, json=new, timeout=30).status_code == 403
    changed = session.patch(url, json={**new, "currentPassword": PASSWORD}, timeout=30)
    assert changed.status_code == 200
    assert session.get(url, timeout=30).status_code == 401


def test_the_key_of_the_environment_is_used(tmp_path: Path, monkeypatch) -> None:
    secret = base64.b64encode(os.urandom(48)).decode()
    monkeypatch.setenv("ZTOM_JWT_KEY", secret)
    assert load_keys(tmp_path / "none") == (base64.b64decode(secret),)
    assert not (tmp_path / "none").exists()
