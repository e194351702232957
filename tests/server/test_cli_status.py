"""``ztom promote``, ``rollback`` and ``status`` against a real server."""

from __future__ import annotations

import json

from server_commands import STANDS_STILL, assert_said, named
from variant_folders import deploy, wait_for


def test_promote_and_rollback_say_where_the_traffic_is(server, admin, ztom) -> None:
    _, one = deploy(server, admin, "one")
    _, two = deploy(server, admin, "two", canary=10)
    assert ztom("promote", "support").out == f"support: stable {named('two', two)}\n"
    assert ztom("rollback", "support").out == f"support: stable {named('one', one)}\n"
    _, three = deploy(server, admin, "three", canary=10)
    assert named("three", three) in ztom("status").out
    assert ztom("rollback", "support").out == f"support: stable {named('one', one)}\n"


def test_there_has_to_be_something_to_promote_or_to_go_back_to(server, admin, ztom) -> None:
    for command in ("promote", "rollback"):
        ran = ztom(command, "nothing")
        assert (ran.status, ran.out) == (3, "")
        assert_said(ran.err, "status 404: got .*nothing")
    deploy(server, admin, "one")
    for command in ("promote", "rollback"):
        ran = ztom(command, "support")
        assert (ran.status, ran.out) == (3, "")
        assert_said(ran.err, "ServerError: ")


def test_status_shows_endpoints_rules_deployments_and_releases(server, admin, ztom) -> None:
    empty = ztom("status")
    assert (empty.status, "endpoint" in empty.out) == (0, True)
    _, one = deploy(server, admin, "one")
    deploy(server, admin, "acme", rule={"header": "x-customer", "value": "[acme]"})
    _, two = deploy(server, admin, "two", plan=STANDS_STILL)
    (release,) = admin.endpoints.releases()
    step = f"{named('two', two)} 100 %"
    wait_for(lambda: step in ztom("status").out, "the release's first step has its traffic")
    ran = ztom("status")
    assert ran.status == 0, ran.err
    lines = [line.split() for line in ran.out.splitlines()]
    assert ["endpoint", "stable", "canary", "shadow", "previous", "release"] in lines
    (support,) = (line for line in lines if line[:1] == ["support"])
    assert support[1] == named("one", one)
    assert support[-1] == release.id
    assert step in ran.out
    assert any(line[:2] == ["x-customer:", "[acme]"] for line in lines)
    assert [named("two", two), "ready"] in lines
    assert f"release {release.id} of support: running" in ran.out
    assert any(line[:5] == ["1", "shadow", "100", "%", "running"] for line in lines)
    assert ztom("rollback", "support").status == 0
    wait_for(lambda: admin.endpoints.releases()[0].ended_at, "the release's end")
    assert "of support" not in ztom("status").out, "releases that have ended are not shown"


def test_as_json_it_is_what_the_server_answers(server, admin, ztom) -> None:
    empty = {"endpoints": [], "deployments": [], "releases": []}
    assert json.loads(ztom("status", "--json").out) == empty
    _, one = deploy(server, admin, "one")
    _, two = deploy(server, admin, "two", canary=10)
    status = json.loads(ztom("status", "--json").out)
    (endpoint,) = status["endpoints"]
    assert (endpoint["alias"], endpoint["canaryPercent"]) == ("support", 10)
    assert {deployment["digest"] for deployment in status["deployments"]} == {one, two}
    assert status["releases"] == []
    promoted = json.loads(ztom("promote", "support", "--json").out)
    assert promoted["stable"] == named("two", two)
    assert json.loads(ztom("rollback", "support", "--json").out)["stable"] == named("one", one)
