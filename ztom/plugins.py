"""What people add without changing this package: error functions, samplers, registries and more.

A configuration names one of a `Group`, and all are found the same way, in this order:

1. what is built in (``gp``, ``vllm``),
2. what an installed package offers as an entry point of the group (`Group`), by its name,
3. ``package.module:name``.

An entry point is a factory that runs in our process; so is ``package.module:name`` for samplers and
engines. For error functions and metrics ``package.module:name`` is a plain function instead, which
runs in a process of its own (`ztom.scoring.user_function`) and is not loaded here. A registry is
named by the scheme of an address, so it is always an entry point. Whoever takes names from
strangers refuses those that `is_import_path` knows: an entry point was installed by the operator, a
module to import is the caller's choice.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Collection, Iterator
from enum import StrEnum
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from ztom.errors import ConfigError, ZtomError

_IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


class Group(StrEnum):
    """A kind of thing that can be added; the value is its group of entry points."""

    ERROR_FUNCTIONS = "ztom.error_functions"
    METRICS = "ztom.metrics"
    SAMPLERS = "ztom.samplers"
    ENGINES = "ztom.engines"
    REGISTRIES = "ztom.registries"

    @property
    def noun(self) -> str:
        """One of them, in a sentence."""
        if self is Group.REGISTRIES:
            return "registry"
        return self.value.partition(".")[2].removesuffix("s").replace("_", " ")


def is_import_path(name: str) -> bool:
    """Whether a name has the form ``package.module:name``."""
    return _IMPORT_PATH.fullmatch(name) is not None


def installed(group: Group) -> tuple[str, ...]:
    """Names that installed packages offer, sorted."""
    return tuple(sorted({entry.name for entry in entry_points(group=group)}))


def check_name(group: Group, name: str, built_in: Collection[str]) -> str:
    """Return ``name`` if something has it; nothing is imported.

    Args:
        group: Group of plugins that the name belongs to.
        name: Name as it was configured.
        built_in: Names that need no looking up.

    Raises:
        ConfigError: Nothing is called so; says what is, and where it was looked for.
    """
    if name in built_in or is_import_path(name):
        return name
    others = installed(group)
    if name in others:
        return name
    known = (*built_in, *others)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    raise ConfigError(
        f"unknown {group.noun}",
        got=name,
        expected=f"one of {', '.join(known)}, or package.module:name",
        fix=(f"Did you mean {close[0]}? " if close else "")
        + f"It is looked for among what is built in and the entry points {group} of installed "
        "packages.",
    )


def build_plugin(group: Group, name: str, *arguments: object, protocol: type) -> Any:
    """Find a factory that is not built in, call it, and look at what it made.

    Args:
        group: Group of plugins, such as samplers.
        name: Name of an entry point, or ``package.module:name``.
        arguments: Arguments that factories of the group take.
        protocol: Protocol whose attributes the plugin has to have.

    Raises:
        ConfigError: It cannot be found or imported, is no factory, raised, or made something else.
        ZtomError: The factory raised it.
    """
    factory = _load(group, name)
    if not callable(factory):
        raise ConfigError(
            f"{group.noun} {name} is no factory",
            got=type(factory).__name__,
            expected=f"a function that makes a {protocol.__name__}",
        )
    try:
        made = factory(*arguments)
    except ZtomError:
        raise
    except Exception as error:  # somebody else's code raises anything
        raise ConfigError(
            f"{group.noun} {name} could not be made", reason=f"{type(error).__name__}: {error}"
        ) from error
    missing = sorted(set(_members(protocol)).difference(dir(made)))
    if missing:
        raise ConfigError(
            f"{group.noun} {name} made something else than a {protocol.__name__}",
            got=f"{type(made).__name__} without {', '.join(missing)}",
            fix=f"See {protocol.__module__}.{protocol.__name__}; ztom.testing checks the rest.",
        )
    return made


def _load(group: Group, name: str) -> Any:
    try:
        if is_import_path(name):
            module, _, path = name.partition(":")
            target: Any = importlib.import_module(module)
            for part in path.split("."):
                target = getattr(target, part)
            return target
        return _entry_point(group, name).load()
    except ZtomError:
        raise
    except Exception as error:  # importing runs somebody else's code
        raise ConfigError(
            f"{group.noun} {name} cannot be imported",
            reason=f"{type(error).__name__}: {error}",
            fix="It is imported as Python does: install its package, or name its folder in "
            "PYTHONPATH.",
        ) from error


def _entry_point(group: Group, name: str) -> EntryPoint:
    offers = {entry.value: entry for entry in entry_points(group=group, name=name)}
    if not offers:
        check_name(group, name, ())
    if len(offers) > 1:
        raise ConfigError(
            f"{group.noun} {name} is offered by several packages",
            got=", ".join(sorted(offers)),
            expected="one of them installed",
        )
    return next(iter(offers.values()))


def _members(protocol: type) -> Iterator[str]:
    for base in protocol.__mro__:
        if getattr(base, "_is_protocol", False):
            yield from (name for name in vars(base) if not name.startswith("_"))
