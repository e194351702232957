"""Variants that change places in one application."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import openai
import pytest
from gateway_calls import chat, said
from server_helpers import Server
from variant_folders import (
    deploy,
    ready,
    variant,
    wait_for,
)

from ztom.client import Client
from ztom.errors import ServerError
from ztom.ledger.deployments import NewDeployment
from ztom.rollout.intent import Intent


def swapped(server: Server, admin: Client) -> tuple[tuple[Path, str], tuple[Path, str]]:
    """Folder and digest of "one", which was stable, and of "two", swapped into its engine."""
    one = deploy(server, admin, "one", options={"live_swap": True})
    folder, digest = variant(server, "two")
    admin.endpoints.deploy("support", path=folder, name="two", live=True)
    ready(admin, digest, server)
    return one, (folder, digest)


def test_live_swap_promotes_and_rolls_back_in_one_application(server, admin, ask) -> None:
    (_, one), (_, two) = swapped(server, admin)
    (app,) = server.stage.apps
    assert server.stage.current[app] == two
    assert admin.endpoints.get("support").stable == f"two@{two[:12]}"
    admin.endpoints.rollback("support")
    wait_for(lambda: server.stage.current[app] == one, "the swap back")
    assert admin.endpoints.get("support").stable == f"one@{one[:12]}"
    folder, three = variant(server, "three")
    server.stage.actor(three).fails = 10**6
    admin.endpoints.deploy("support", path=folder, name="three", live=True)
    wait_for(lambda: admin.endpoints.deployment(three).state == "failed", "the failure")
    assert admin.endpoints.get("support").stable == f"one@{one[:12]}"
    assert server.stage.current[app] == one


def test_live_swap_takes_an_application_that_holds_the_chain(server, admin) -> None:
    deploy(server, admin, "one")
    folder, _ = variant(server, "two")
    with pytest.raises(ServerError, match="live_swap"):
        admin.endpoints.deploy("support", path=folder, live=True)


def test_swap_into_is_not_for_clients(server, admin) -> None:
    folder, digest = variant(server, "one")
    with pytest.raises(ServerError, match="swap_into"):
        admin.endpoints.deploy("support", path=folder, options={"swap_into": digest})


def test_a_failed_swap_is_taken_back_everywhere(server, admin, ask) -> None:
    _, one = deploy(server, admin, "one", options={"live_swap": True})
    folder, two = variant(server, "two")
    server.stage.actor(two).hangs = True  # it swaps, and does not answer then
    admin.endpoints.deploy("support", path=folder, name="two", live=True)
    wait_for(lambda: admin.endpoints.deployment(two).state == "failed", "the failure")
    (app,) = server.stage.apps
    wait_for(lambda: server.stage.current[app] == one, "the way back")
    assert said(chat(ask)) == "I am one."


def test_the_first_variant_can_be_swapped_back_in(server, admin, ask) -> None:
    (folder, one), (two_folder, two) = swapped(server, admin)
    admin.endpoints.deploy("support", path=folder, name="one", live=True)
    ready(admin, one, server)
    (app,) = server.stage.apps
    wait_for(lambda: server.stage.current[app] == one, "the swap")
    assert admin.endpoints.get("support").stable == f"one@{one[:12]}"
    with pytest.raises(ServerError, match="another variant answers from this one's engine"):
        admin.endpoints.deploy("support", path=two_folder, canary=5)


def test_a_variant_that_was_swapped_out_takes_the_engine_from_nobody(server, admin, ask) -> None:
    (folder, _), (two_folder, two) = swapped(server, admin)
    by_rule = {"rule": {"header": "x-customer", "value": "acme"}}
    for alias, wishes in (("old", {}), ("old", {"now": True}), ("support", by_rule)):
        with pytest.raises(ServerError, match="another variant answers"):
            admin.endpoints.deploy(alias, path=folder, **wishes)
    admin.endpoints.deploy("other", path=two_folder)  # its turn is now
    ready(admin, two, server)
    with pytest.raises(ServerError, match="also answers for other"):
        admin.endpoints.rollback("support")
    assert said(chat(ask)) == said(chat(ask, "other")) == "I am two."


def test_a_wish_that_comes_too_late_leaves_the_engine_as_it_is(server, admin, ask) -> None:
    """It was sound when it was asked for; the deployment goes on without it."""
    (folder, one), (two_folder, two) = swapped(server, admin)
    deployments = server.services.ledger.endpoints.deployments
    there = deployments.get(one)
    late = NewDeployment(
        digest=one,
        name=there.name,
        address=str(folder),
        options=there.options,
        intent=Intent(alias="old", now=True),
    )
    deployments.deploy(late, actor="somebody")
    wait_for(lambda: "also answers for support" in str(deployments.get(one).reason), "the refusal")
    assert (deployments.get(one).state, deployments.get(one).intent) == ("ready", None)
    assert said(chat(ask)) == "I am two."
    assert "old" not in server.services.gateway.table.routes


def test_a_swap_is_not_undone_while_it_is_under_way(server, admin) -> None:
    """Until it is proved, the table still wants the old version."""
    _, one = deploy(server, admin, "one", options={"live_swap": True})
    folder, two = variant(server, "two")
    prove = server.stage.prove

    def slowly(spec: Any, proved: str, *rest: Any, **more: Any) -> None:
        time.sleep(0.5 if proved == two else 0)  # ten looks of the controller
        prove(spec, proved, *rest, **more)

    server.stage.prove = slowly
    admin.endpoints.deploy("support", path=folder, name="two", live=True)
    ready(admin, two, server)
    swaps = [line for line in server.stage.log if line.startswith("swap")]
    assert swaps == [f"swap {two[:4]}"], one


def test_a_swap_that_failed_makes_no_swap_of_what_comes_next(server, admin, ask) -> None:
    _, one = deploy(server, admin, "one", options={"live_swap": True})
    folder, two = variant(server, "two")
    server.stage.actor(two).fails = 10**6
    admin.endpoints.deploy("support", path=folder, name="two", live=True)
    wait_for(lambda: admin.endpoints.deployment(two).state == "failed", "the failure")
    server.stage.actor(two).fails = 0
    admin.endpoints.deploy("support", path=folder, name="two", canary=0)
    ready(admin, two, server)
    placements = server.services.gateway.table.placements
    assert placements[two].app != placements[one].app
    assert server.stage.current[placements[one].app] == one
    assert said(chat(ask)) == "I am one."


def test_who_was_sent_to_a_version_that_left_does_not_wait_for_it(server, admin, ask) -> None:
    (_, one), (_, two) = swapped(server, admin)
    asked = len(server.stage.actor(one).calls)
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError):
            chat(ask, f"one@{one[:12]}", stream=stream)
    assert len(server.stage.actor(one).calls) <= asked + 3  # the stage counts a stream twice


def test_pinned_to_a_version_that_was_swapped_out_is_refused(server, admin, ask) -> None:
    (_, one), (_, two) = swapped(server, admin)
    with pytest.raises(openai.InternalServerError) as refused:
        chat(ask, f"one@{one[:12]}")
    assert refused.value.status_code == 503
