"""Calls of our own functions in processes that may be killed: parsers of what strangers send.

A parser that is given a bomb takes gigabytes, or holds the interpreter's lock for seconds, and
every other request of the process waits. Here it runs in a process of its own, with a limit on
memory and one on computing time for each call; the processes stay, so that a usual call costs a
fraction of a millisecond. Only functions of this package are called, and values are those of
``marshal``: None, booleans, numbers, texts, bytes, lists, tuples and dicts of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import marshal
import os
import select
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ztom.errors
from ztom.errors import ZtomError

_WORKER = Path(__file__).with_name("bounded_worker.py")
_LARGEST_REPLY = 512 * 2**20
#: A process that was given or gave more than this is not kept: it would keep the memory too.
_KEPT_BYTES = 16 * 2**20
#: What a process may see of our environment.
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "LD_LIBRARY_PATH", "TMPDIR")


class OverLimitError(Exception):
    """A call did not keep within its limits, or failed with an error that is not ours.

    The text says why, as the end of a sentence.
    """


class BoundedPool:
    """Processes that answer calls, started when they are needed. Safe to use from several threads.

    Args:
        processes: Largest number of processes; further calls wait for one.
        memory_bytes: Address space of each process.
    """

    def __init__(self, *, processes: int, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._free = threading.BoundedSemaphore(processes)
        self._threads = ThreadPoolExecutor(processes, thread_name_prefix="bounded")
        self._idle: list[_Process] = []
        self._owner = os.getpid()
        self._lock = threading.Lock()

    def call(self, task: str, *arguments: object, cpu_s: float, wall_s: float = 120.0) -> Any:
        """Call a function in one of the processes.

        Args:
            task: Name of the function, ``package.module:function``.
            arguments: Arguments of the function, values of ``marshal``.
            cpu_s: Seconds of computing that it may take.
            wall_s: Seconds after which it is given up, whatever it waits for.

        Returns:
            The function's result.

        Raises:
            OverLimitError: It needed more time or memory than it may have, or failed.
            ZtomError: What the function raised.
        """
        with self._free:
            process = self._taken()
            try:
                result, nbytes = process.call((task, arguments, cpu_s), wall_s=wall_s)
            except ZtomError:
                self._give_back(process)
                raise
            except BaseException:  # an interrupted call leaves half a message behind
                process.close()
                raise
            if nbytes > _KEPT_BYTES:
                process.close()
            else:
                self._give_back(process)
            return result

    async def call_async(self, task: str, *arguments: object, cpu_s: float) -> Any:
        """`call`, without holding the event loop up."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._threads, lambda: self.call(task, *arguments, cpu_s=cpu_s)
        )

    def close(self) -> None:
        """End the processes that are idle; a later call starts new ones."""
        with self._lock:
            idle, self._idle = self._idle, []
        for process in idle:
            process.close()

    def _taken(self) -> _Process:
        with self._lock:
            if self._owner != os.getpid():  # a copy of the process that the others answer
                self._owner, self._idle = os.getpid(), []
            if self._idle:
                return self._idle.pop()
        return _Process(self._memory_bytes)

    def _give_back(self, process: _Process) -> None:
        with self._lock:
            self._idle.append(process)


class _Process:
    """One process that answers one call after the other."""

    def __init__(self, memory_bytes: int) -> None:
        # -P: the script's folder, with modules of ours, is not on its import path.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_WORKER), str(memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._to, False)

    def call(self, request: tuple[Any, ...], *, wall_s: float) -> tuple[Any, int]:
        """The result, and how many bytes went back and forth."""
        end = time.monotonic() + wall_s
        body = marshal.dumps(request)
        self._send(len(body).to_bytes(8, "big") + body, end)
        length = int.from_bytes(self._receive(8, end), "big")
        if length > _LARGEST_REPLY:
            raise OverLimitError("its result is too large")
        kind, *values = marshal.loads(self._receive(length, end))
        if kind == "ours":
            name, parts = values
            raise getattr(ztom.errors, name)._from_parts(*parts)
        if kind == "memory":
            raise OverLimitError("it needed more memory than it may have")
        if kind == "raised":
            raise OverLimitError(values[0])
        return values[0], len(body) + length

    def close(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _send(self, data: bytes, end: float) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._to, view) :]
            except BlockingIOError:
                self._wait(self._to, select.POLLOUT, end)
            except BrokenPipeError:
                raise self._ended() from None

    def _receive(self, count: int, end: float) -> bytes:
        data = bytearray()
        while len(data) < count:
            self._wait(self._from, select.POLLIN, end)
            block = os.read(self._from, min(count - len(data), 2**20))
            if not block:
                raise self._ended()
            data += block
        return bytes(data)

    def _wait(self, descriptor: int, event: int, end: float) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
            raise OverLimitError("it was not done before its deadline")

    def _ended(self) -> OverLimitError:
        code = self._process.wait()
        if code == -signal.SIGPROF:
            return OverLimitError("it needed more computing than it may have")
        return OverLimitError(
            f"its process died ({signal.Signals(-code).name if code < 0 else code})"
        )
