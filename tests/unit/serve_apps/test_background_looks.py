"""How often the server looks at its ledger by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from serve_apps.server import background
from serve_apps.server.background import again_and_again

EVERY_S = 0.001


class Looks:
    """A work that counts its looks, and a ledger beside it."""

    def __init__(self) -> None:
        self.count = 0
        self.revision = "1"
        self.is_busy = False
        self.fails = False

    async def look(self) -> bool:
        self.count += 1
        if self.fails:
            raise OSError("the disk")
        return self.is_busy

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(EVERY_S)


def while_looking(looks: Looks, check: Callable[[], object]) -> None:
    async def run() -> None:
        async with again_and_again([looks.look], lambda: looks.revision, every_s=EVERY_S):
            await looks.until(lambda: looks.count > 0)
            await check()  # type: ignore[misc]

    asyncio.run(run())


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "QUIET_S", 3600.0)


def test_what_has_nothing_in_hand_waits_for_somebody_to_write() -> None:
    looks = Looks()

    async def check() -> None:
        await asyncio.sleep(50 * EVERY_S)
        assert looks.count == 1
        looks.revision = "2"
        await looks.until(lambda: looks.count == 2)

    while_looking(looks, check)


@pytest.mark.parametrize("state", ["is_busy", "fails"])
def test_what_has_something_in_hand_or_failed_goes_on(state: str) -> None:
    looks = Looks()
    setattr(looks, state, True)

    async def check() -> None:
        await looks.until(lambda: looks.count > 3)

    while_looking(looks, check)


def test_what_is_not_in_the_ledger_is_looked_at_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background, "QUIET_S", 0.01)
    looks = Looks()

    async def check() -> None:
        await looks.until(lambda: looks.count > 3)

    while_looking(looks, check)
