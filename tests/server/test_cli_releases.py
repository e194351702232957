"""``ztom release list``, ``watch`` and ``tell`` against a real server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import httpx
import pytest
from server_commands import SHORT, STANDS_STILL, assert_said, named, soon
from variant_folders import deploy, wait_for

from ztom.client.connection import Connection


def test_releases_are_listed_newest_first(server, admin, ztom, releasing) -> None:
    release, _, two = releasing()
    assert ztom("rollback", "support").status == 0
    wait_for(lambda: admin.endpoints.releases()[0].ended_at, "the release's end")
    _, three = deploy(server, admin, "three", plan=STANDS_STILL)
    (other, _) = admin.endpoints.releases()
    ran = ztom("release", "list")
    head, first, second = (line.split() for line in ran.out.splitlines())
    assert head == ["release", "endpoint", "candidate", "status", "began", "reason"]
    assert first[:4] == [other.id, "support", three[:SHORT], "running"]
    assert second[:4] == [release.id, "support", two[:SHORT], "rolled_back"]
    assert ztom("release", "list", "support").out == ran.out
    assert len(ztom("release", "list", "other").out.splitlines()) == 1


def test_watch_ends_well_with_a_promotion(admin, ztom, releasing) -> None:
    release, _, two = releasing()
    thread = soon(lambda: admin.endpoints.command(release.id, "promote"))
    ran = ztom("release", "watch", release.id)
    thread.join()
    assert (ran.status, ran.err) == (0, "")
    first, *_, last = ran.out.splitlines()
    assert first == "running, step 1"
    assert last.startswith("promoted, step 1: ")
    assert admin.endpoints.get("support").stable == named("two", two)
    assert ztom("release", "watch", release.id).out == f"{last}\n", "it has ended"


def test_watch_ends_badly_with_a_rollback(admin, ztom, releasing) -> None:
    release, one, _ = releasing()
    thread = soon(lambda: admin.endpoints.command(release.id, "rollback"))
    ran = ztom("release", "watch", "support")
    thread.join()
    assert (ran.status, ran.err) == (1, "")
    assert ran.out.splitlines()[-1].startswith("rolled_back, step 1: ")
    assert admin.endpoints.get("support").stable == named("one", one)


def test_a_release_that_is_held_is_watched_on_and_can_be_told(admin, ztom, releasing) -> None:
    release, _, _ = releasing(max_seconds=0.5)

    def resume_and_abort() -> None:
        for command in ("resume", "abort"):
            wait_for(lambda: admin.endpoints.release(release.id).status == "held", "the hold")
            time.sleep(2)  # whoever watches looks now and then, and is to see it
            admin.endpoints.command(release.id, command)
            wait_for(lambda: admin.endpoints.release(release.id).command is None, "the command")

    thread = soon(resume_and_abort)
    ran = ztom("release", "watch", "support")
    thread.join()
    assert ran.status == 1
    said = [line.partition(",")[0] for line in ran.out.splitlines()]
    assert "held" in said
    assert said[-1] == "aborted"


def test_on_a_terminal_the_steps_are_shown(admin, ztom, releasing, monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    release, _, _ = releasing()
    thread = soon(lambda: admin.endpoints.command(release.id, "promote"))
    ran = ztom("release", "watch", "support")
    thread.join()
    assert ran.status == 0
    assert f"release {release.id} of support: promoted" in ran.out
    assert "2 canary 50 %" in ran.out


def test_watch_outlives_a_connection(admin, ztom, releasing, monkeypatch) -> None:
    """A server that is restarted cuts the line, or ends the stream without the release's end."""
    release, _, _ = releasing()
    cut_twice(monkeypatch, lambda: admin.endpoints.command(release.id, "promote"))
    ran = ztom("release", "watch", "support")
    assert (ran.status, ran.err) == (0, "")
    first, *_, last = ran.out.splitlines()
    assert (first, last.partition(",")[0]) == ("running, step 1", "promoted")
    assert ran.out.count(f"{first}\n") == 1, "what is as it was is not said again"


def test_from_python_a_watch_outlives_a_connection_as_well(admin, releasing, monkeypatch) -> None:
    release, _, two = releasing()
    cut_twice(monkeypatch, lambda: admin.endpoints.command(release.id, "promote"))
    looks = list(admin.endpoints.watch(release.id))
    assert (looks[0].status, looks[-1].status) == ("running", "promoted")
    assert all(one != other for one, other in pairwise(looks)), "nothing is given twice"
    assert admin.endpoints.get("support").stable == named("two", two)


def cut_twice(monkeypatch: pytest.MonkeyPatch, then: Callable[[], object]) -> None:
    """Lose the first two connections to events after their first event, then do something."""
    whole, calls = Connection._events, []

    def broken(self: Connection, address: str) -> Iterator[tuple[str, Any]]:
        calls.append(address)
        events = whole(self, address)
        if len(calls) > 2:
            yield from events
            return
        yield next(events)
        if len(calls) == 1:
            raise httpx.ReadError("cut")
        then()

    monkeypatch.setattr(Connection, "_events", broken)


@pytest.mark.parametrize("says_something", [False, True])
def test_watch_gives_up_on_a_server_that_stays_away(
    ztom, releasing, monkeypatch, says_something
) -> None:
    release, *_ = releasing()

    def away(self: Connection, address: str) -> Iterator[tuple[str, Any]]:
        if says_something:
            yield "release", json.loads(release.to_json())
        raise httpx.ConnectError("nobody")

    monkeypatch.setattr(Connection, "_events", away)
    monkeypatch.setattr("ztom.client.connection._RECONNECTS", 2)
    ran = ztom("release", "watch", "support")
    assert (ran.status, len(ran.out.splitlines())) == (3, int(says_something))
    assert_said(ran.err, "ServerError: .*release")


def test_there_has_to_be_a_release_to_watch(server, admin, ztom) -> None:
    deploy(server, admin, "one")
    for name in ("support", "0" * 8):
        ran = ztom("release", "watch", name)
        assert (ran.status, ran.out) == (3, "")
        assert ran.err == f"ConfigError: there is no such release: got {name}\n"


def test_a_release_is_told_what_to_do(admin, ztom, releasing) -> None:
    release, _, two = releasing()
    assert ztom("release", "tell", release.id, "promote").out == "running\n"
    assert ztom("release", "watch", release.id).status == 0
    assert admin.endpoints.get("support").stable == named("two", two)
    late = ztom("release", "tell", release.id, "rollback")
    assert (late.status, late.out) == (3, "")
    assert_said(late.err, "status 409: got the release has ended")


@pytest.mark.parametrize(
    ("release", "command"), [(None, "stop"), ("0" * 8, "promote"), ("x", "promote"), (None, "../x")]
)
def test_a_release_is_told_nothing_unheard_of(admin, ztom, releasing, release, command) -> None:
    found, _, _ = releasing()
    ran = ztom("release", "tell", release or found.id, command)
    assert (ran.status, ran.out) == (3, "")
    assert admin.endpoints.release(found.id).command is None


def test_as_json_releases_are_what_the_server_answers(admin, ztom, releasing) -> None:
    release, _, two = releasing()
    (listed,) = json.loads(ztom("release", "list", "--json").out)
    assert listed["candidate"] == two
    answer = json.loads(ztom("release", "tell", listed["id"], "promote", "--json").out)
    assert (answer["id"], answer["status"]) == (listed["id"], "running")
    watched = ztom("release", "watch", listed["id"], "--json")
    assert (watched.status, watched.err) == (0, "")
    looks = [json.loads(line) for line in watched.out.splitlines()]
    assert {look["id"] for look in looks} == {listed["id"]}
    assert looks[-1]["status"] == "promoted"
