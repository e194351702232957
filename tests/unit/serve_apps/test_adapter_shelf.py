"""The shelf of adapters, without an engine."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from replica_calls import FakeEngine, Toy, base_of, write_four_adapters
from toy_variant import open_toy_adapters

from serve_apps.variants.adapters import AdapterShelf, NotLoadedError
from serve_apps.variants.args import BaseArgs
from ztom.errors import (
    EngineError,
)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory) -> dict[str, Toy]:
    folder = tmp_path_factory.mktemp("adapters")
    return write_four_adapters(open_toy_adapters(folder / "chain"), folder)


@pytest.fixture(scope="module")
def base_args(adapters) -> BaseArgs:
    return base_of(adapters["x"])


def test_another_name_is_a_new_face_of_what_is_loaded(adapters, base_args, run):
    engine, toy = FakeEngine(), adapters["x"]
    shelf = AdapterShelf(engine, places=1, base_digest=base_args.digest, max_rank=16)

    async def face(name: str | None) -> Any:
        async with shelf.holding(toy.digest, toy.folder, name) as face:
            return face

    async def visit() -> None:
        async with shelf.holding(toy.digest, toy.folder) as old:
            assert await face("new") == "new 1"
            assert old == "x 1", "a request that has begun keeps its name"
        assert await face(None) == "new 1"
        await shelf.forget(toy.digest)

    run(visit())
    assert engine.done == ["load x 1", "prove x 1", "remove new 1"]


def test_the_shelf_keeps_what_is_held_and_numbers_are_never_used_twice(adapters, base_args, run):
    engine = FakeEngine("load w 4")
    shelf = AdapterShelf(engine, places=2, base_digest=base_args.digest, max_rank=16)
    x, y, z, w = (adapters[name] for name in "xyzw")

    async def use(toy: Toy) -> Any:
        async with shelf.holding(toy.digest, toy.folder) as face:
            return face

    async def visit() -> None:
        async with shelf.holding(x.digest, x.folder) as held:
            assert held == "x 1"
            # two at once load it once
            assert await asyncio.gather(use(y), use(y)) == ["y 2", "y 2"]
            assert await use(z) == "z 3"  # y goes: x is held
            with pytest.raises(EngineError, match="load w 4"):
                await use(w)  # and its place is free again
            assert await use(y) == "y 5"
            forgetting = asyncio.create_task(shelf.forget(x.digest))
            await asyncio.sleep(0.05)
            assert not forgetting.done()
            async with shelf.holding(y.digest):
                waiting = asyncio.create_task(use(z))
                await asyncio.sleep(0.05)
                assert not waiting.done()  # both places are held
        await forgetting
        assert await waiting == "z 6"
        with pytest.raises(NotLoadedError):
            async with shelf.holding(x.digest):
                pass

    run(visit())
    assert engine.done.count("remove y 2") == 1
    assert "remove x 1" in engine.done
    assert shelf.loaded[-1] == z.digest
