"""Commands that speak to a server, run in this process, from the arguments to the exit status."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from variant_folders import FAST

SHORT = 12
#: Twenty requests to a step that nobody makes: it goes on until it is told something.
STANDS_STILL = {**FAST, "max_seconds": 600}


@dataclass(frozen=True)
class Ran:
    """What became of a command."""

    status: int
    out: str
    err: str


Ztom = Callable[..., Ran]
#: Begins a release: what it is, and the digests of the stable variant and of the candidate.
Releasing = Callable[..., tuple[Any, str, str]]


class Terminal(io.StringIO):
    """Somebody who types this, and then nothing more."""

    def isatty(self) -> bool:
        return True


def named(name: str, digest: str) -> str:
    return f"{name}@{digest[:SHORT]}"


def write_yaml(path: Path, content: object) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def soon(work: Callable[[], object]) -> threading.Thread:
    """Somebody else does it, a little later."""
    thread = threading.Timer(0.7, work)
    thread.start()
    return thread


def assert_said(text: str, pattern: str) -> None:
    """One message and no traceback."""
    assert "Traceback" not in text
    with pytest.raises(ValueError, match=f"(?s){pattern}"):
        raise ValueError(text)
