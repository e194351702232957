"""What runs in the processes of `ztom.io.bounded`. Started as a script; imports what it is told.

Requests and replies are of ``marshal``, with a length of eight bytes before each, on standard input
and output. The computing time of a call is the kernel's to watch: its timer ends the process, in
the middle of whatever it is in.
"""

from __future__ import annotations

import importlib
import marshal
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_HEAD = 8


def main(memory_bytes: int) -> None:
    """Answer calls until there are no more."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    tasks: dict[str, Callable[..., Any]] = {}
    while head := _read(_HEAD):
        task, arguments, cpu_s = marshal.loads(_read(int.from_bytes(head, "big")))
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        try:
            if task not in tasks:
                module, _, name = task.partition(":")
                tasks[task] = getattr(importlib.import_module(module), name)
            body = marshal.dumps(("value", tasks[task](*arguments)))
        except MemoryError:
            body = marshal.dumps(("memory",))
        except Exception as error:
            body = _described(error)
        signal.setitimer(signal.ITIMER_PROF, 0)
        del arguments
        _write(len(body).to_bytes(_HEAD, "big") + body)
        if body == marshal.dumps(("memory",)):
            return


def _described(error: Exception) -> bytes:
    parts = getattr(error, "parts", None)
    if parts is not None:
        return marshal.dumps(("ours", type(error).__name__, parts))
    return marshal.dumps(("raised", f"{type(error).__name__}: {error}"[:2000]))


def _read(count: int) -> bytes:
    """So many bytes, or fewer where the other side is gone."""
    data = bytearray()
    while len(data) < count:
        block = os.read(0, min(count - len(data), 2**20))
        if not block:
            return b""
        data += block
    return bytes(data)


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


if __name__ == "__main__":
    main(int(sys.argv[1]))
