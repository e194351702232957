"""Where a call passes on its way down and back: the stops that a reader makes to follow it.

A stop is a file of ours that control comes into, by a call or by a return after which something
else follows there. The ledger is one place. Several visits in a row from one file to another are
one. Not counted are values (whatever is not in `_PLACES`), properties, as far as they stay in their
file, and a return at the end of a function, which goes on at once to its caller.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

_ROOT = Path(__file__).parents[2]
_PLACES = ("serve_apps/", "ztom/wire/", "ztom/ledger/")


def stops(call: Callable[[], Any]) -> list[str]:
    """Files that a call stops at, in their order."""
    path: list[str] = []
    #: Of each function under way: its place, or the place of whoever called it.
    stack: list[str] = []
    properties: list[str] = []

    def watch(frame: FrameType, event: str, _: object) -> None:
        file = _file(frame)
        if event == "call":
            here = stack[-1] if stack else ""
            place = here if file is None or file in properties else _place(file)
            if file is not None and _is_property(file, frame.f_code.co_qualname):
                properties.append(file)
                place = here
            elif place != here:
                path.extend((here, place))
            stack.append(place)
        elif event == "return" and stack:
            stack.pop()
            if file is not None and _is_property(file, frame.f_code.co_qualname):
                properties.pop()

    sys.setprofile(watch)
    try:
        call()
    finally:
        sys.setprofile(None)
    return _without_repeats([place for place in path if place])


def _without_repeats(path: list[str]) -> list[str]:
    """One file that goes to another again and again, with nothing between, has gone there once."""
    kept: list[str] = []
    for name in path:
        if kept[-1:] != [name]:
            kept.append(name)
        if len(kept) >= 4 and kept[-4:-2] == kept[-2:]:
            del kept[-2:]
    return kept


def _place(file: str) -> str:
    return "ztom/ledger" if file.startswith("ztom/ledger/") else file


def _file(frame: FrameType) -> str | None:
    """The file of a function; None where it is a value's."""
    path = Path(frame.f_code.co_filename)
    if not path.is_relative_to(_ROOT):
        return None
    name = path.relative_to(_ROOT).as_posix()
    return name if name.startswith(_PLACES) else None


def _is_property(file: str, qualname: str) -> bool:
    thing: Any = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    for part in qualname.split("."):
        thing = vars(thing).get(part) if isinstance(thing, type) else getattr(thing, part, None)
    return isinstance(thing, property)
