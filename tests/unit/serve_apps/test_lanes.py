"""Variants start and are proved side by side, and get their traffic one after the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from controlled import Controlled

from serve_apps.controller.lanes import ThreadLanes
from serve_apps.endpoints.specs import AppSpec
from ztom.ledger import Ledger
from ztom.ledger.deployments import DeploymentState


def wait_for(condition: Callable[[], bool], within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.005)


def test_the_last_of_many_does_not_wait_for_one_that_hangs(tmp_path: Path) -> None:
    """It waited for every one before it: a proof that hangs takes two minutes a round."""
    lanes, let_go = ThreadLanes(), threading.Event()
    inside, most = [0], [0]
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        controlled = Controlled(ledger, tmp_path, lanes)
        digests = [controlled.write(f"v{number}") for number in range(12)]
        prove, stuck, proved = controlled.stage.prove, digests[0], list[str]()
        change = ledger.endpoints.change_routing

        def prove_or_hang(spec: AppSpec, digest: str, *who: Any, **options: Any) -> None:
            proved.append(digest)
            if digest == stuck:
                let_go.wait(60)
            prove(spec, digest, *who, **options)

        def change_alone(*arguments: Any, **options: Any) -> int:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            try:
                return change(*arguments, **options)
            finally:
                inside[0] -= 1

        def states() -> list[DeploymentState]:
            controlled.look()
            return [ledger.endpoints.deployments.get(digest).state for digest in digests]

        controlled.stage.prove = prove_or_hang  # type: ignore[method-assign]
        with patch.object(ledger.endpoints, "change_routing", change_alone):
            for number, digest in enumerate(digests):
                controlled.want(f"v{number}", digest, f"alias-{number}", now=True)
            wait_for(lambda: states()[1:] == [DeploymentState.READY] * 11)
            assert states()[0] is DeploymentState.STARTING
            assert proved.count(stuck) == 1, "what is under way is not begun again"
            let_go.set()
            wait_for(lambda: states()[0] is DeploymentState.READY)
        starts = [line for line in controlled.stage.log if line.startswith("start ")]
        assert len(starts) == len(set(starts)) == 12
        assert most[0] == 1
        lanes.close()


def test_what_fails_in_a_lane_is_logged_and_the_lane_is_free(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lanes, hold = ThreadLanes(at_once=1), threading.Event()
    lanes.run("admit a", lambda: hold.wait(30) and None or 1 / 0)  # type: ignore[arg-type]
    lanes.run("admit a", lambda: pytest.fail("it is under way"))
    assert lanes.busy() == {"admit a"}
    hold.set()
    wait_for(lambda: not lanes.busy())
    assert "admit a: ZeroDivisionError" in caplog.text
    done = threading.Event()
    lanes.run("admit a", done.set)
    assert done.wait(30)
    lanes.close()
