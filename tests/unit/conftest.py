"""Tests of parts: no socket, no Ray, no PostgreSQL, so that they are done in seconds."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import PurePath

import pytest

#: Programs of what takes seconds to start.
_SERVERS = frozenset({"gcs_server", "raylet", "postgres", "initdb", "pg_ctl"})
_guarded = False


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    """An audit hook, which sees what any library does; hooks stay, so this one has a switch."""
    if not _guarded:
        return
    if event == "socket.__new__" and arguments[1] == socket.AF_INET:
        raise RuntimeError("a test in tests/unit opens a socket: it belongs in tests/server")
    if event == "subprocess.Popen":
        program = PurePath(str(arguments[0])).name
        if program in _SERVERS:
            raise RuntimeError(
                f"a test in tests/unit starts {program}: it belongs in tests/conformance or "
                "tests/integration"
            )


sys.addaudithook(_refuse)


@pytest.fixture(autouse=True)
def _no_server() -> Iterator[None]:
    """While a test of this folder runs, opening a socket or starting a server is an error."""
    global _guarded
    _guarded = True
    yield
    _guarded = False


@pytest.fixture
def postgresql() -> str:
    """Not here."""
    pytest.fail("a test in tests/unit uses PostgreSQL: it belongs in tests/conformance")
