"""Python's garbage collector stands still while an engine is imported and loaded.

vLLM, torch and transformers make more than a million objects that stay as long as the process. The
collector goes over all of them again and again while they come, and finds next to nothing: of the
12 CPU seconds of a start on a CPU that was 3.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module


@contextmanager
def collection_paused() -> Iterator[None]:
    """Nothing is collected inside; afterwards as before."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def import_paused(module: str) -> None:
    """Import a module and what it needs; what they made is not looked at again.

    Args:
        module: Full name of the module; one that is imported already costs nothing.
    """
    if module in sys.modules:
        return
    gc.collect()  # the garbage of before is not to be kept
    with collection_paused():
        import_module(module)
    gc.freeze()
