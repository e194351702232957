"""``ztom apply`` against a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from server_commands import SHORT, assert_said, write_yaml
from server_helpers import Server
from variant_folders import deploy, ready, trusted_key, variant, verdict_of, wait_for


@pytest.fixture
def wanted(server: Server) -> tuple[dict[str, Any], dict[str, str]]:
    """A file's content, with paths beside the file, and the digests that it names."""
    digests = {name: variant(server, name)[1] for name in ("one", "two", "acme")}
    spec = {name: {"path": name, "name": name} for name in digests}
    rules = [{**spec["acme"], "header": "x-customer", "value": "acme"}]
    support = {"stable": spec["one"], "candidate": {**spec["two"], "canary": 10}, "rules": rules}
    return {"endpoints": {"support": support}}, digests


@pytest.fixture
def file(server: Server, wanted: tuple[dict[str, Any], dict[str, str]]) -> Path:
    folder = Path(server.services.config.pointer_roots[0])
    return write_yaml(folder / "endpoints.yaml", wanted[0])


def test_apply_shows_the_difference_then_makes_it_once(admin, ztom, wanted, file) -> None:
    content, digests = wanted
    ran = ztom("apply", file, "--yes")
    assert (ran.status, ran.err) == (0, "")
    assert [line[0] for line in ran.out.splitlines()] == ["+", "+", "+"]
    assert all(digest[:SHORT] in ran.out for digest in digests.values())
    for digest in digests.values():
        ready(admin, digest)
    assert admin.endpoints.get("support").canary_percent == 10
    again = ztom("apply", file, "--yes")
    assert (again.status, again.out) == (0, "nothing to change\n")
    content["endpoints"]["support"]["candidate"]["canary"] = 25
    content["endpoints"]["support"]["rules"] = []
    write_yaml(file, content)
    changed = ztom("apply", file, "--yes")
    assert [line[0] for line in changed.out.splitlines()] == ["~", "-"]
    assert admin.endpoints.get("support").canary_percent == 25
    assert ztom("apply", file).out == "nothing to change\n", "nobody has to be asked for that"


def test_apply_with_nobody_to_ask_changes_nothing(admin, ztom, file) -> None:
    ran = ztom("apply", file)
    assert ran.status == 1
    assert [line[0] for line in ran.out.splitlines()] == ["+", "+", "+", "n"]
    assert ran.out.endswith("nothing was changed: say --yes to change it\n")
    assert admin.endpoints.deployments() == []


@pytest.mark.parametrize(
    ("typed", "status"), [("y\n", 0), (" Y \n", 0), ("n\n", 1), ("\n", 1), ("", 1)]
)
def test_apply_asks_whoever_is_there(admin, ztom, file, typed, status) -> None:
    ran = ztom("apply", file, typed=typed)
    assert (ran.status, ran.err) == (status, "")
    assert "change it? [y/N]" in ran.out
    assert len(admin.endpoints.deployments()) == (3 if status == 0 else 0)
    assert ran.out.endswith("nothing was changed\n") is (status == 1)


def test_apply_removes_what_the_file_does_not_name_when_told(server, admin, ztom, file) -> None:
    deploy(server, admin, "old", alias="legacy")
    assert "legacy" not in ztom("apply", file, "--yes").out
    wait_for(lambda: len(admin.endpoints.all()) == 2, "the endpoint")
    ran = ztom("apply", file, "--yes", "--prune")
    assert ran.status == 0, ran.err
    assert "- legacy" in ran.out
    assert [endpoint.alias for endpoint in admin.endpoints.all()] == ["support"]


def test_verdicts_are_beside_the_file(server, admin, ztom) -> None:
    folder, digest = variant(server, "hand", verdict=None)
    beside = folder.parent / "verdict.json"
    key = trusted_key(server.services.ledger)
    beside.write_text(json.dumps(verdict_of(digest, key=key)))
    stable = {"path": "hand", "verdict": "verdict.json"}
    file = write_yaml(folder.parent / "gated.yaml", {"endpoints": {"support": {"stable": stable}}})
    ran = ztom("apply", file, "--yes")
    assert (ran.status, ran.err) == (0, "")
    ready(admin, digest)
    assert [verdict.outcome for verdict in admin.verdicts.all(digest)] == ["pass"]
    beside.unlink()
    assert_said(ztom("apply", file, "--yes").err, r"verdict\.json cannot be read")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: .*No such file"),
        ("endpoints: [", "line 1: not usable YAML: expected"),
        ("", "is not a mapping: got NoneType"),
        ("endpoints: []", "not a file of endpoints: expected one key, endpoints"),
        ("endpoints: {}\nprune: true", "not a file of endpoints"),
        ("endpoints: {support: null}", "status 422.*support"),
        ("endpoints: {support: {stable: {path: nowhere}}}", "status 422"),
        ("endpoints: {support: {stable: {path: one, canray: 1}}}", "status 422.*canray"),
        ("endpoints: {support: {stable: {path: one, name: 2026-11-21}}}", "cannot be sent"),
    ],
)
def test_files_that_are_wrong_change_nothing(server, admin, ztom, file, text, message) -> None:
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    ran = ztom("apply", file, "--yes")
    assert (ran.status, ran.out) == (3, "")
    assert_said(ran.err, message)
    assert admin.endpoints.deployments() == []


def test_as_json_the_differences_are_one_document(admin, ztom, wanted, file) -> None:
    for arguments, status, changed in ((("--json",), 1, False), (("--json", "--yes"), 0, True)):
        ran = ztom("apply", file, *arguments)
        assert ran.status == status
        answer = json.loads(ran.out)
        assert answer["changed"] is changed
        assert [change["text"][0] for change in answer["changes"]] == ["+", "+", "+"]
        assert all(change["text"] in ran.err for change in answer["changes"])
        assert ("nothing was changed" in ran.err) is not changed
    for digest in wanted[1].values():
        ready(admin, digest)
    again = ztom("apply", file, "--json")
    assert (again.status, json.loads(again.out)) == (0, {"changes": [], "changed": False})


def test_the_installed_command_does_the_same(server, admin, ztom, file, tmp_path) -> None:
    """Once as a process of its own, which imports what it needs and nothing else is set up."""
    keys = {"ZTOM_SERVER": server.url, "ZTOM_API_KEY": admin.key}
    done = subprocess.run(
        [sys.executable, "-c", "from ztom.cli import main; main()", "apply", str(file)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **keys, "XDG_CONFIG_HOME": str(tmp_path)},
    )
    ran = ztom("apply", file)
    assert (done.returncode, done.stdout, done.stderr) == (ran.status, ran.out, ran.err)
