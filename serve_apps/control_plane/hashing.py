"""Passwords are hashed by a few threads of their own, which give way to all other work.

A hash costs a tenth of a second of every core and 64 MiB, on purpose. Who sends many passwords
fills this queue and no other.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from starlette.exceptions import HTTPException

from serve_apps.control_plane.errors import BUSY

_THREADS, _MOST_WAITING = 2, 32
#: Of -20 to 19, the most polite last.
_NICENESS = 10

_Result = TypeVar("_Result")


class Hashing:
    """Runs functions that hash, a few at a time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(
            _THREADS, thread_name_prefix="passwords", initializer=_give_way
        )
        self._under_way = 0

    async def run(self, function: Callable[..., _Result], /, *args: object) -> _Result:
        """What the function returns.

        Raises:
            HTTPException: 503, too many others wait.
        """
        if self._under_way >= _THREADS + _MOST_WAITING:
            raise HTTPException(503, "Too many passwords are being checked.", headers=BUSY)
        self._under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)
        finally:
            self._under_way -= 1

    def close(self) -> None:
        """Start no more of them."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _give_way() -> None:
    """Let every other thread of the machine go first; on Linux a thread has its own priority."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
