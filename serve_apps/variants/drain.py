"""A gate that requests pass while they generate, and that can be shut once all have left.

Whoever is inside may finish; whoever comes while it is shut waits and is let in afterwards. So what
happens while the gate is shut happens between two requests, never within one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Gate:
    """Open at first. For one event loop."""

    def __init__(self) -> None:
        self._inside = 0
        self._open = asyncio.Event()
        self._open.set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._closing = asyncio.Lock()

    @property
    def inside(self) -> int:
        """How many have passed and not left."""
        return self._inside

    @property
    def is_open(self) -> bool:
        """Whether one can pass without waiting."""
        return self._open.is_set()

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        """Wait until the gate is open; stay inside for the length of the block."""
        while not self._open.is_set():  # it can have been shut again before this task ran
            await self._open.wait()
        self._inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if self._inside == 0:
                self._empty.set()

    @asynccontextmanager
    async def shut(self, wait_s: float) -> AsyncIterator[None]:
        """Let nobody in for the length of the block, which begins once everybody has left.

        Raises:
            TimeoutError: They had not left within ``wait_s``; the gate is open again.
        """
        async with self._closing:
            self._open.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._empty.wait()
                yield
            finally:
                self._open.set()
