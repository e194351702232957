"""Processes of a Ray that has ended do not stay."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from cluster.leftovers import end_leftovers

RAYLET, OTHER = 2**22 + 1, 2**22 + 11  # no process ids of this machine
Sleeper = Callable[[int], "subprocess.Popen[bytes]"]


@pytest.fixture
def sleeper() -> Iterator[Sleeper]:
    """Starts a process as a raylet's worker does, one that does not listen to SIGTERM."""
    started = []

    def start(raylet: int) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "RAY_RAYLET_PID": str(raylet)}
        script = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
        started.append(subprocess.Popen([sys.executable, "-S", "-c", script], env=environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_what_stays_after_its_ray_is_killed_and_nothing_else(sleeper: Sleeper) -> None:
    left, other = sleeper(RAYLET), sleeper(OTHER)
    end_leftovers(RAYLET, within_s=0.2)
    assert left.wait(10) == -9
    assert other.poll() is None


def test_nothing_is_waited_for_where_nothing_is_left(sleeper: Sleeper) -> None:
    sleeper(OTHER)
    began = time.monotonic()
    end_leftovers(RAYLET, within_s=600)
    assert time.monotonic() - began < 60
