"""Engines that stay loaded: how often one is loaded, who makes way, what happens to dead ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from serve_apps.control_plane.engine_keeper import EngineGoneError, EngineKeeper, KeeperLimits
from serve_apps.control_plane.questions import EngineSpec
from serve_apps.control_plane.work import ChainSpec
from ztom.errors import CapabilityError, ChainError, EngineError, EngineTimeoutError


class Process:
    """A process that does what its question is: a value, an error to raise, or a coroutine."""

    def __init__(self, spec: EngineSpec) -> None:
        self.spec, self.killed, self.busy = spec, False, 0
        self.on_start: BaseException | None = None

    async def start(self) -> None:
        if self.on_start is not None:
            raise self.on_start

    async def ask(self, question: Any) -> Any:
        self.busy += 1
        assert self.busy == 1, "one question at a time"
        try:
            if isinstance(question, BaseException):
                raise question
            return await question() if callable(question) else question
        finally:
            self.busy -= 1

    def kill(self) -> None:
        self.killed = True


class Bench:
    """A keeper whose processes are all at hand."""

    def __init__(self, **limits: Any) -> None:
        self.processes: list[Process] = []
        self.failures: list[BaseException] = []
        self.keeper = EngineKeeper(self.launch, KeeperLimits(**limits))

    def launch(self, spec: EngineSpec) -> Process:
        process = Process(spec)
        if self.failures:
            process.on_start = self.failures.pop(0)
        self.processes.append(process)
        return process

    async def ask(self, name: str, question: Any = "yes") -> Any:
        return await self.keeper.ask(spec(name), question)

    @property
    def alive(self) -> list[str]:
        return [p.spec.chain.references[0] for p in self.processes if not p.killed]


def spec(name: str, *marks: str) -> EngineSpec:
    return EngineSpec(ChainSpec((name,), ()), {"name": "torch"}, marks)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 10))


def test_a_second_question_loads_nothing() -> None:
    async def test() -> None:
        bench = Bench()
        assert [await bench.ask("a") for _ in range(3)] == ["yes"] * 3
        assert (bench.keeper.starts, bench.alive) == (1, ["a"])

    run(test)


def test_other_content_at_the_same_place_is_another_model() -> None:
    assert spec("a").key == spec("a").key
    assert spec("a").key != spec("a", "modified at 12:01").key


def test_the_one_that_was_idle_the_longest_makes_way() -> None:
    async def test() -> None:
        bench = Bench(most=2)
        for name in ("a", "b", "a", "c"):
            await bench.ask(name)
        assert bench.alive == ["a", "c"]

    run(test)


def test_who_answers_is_waited_for_not_driven_out() -> None:
    async def test() -> None:
        bench, gate = Bench(most=1), asyncio.Event()
        long = asyncio.create_task(bench.ask("a", gate.wait))
        await asyncio.sleep(0)
        other = asyncio.create_task(bench.ask("b"))
        await asyncio.sleep(0.01)
        assert bench.alive == ["a"]
        gate.set()
        assert (await long, await other) == (True, "yes")
        assert bench.alive == ["b"]

    run(test)


def test_callers_of_one_model_take_turns() -> None:
    async def test() -> None:
        bench = Bench()

        async def slow() -> str:
            await asyncio.sleep(0.01)
            return "slow"

        assert await asyncio.gather(*(bench.ask("a", slow) for _ in range(4))) == ["slow"] * 4
        assert bench.keeper.starts == 1

    run(test)


def test_one_that_died_is_loaded_again_once() -> None:
    async def test() -> None:
        bench, deaths = Bench(), [1]

        async def dies_once() -> str:
            if deaths:
                deaths.pop()
                raise EngineGoneError("killed")
            return "again"

        assert await bench.ask("a", dies_once) == "again"
        assert bench.keeper.starts == 2
        with pytest.raises(EngineError, match="died twice"):
            await bench.ask("a", EngineGoneError("killed"))
        assert bench.alive == []
        assert await bench.ask("a") == "yes"

    run(test)


def test_one_that_is_stuck_is_killed() -> None:
    async def test() -> None:
        bench = Bench(answer_s=0.05)
        with pytest.raises(EngineTimeoutError, match=r"within 0\.05 s"):
            await bench.ask("a", asyncio.Event().wait)
        assert bench.alive == []
        assert await bench.ask("a") == "yes"

    run(test)


def test_a_question_that_makes_no_sense_costs_no_engine() -> None:
    async def test() -> None:
        bench = Bench()
        with pytest.raises(CapabilityError):
            await bench.ask("a", CapabilityError("no texts"))
        with pytest.raises(ValueError, match="malformed"):
            await bench.ask("a", ChainError("malformed"))
        await bench.ask("a")
        assert bench.keeper.starts == 1
        with pytest.raises(EngineError):
            await bench.ask("a", EngineError("broken"))
        assert bench.alive == []

    run(test)


def test_a_model_that_cannot_be_loaded_leaves_no_place_taken() -> None:
    async def test() -> None:
        bench = Bench(most=1)
        bench.failures = [ChainError("does not fit")]
        with pytest.raises(ChainError):
            await bench.ask("a")
        assert bench.alive == []
        assert await bench.ask("b") == "yes"

    run(test)


def test_whoever_gave_up_leaves_nothing_behind() -> None:
    async def test() -> None:
        bench = Bench()
        asking = asyncio.create_task(bench.ask("a", asyncio.Event().wait))
        waiting = asyncio.create_task(bench.ask("a"))
        await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await waiting == "yes"  # on a process of its own: the other's was busy
        assert bench.keeper.starts == 2

    run(test)


def test_room_is_made_at_once_or_after_the_answer() -> None:
    async def test() -> None:
        bench, gate = Bench(most=2), asyncio.Event()
        await bench.ask("idle")
        long = asyncio.create_task(bench.ask("busy", gate.wait))
        await asyncio.sleep(0.01)
        await bench.keeper.make_room()
        assert bench.alive == ["busy"]
        gate.set()
        await long
        assert bench.alive == []

    run(test)


def test_an_idle_one_goes_after_a_while() -> None:
    async def test() -> None:
        bench = Bench(idle_s=100.0)
        await bench.ask("a")
        await bench.keeper.tidy()
        assert bench.alive == ["a"]
        await bench.keeper.tidy(now=asyncio.get_running_loop().time() + 1e6)
        assert bench.alive == []

    run(test)
