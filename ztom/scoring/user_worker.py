"""What runs in the child process of a user's error function. Standard library only.

Started as a script by `ztom.scoring.user_process`, with one JSON argument: the function, where to
import it from, limits, and two file descriptors. Requests and replies are JSON with a length of
eight bytes before each. Everything the user prints goes to the standard streams, which the parent
reads separately.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import importlib.util
import json
import numbers
import os
import resource
import sys
import traceback
from pathlib import Path
from typing import Any, cast

_FOLDER = Path(__file__).parent


def main(argument: str) -> None:
    """Import the function, say so, and answer requests until the parent is gone."""
    setting = json.loads(argument)
    _limit(memory_bytes=setting["memory_bytes"])
    lacks = _contained(setting) if sys.platform == "linux" else ["anything but limits (no Linux)"]
    faulthandler.enable()
    sys.path[:0] = [path for path in setting["import_paths"] if path not in sys.path]
    me, requests, replies = os.getpid(), setting["requests"], setting["replies"]
    function = None
    try:
        function = _imported(setting["function"])
        reply: dict[str, Any] = {"ready": True, "lacks": lacks}
    except BaseException as error:  # sys.exit() in a module is the user's failure, not ours
        reply = _described(error)
    while True:
        if os.getpid() != me:  # the user forked, and the copy came back here
            os._exit(0)
        _write(replies, reply)
        request = _read(requests)
        if request is None or function is None:
            return
        try:
            result = function(*request["arguments"])
            reply = {"result": _numbers(result, booleans=setting["booleans"])}
        except BaseException as error:
            reply = _described(error)
        reply["call"] = request["call"]


def _contained(setting: dict[str, Any]) -> list[str]:
    """Go on below a supervisor, without what the function does not need; returns what it keeps."""
    supervisor, containment = _sibling("supervisor"), _sibling("containment")
    temporary, own_numbers = supervisor.split(os.getppid())
    os.environ["TMPDIR"] = temporary
    try:
        lacks: list[str] = containment.contain(
            temporary,
            import_paths=setting["import_paths"],
            reads=setting["reads"],
            network=setting["network"],
            memory_bytes=setting["memory_bytes"],
            tasks=setting["tasks"],
            own_numbers=own_numbers,
            hides=setting["hides"],
        )
    except (OSError, ValueError) as error:  # a kernel that has half of it
        lacks = [f"all that comes after {error}"]
    return lacks


def _sibling(name: str) -> Any:
    """A module beside this one, by its file: nothing of ours is on the user's import path."""
    spec = importlib.util.spec_from_file_location(f"_ztom_{name}", f"{_FOLDER}/{name}.py")
    if spec is None or spec.loader is None:
        raise ImportError(name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _imported(target: str) -> Any:
    module, _, name = target.partition(":")
    target_object: Any = importlib.import_module(module)
    for part in name.split("."):
        target_object = getattr(target_object, part)
    if not callable(target_object):
        raise TypeError(f"{target} is not a function")
    return target_object


def _numbers(result: Any, *, booleans: bool) -> float | list[float]:
    """``result`` as JSON numbers; arrays and tensors become lists, and booleans 1 and 0."""
    if hasattr(result, "tolist"):
        result = result.tolist()
    if isinstance(result, list | tuple):
        return [_number(item, f"entry {i} is", booleans) for i, item in enumerate(result)]
    return _number(result, "it returned", booleans)


def _number(value: Any, where: str, booleans: bool) -> float:
    if hasattr(value, "item"):
        value = value.item()
    if (isinstance(value, bool) and not booleans) or not isinstance(value, numbers.Real):
        kind = "None" if value is None else f"a {type(value).__name__}"
        raise TypeError(f"{where} {kind}, not a number")
    return float(value)


def _described(error: BaseException) -> dict[str, Any]:
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if frame.filename != __file__]
    place = f"{Path(theirs[-1].filename).name} line {theirs[-1].lineno}" if theirs else None
    try:
        message = str(error)
    except Exception:  # an exception whose own __str__ raises
        message = ""
    return {"error": type(error).__name__, "message": message[:2000], "place": place}


def _limit(*, memory_bytes: int) -> None:
    """Bound memory, leave no core file, and go first when the machine runs out of memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Writable memory, not address space: CUDA and allocators reserve far more than they use.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _read(descriptor: int) -> dict[str, Any] | None:
    length = _read_exactly(descriptor, 8)
    body = _read_exactly(descriptor, int.from_bytes(length, "big")) if length else b""
    return cast("dict[str, Any]", json.loads(body)) if body else None


def _read_exactly(descriptor: int, size: int) -> bytes:
    """``size`` bytes, or none when the parent has closed its end."""
    data = bytearray()
    while len(data) < size:
        block = os.read(descriptor, min(size - len(data), 2**20))
        if not block:
            return b""
        data += block
    return bytes(data)


def _write(descriptor: int, message: dict[str, Any]) -> None:
    body = json.dumps(message).encode()
    data = memoryview(len(body).to_bytes(8, "big") + body)
    while data:
        data = data[os.write(descriptor, data) :]


if __name__ == "__main__":
    main(sys.argv[1])
