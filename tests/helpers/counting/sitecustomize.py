"""Read by every Python process below the tests: writes down which engines and clusters start.

The folder is on ``PYTHONPATH`` of the tests (see `starts`), so that a replica of Ray Serve, an
engine of a search or a command in a process of its own count as well. A class is wrapped once its
module has been imported; nothing is imported for it.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

#: Module: the class and the method whose call is a start, and of what.
_STARTS = {
    "vllm.v1.engine.core": ("EngineCore", "__init__", "engine"),
    "ray._private.node": ("Node", "start_head_processes", "cluster"),
}


def _count(module: ModuleType, owner: str, method: str, kind: str) -> None:
    start = getattr(getattr(module, owner), method)

    @functools.wraps(start)
    def counted(*args: Any, **options: Any) -> Any:
        with open(os.environ["ZTOM_TEST_STARTS"], "a", encoding="utf-8") as file:
            file.write(f"{kind}\n")  # one short write of a file opened for appending is whole
        return start(*args, **options)

    setattr(getattr(module, owner), method, counted)


class _StartsFinder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in _STARTS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _count(module, *_STARTS[name])

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


_is_there = any(type(finder).__name__ == _StartsFinder.__name__ for finder in sys.meta_path)
if os.environ.get("ZTOM_TEST_STARTS") and not _is_there:
    sys.meta_path.insert(0, _StartsFinder())
