"""GitHub's workflow commands, ``::error file=...,line=...::message``, with nothing smuggled in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from ztom.pages.formats import visible


def workflow_command(
    level: Literal["error", "warning"], message: str, properties: Mapping[str, str]
) -> str:
    """One command, in one line.

    Args:
        level: Level that it is shown as.
        message: Message, which may be any text.
        properties: Values of ``title``, ``file``, ``line``; they may be any text.
    """
    named = ",".join(f"{name}={_escaped(value, ':,')}" for name, value in properties.items())
    return f"::{level} {named}::{_escaped(message)}"


def _escaped(text: str, more: str = "") -> str:
    """What ends a line, or else a property, as percent codes; what is invisible is written out."""
    shown = visible(text, lines=True).replace("%", "%25")
    for character in "\r\n" + more:
        shown = shown.replace(character, f"%{ord(character):02X}")
    return shown
