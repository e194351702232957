"""A worker that goes: drained, waited for, and what is said where that does not come to an end."""

from __future__ import annotations

import httpx
import pytest

from cluster.drain import drain
from cluster.health import main, wait_for_health
from ztom.errors import EngineError, EngineTimeoutError


class Clock:
    """Time that passes while one sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Three:
    """A head and two workers; a drained one goes after a while."""

    def __init__(self, clock: Clock, *, takes_s: float, refuses: str = "") -> None:
        self.clock, self.takes_s, self.refuses = clock, takes_s, refuses
        self.drained: dict[str, float] = {}

    def living(self) -> dict[str, str]:
        nodes = {"head": "10.0.0.1", "a": "10.0.0.2", "b": "10.0.0.3"}
        gone = {name for name, at in self.drained.items() if self.clock.now >= at + self.takes_s}
        return {name: address for name, address in nodes.items() if name not in gone}

    def drain(self, node_id: str, *, within_s: float) -> None:
        if self.refuses:
            raise EngineError("the node is not drained", reason=self.refuses)
        self.drained[node_id] = self.clock.now


@pytest.mark.parametrize(("takes_s", "gone", "until"), [(8, True, 8), (100, False, 60)])
def test_a_node_is_drained_alone_and_waited_for(takes_s: float, gone: bool, until: float) -> None:
    clock = Clock()
    nodes = Three(clock, takes_s=takes_s)
    assert drain(nodes, "10.0.0.2", within_s=60, clock=clock, sleep=clock.sleep) is gone
    assert list(nodes.drained) == ["a"]
    assert clock.now == pytest.approx(until, abs=1)


def test_what_cannot_be_drained_says_why() -> None:
    clock = Clock()
    with pytest.raises(EngineError, match=r"no node to drain.*10\.0\.0\.9"):
        drain(Three(clock, takes_s=1), "10.0.0.9", within_s=1, clock=clock, sleep=clock.sleep)
    nodes = Three(clock, takes_s=1, refuses="it is the head")
    with pytest.raises(EngineError, match="it is the head"):
        drain(nodes, "10.0.0.2", within_s=1, clock=clock, sleep=clock.sleep)


def answers(*responses: httpx.Response) -> httpx.MockTransport:
    left = list(responses)
    return httpx.MockTransport(lambda _: left.pop(0) if len(left) > 1 else left[0])


def test_a_server_is_waited_for() -> None:
    clock = Clock()
    up = httpx.Response(200, json={"status": "ok", "version": "0.1.0"})
    transport = answers(httpx.Response(503), httpx.Response(503), up)
    running = wait_for_health(
        "http://ztom:8000/", within_s=9, transport=transport, clock=clock, sleep=clock.sleep
    )
    assert (running, clock.now) == ("0.1.0", 2)


def test_a_server_of_another_version_is_not_the_one() -> None:
    clock = Clock()
    transport = answers(httpx.Response(200, json={"status": "ok", "version": "0.0.9"}))
    with pytest.raises(EngineTimeoutError, match=r"0\.0\.9.*version 0\.1\.0"):
        wait_for_health(
            "http://ztom:8000",
            within_s=3,
            version="0.1.0",
            transport=transport,
            clock=clock,
            sleep=clock.sleep,
        )


def test_nobody_there_is_an_exit_status(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: httpx.Client, url: str) -> httpx.Response:
        raise httpx.ConnectError("refused")

    monkeypatch.setattr(httpx.Client, "get", refused)
    monkeypatch.setattr("cluster.health._EVERY_S", 0.01)
    assert main(["http://127.0.0.1:9", "--within", "0.02"]) == 1
    assert "the server is not up" in capsys.readouterr().err
