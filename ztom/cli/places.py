"""Options that say where output goes: a path of this machine or, where taken, an address."""

from __future__ import annotations

from pathlib import Path

import typer

from ztom.io.places import StoragePlace, is_store_address, parse_store_address, require_local


def local_only(parameter: typer.CallbackParam, place: Path) -> Path:
    """A callback of an option: refuses an address before the command begins.

    Raises:
        ConfigError: It is one.
    """
    return require_local(place, what=parameter.opts[0])


def any_place(parameter: typer.CallbackParam, place: Path) -> StoragePlace:
    """A callback of an option that takes an address of a store as well.

    Raises:
        ConfigError: It is an address of something else, or no plain one.
    """
    if not is_store_address(place):
        return require_local(place, what=parameter.opts[0])
    return parse_store_address(place)
