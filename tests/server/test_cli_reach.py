"""The command line reaches the whole API, and takes names where it takes ids."""

from __future__ import annotations

from command_line import every_command
from server_commands import assert_said
from server_helpers import Server

from serve_apps.server.app import create_app

#: The command of each operation; of the old wire contract, those that are answered.
COMMANDS = {
    "POST /api/auth/login": "login",
    "GET /api/auth/user": "whoami",
    "GET /v1/limits": "limits",
    "GET /v1/usage": "usage",
    "GET /api/auth/admin": "user list",
    "POST /api/auth/admin": "user add",
    "GET /api/auth/admin/user": "user list",
    "POST /api/auth/admin/user": "user add",
    "PATCH /api/auth/admin/user/{user_id}": "user change",
    "DELETE /api/auth/admin/user/{user_id}": "user remove",
    "GET /v1/keys": "key list",
    "POST /v1/keys": "key create",
    "DELETE /v1/keys/{key_id}": "key revoke",
    "GET /project": "project list",
    "POST /project": "project create",
    "PATCH /project": "project change",
    "DELETE /project": "project delete",
    "GET /project/{project_id}/user": "member list",
    "POST /project/{project_id}/user": "member add",
    "PATCH /project/{project_id}/user/{user_id}": "member change",
    "DELETE /project/{project_id}/user/{user_id}": "member remove",
    "POST /project/file": "project add",
    "GET /project/file/{file_id}": "project download",
    "DELETE /project/file": "project remove",
    "POST /project/file/external": "project add",
    "POST /project/base-model": "project add",
    "GET /project/{project_id}/analysis/result": "log",
    "GET /project/{project_id}/analysis/result/artifact": "searches result",
    "POST /edit": "project edit",
    "POST /metatune": "project metatune",
    "POST /static_analysis": "analysis static",
    "POST /dynamic_analysis/inference": "analysis inference",
    "POST /dynamic_analysis/inference/batch": "analysis inference",
    "POST /dynamic_analysis/sensitivity": "analysis sensitivity",
    "POST /dynamic_analysis/sensitivity/batch": "analysis sensitivity",
    "POST /v1/data": "project data",
    "GET /v1/searches": "searches list",
    "POST /v1/searches": "search",
    "GET /v1/searches/{request_id}": "searches show",
    "GET /v1/searches/{request_id}/events": "searches events",
    "POST /v1/searches/{request_id}/cancel": "searches cancel",
    "POST /v1/searches/{request_id}/resume": "searches resume",
    "POST /v1/feedback": "feedback",
    "POST /v1/verdicts": "verdict record",
    "GET /v1/verdicts": "verdict list",
    "GET /v1/verdicts/{sha256}": "verdict show",
    "POST /v1/deployments": "deploy",
    "GET /v1/deployments": "deployment list",
    "GET /v1/deployments/{digest}": "deployment show",
    "DELETE /v1/deployments/{digest}": "deployment cancel",
    "POST /v1/apply": "apply",
    "GET /v1/endpoints": "endpoint list",
    "GET /v1/endpoints/{alias}": "endpoint show",
    "DELETE /v1/endpoints/{alias}": "endpoint remove",
    "PATCH /v1/endpoints/{alias}/traffic": "endpoint traffic",
    "POST /v1/endpoints/{alias}/promote": "promote",
    "POST /v1/endpoints/{alias}/rollback": "rollback",
    "DELETE /v1/endpoints/{alias}/rules": "endpoint remove-rule",
    "GET /v1/signing-keys": "signing-key list",
    "POST /v1/signing-keys": "signing-key register",
    "DELETE /v1/signing-keys/{key_id}": "signing-key revoke",
    "GET /v1/invitations": "user invitations",
    "POST /v1/invitations": "user invite",
    "DELETE /v1/invitations/{key_id}": "user uninvite",
    "GET /v1/releases": "release list",
    "GET /v1/releases/{release_id}": "release show",
    "GET /v1/releases/{release_id}/events": "release watch",
    "POST /v1/releases/{release_id}/{command}": "release tell",
}
#: Operations of the old wire contract for people's own code, and the command that comes closest.
OLD = {
    "POST /api/auth/register": "user add",
    "PATCH /api/auth/user": "user change",
    "GET /project/{project_id}": "project list",
    "GET /project/{project_id}/metadata": "project list",
    "GET /project/file": "project download",
    "PATCH /project/file": "project add",
    "PATCH /project/file/external": "project add",
    "POST /project/file_event": "project add",
    "PATCH /project/base-model": "project add",
    "DELETE /project/base-model": "project remove",
    "PATCH /api/auth/admin/{user_id}": "user change",
    "DELETE /api/auth/admin/{user_id}": "user remove",
    "POST /dynamic_analysis/zto/batch": "search",
}
#: They answer 501.
LATER = tuple(
    f"/dynamic_analysis/{name}" for name in ("comparative", "contribution", "corr", "moe")
)
#: Any client of OpenAI's API speaks these; an artifact's address is given out signed; up is up.
OTHERS = (
    "/v1/chat/",
    "/v1/completions",
    "/v1/models",
    "/v1/embeddings",
    "/v1/artifacts",
    "/health",
)


def operations(server: Server) -> set[str]:
    paths = create_app(server.services).openapi()["paths"]
    return {f"{method.upper()} {path}" for path, entry in paths.items() for method in entry}


def test_every_operation_has_a_command(server: Server) -> None:
    there = operations(server)
    missing = [
        operation
        for operation in sorted(there - COMMANDS.keys() - OLD.keys())
        if not operation.partition(" ")[2].startswith((*LATER, *OTHERS))
    ]
    assert missing == []
    assert OLD.keys() <= there
    known = {name for name, _ in every_command()}
    assert {*COMMANDS.values(), *OLD.values()} <= known


def test_keys_that_sign_and_invitations(server, ztom, tmp_path) -> None:
    file = tmp_path / "ci.key"
    public = ztom("signing-key", "create", file).out.strip()
    assert file.stat().st_mode & 0o777 == 0o600
    assert ztom("signing-key", "show", file).out.strip() == public
    assert ztom("signing-key", "show").out.strip() != public, "one's own"
    assert "is registered" in ztom("signing-key", "register", "ci", file).out
    assert public in ztom("signing-key", "list").out
    assert_said(ztom("signing-key", "register", "again", public).err, "is registered")
    assert "is revoked" in ztom("signing-key", "revoke", "ci").out
    invited = ztom("user", "invite", "Grace@example.org", "--deployer").out
    assert invited == "grace@example.org may register: DEPLOYER USER\n"
    assert "grace@example.org" in ztom("user", "invitations").out
    assert ztom("user", "uninvite", "grace@example.org").status == 0
    assert "grace" not in ztom("user", "invitations").out


def test_accounts_members_and_keys_by_name(ztom, monkeypatch) -> None:
    monkeypatch.setenv("ZTOM_PASSWORD", "a password of some length")
    assert ztom("user", "add", "grace", "grace@example.org").status == 0
    assert "grace@example.org" in ztom("user", "list").out
    assert ztom("project", "create", "tickets").status == 0
    added = ztom("member", "add", "tickets", "grace@example.org", "--permission", "WRITE")
    assert added.status == 0, added.err
    assert "grace" in ztom("member", "list", "tickets").out
    assert ztom("member", "change", "tickets", "grace", "--permission", "READ").status == 0
    assert ztom("member", "remove", "tickets", "grace").status == 0
    assert "disabled" in ztom("user", "change", "grace", "--disable").out
    assert ztom("user", "remove", "grace").status == 0
    made = ztom("key", "create", "ci", "--scope", "read", "--project", "tickets")
    assert made.status == 0, made.err
    assert "ci" in ztom("key", "list").out
    assert ztom("key", "revoke", "ci").status == 0
    gone = ztom("key", "revoke", "ci")
    assert (gone.status, "there is no key ci" in gone.err) == (3, True)


def test_projects_by_name_and_what_several_are_called_is_refused(ztom) -> None:
    ids = [ztom("project", "create", "twins").out.strip() for _ in range(2)]
    refused = ztom("project", "change", "twins", "--description", "x")
    assert refused.status == 3
    assert "several projects are called twins: expected the id of one of them: " in refused.err
    assert all(project in refused.err for project in ids)
    assert ztom("project", "change", ids[0], "--name", "single").status == 0
    assert ztom("project", "delete", "single").status == 0
    unknown = ztom("project", "delete", "twin")
    assert (unknown.status, unknown.out) == (3, "")
    assert "there is no project twin" in unknown.err
    assert "Did you mean twins?" in unknown.err


def test_a_search_that_is_not_there(ztom) -> None:
    assert ztom("project", "create", "empty").status == 0
    listed = ztom("searches", "list", "empty", "--json")
    assert (listed.status, listed.out) == (0, "[]\n"), listed.err
    unknown = ztom("searches", "show", "0" * 32)
    assert (unknown.status, "status 404" in unknown.err) == (3, True)


def test_whoami_says_who(ztom) -> None:
    assert "ADMIN" in ztom("whoami").out


def test_limits_say_how_much_is_held(ztom) -> None:
    lines = [line.split() for line in ztom("limits").out.splitlines()]
    assert ["searches", "0", "32"] in lines
    assert ["bytes", "on", "disk", "0", "1,099,511,627,776"] in lines
