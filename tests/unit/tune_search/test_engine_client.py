"""A client of an engine actor whose process Ray takes its time to start again."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

from tune_search import engine_client
from tune_search.engine_actor import NewProcessError
from tune_search.engine_client import EngineClient
from ztom.errors import EngineError, EngineTimeoutError

AWAY = ActorUnavailableError("the actor is restarting", None)
GONE = ActorDiedError()


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Callable[..., EngineClient]:
    """A client whose calls get these answers, in turn; the last one again and again."""

    def make(
        *, ready: list[Any], start: list[Any], evaluate: list[Any], start_deadline_s: float = 60
    ) -> EngineClient:
        answers = {"ready": ready, "start": start, "evaluate": evaluate}

        def get(call: str, timeout: float) -> Any:
            mine = answers[call]
            answer = mine.pop(0) if len(mine) > 1 else mine[0]
            if isinstance(answer, Exception):
                raise answer
            return answer

        def method(name: str) -> SimpleNamespace:
            return SimpleNamespace(remote=lambda *_: name)

        monkeypatch.setattr(engine_client.ray, "get", get)
        monkeypatch.setattr(engine_client, "_LOOK_S", 0.001)
        actor = SimpleNamespace(
            __ray_ready__=method("ready"), start=method("start"), evaluate=method("evaluate")
        )
        return EngineClient(actor, None, None, deadline_s=60, start_deadline_s=start_deadline_s)

    return make


def test_a_process_that_is_long_in_coming_back_costs_no_trial(client) -> None:
    engine = client(ready=[AWAY] * 50 + [True], start=[AWAY, "info"], evaluate=[AWAY, "answers"])
    assert engine.answer((), {}) == "answers"


def test_an_engine_that_kills_its_process_is_made_three_times(client) -> None:
    start: list[Any] = [AWAY, AWAY, AWAY, "info"]
    engine = client(ready=[True], start=start, evaluate=["answers"])
    with pytest.raises(EngineError, match="process died"):
        engine.start()
    assert start == ["info"]


def test_a_process_that_lived_a_little_longer_is_no_engine(client) -> None:
    """Ray kills at its leisure: the call after the new start may meet a newer process still."""
    new = NewProcessError("the engine's process is a new one")
    engine = client(ready=[True], start=["info"], evaluate=[AWAY, new, "answers"])
    assert engine.answer((), {}) == "answers"


def test_a_process_that_never_comes_back_ends_the_wait(client) -> None:
    engine = client(ready=[AWAY], start=[AWAY], evaluate=[AWAY], start_deadline_s=0.05)
    with pytest.raises(EngineTimeoutError, match=r"did not start in time"):
        engine.answer((), {})
    dead = client(ready=[GONE], start=[GONE], evaluate=[GONE])
    with pytest.raises(EngineError, match="process died"):
        dead.answer((), {})
