"""A live swap step by step, and the door that is shut meanwhile, without an engine."""

from __future__ import annotations

import asyncio

import pytest
from replica_calls import FakeEngine, Toy, write_pair
from toy_variant import (
    open_toy_chain,
    with_recipe,
    write_blend,
)

from serve_apps.variants.drain import Gate
from serve_apps.variants.swap import LiveSwap, read_blended
from ztom.blending.group_assignment import group_chain
from ztom.blending.groups import FactorGroups
from ztom.errors import (
    BlendError,
    EngineError,
)
from ztom.variants.recipe import read_recipe


@pytest.fixture(scope="module")
def variants(tmp_path_factory) -> dict[str, Toy]:
    folder = tmp_path_factory.mktemp("variants")
    return write_pair(open_toy_chain(folder / "chain"), folder)


def test_no_chain_is_held_that_is_gone(variants, tmp_path, run):
    members = read_blended(variants["a"].folder, None).recipe.members
    moved = tuple(m.model_copy(update={"reference": str(tmp_path / m.tag)}) for m in members)
    blended = read_blended(with_recipe(variants["a"].folder, tmp_path / "a", members=moved), None)
    with pytest.raises(OSError, match="no checkpoint folder"):
        run(LiveSwap.prepare(FakeEngine(), Gate(), blended, "old"))


@pytest.mark.parametrize(
    ("fails", "broken", "does"),
    [
        (("blend",), False, ["blend", "restore", "forget", "prove old"]),
        (
            ("prove b",),
            False,
            ["blend", "forget", "prove b", "restore", "forget", "prove old"],
        ),
        (("blend", "restore"), True, ["blend", "restore"]),
        (("blend", "prove old"), True, ["blend", "restore", "forget", "prove old"]),
    ],
)
def test_the_way_back(variants, run, fails, broken, does):
    engine, gate = FakeEngine(*fails), Gate()
    swap = LiveSwap(engine, gate, read_blended(variants["a"].folder, None), "old")
    with pytest.raises((BlendError, EngineError)):
        run(swap.to(variants["b"].folder, None, 1))
    assert engine.done == does
    assert swap.face == "old"
    assert bool(swap.broken) == broken
    assert gate.is_open
    if broken:
        with pytest.raises(EngineError, match="no usable weights"):
            run(swap.to(variants["b"].folder, None, 1))


def test_a_swap_hands_on_the_groups_of_both_variants(variants, run, tmp_path):
    asked = []

    class Recording(FakeEngine):
        async def blend(self, factors, *, instead):
            asked.append((factors, instead))

    chain = group_chain(open_toy_chain(tmp_path / "chain"), FactorGroups(layers=2))
    factors = tuple(0.1 * at for at in range(chain.factor_count))
    grouped = write_blend(chain, factors, tmp_path / "grouped")
    swap = LiveSwap(Recording(), Gate(), read_blended(variants["a"].folder, None), "old")
    run(swap.to(grouped, None, 1))
    (new, old), *_ = asked
    assert (new.factors, old.factors) == (factors, read_recipe(variants["a"].folder).factors)
    assert new.groups == chain.groups.record()
    assert old.groups is None


def test_the_gate(run):
    async def through() -> list[str]:
        gate, seen = Gate(), []

        async def visit(name: str, stay_s: float) -> None:
            async with gate.passing():
                seen.append(f"in {name}")
                await asyncio.sleep(stay_s)
                seen.append(f"out {name}")

        first = asyncio.create_task(visit("1", 0.05))
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            async with gate.shut(0.001):
                pytest.fail("somebody was inside")
        assert gate.is_open
        async with gate.shut(1):
            seen.append("shut")
            second = asyncio.create_task(visit("2", 0))
            await asyncio.sleep(0.01)
            seen.append("open")
        await asyncio.gather(first, second)
        return seen

    assert run(through()) == ["in 1", "out 1", "shut", "open", "in 2", "out 2"]
