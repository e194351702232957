"""Options that say where output goes: a path of this machine."""

from __future__ import annotations

from pathlib import Path

import typer

from ztom.io.places import require_local


def local_only(parameter: typer.CallbackParam, place: Path) -> Path:
    """A callback of an option: refuses an address before the command begins.

    Raises:
        ConfigError: It is one.
    """
    return require_local(place, what=parameter.opts[0])
