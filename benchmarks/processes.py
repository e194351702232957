"""CPU seconds that the processes of a server have taken, by what each process does."""

from __future__ import annotations

from collections import Counter

import psutil

GATEWAY, CONTROLLER, REPLICA, ENGINE = "gateway", "controller", "replica", "engine"
HAPROXY, REST = "HAProxy", "Ray"
ROLES = (ENGINE, REPLICA, GATEWAY, HAPROXY, CONTROLLER, REST)
#: What Ray writes as the name of a replica's process, in part.
_MARKS = {
    ":control-plane": GATEWAY,
    ":controller": CONTROLLER,
    ":variant": REPLICA,
    ":shared-base": REPLICA,
}


def cpu_seconds(root: int) -> Counter[str]:
    """CPU seconds of a process and its descendants since each was started, by `ROLES`.

    Args:
        root: Process id of ``ztom up``.
    """
    seconds: Counter[str] = Counter()
    top = psutil.Process(root)
    for process in [top, *top.children(recursive=True)]:
        try:
            times = process.cpu_times()
            seconds[_role(process)] += times.user + times.system
        except psutil.Error:
            continue
    return seconds


def server_seconds(root: int) -> Counter[str]:
    """The same of vLLM's own server, whose engine is a process below it."""
    seconds: Counter[str] = Counter()
    top = psutil.Process(root)
    for process in [top, *top.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        seconds[GATEWAY if process.pid == root else ENGINE] += times.user + times.system
    return seconds


def _role(process: psutil.Process) -> str:
    command = " ".join(process.cmdline())
    if "ServeReplica" in command:
        return next((role for mark, role in _MARKS.items() if mark in command), REST)
    if "haproxy" in process.name().lower():
        return HAPROXY
    parent = process.parent()
    below = "" if parent is None else " ".join(parent.cmdline())
    is_engine = "EngineCore" in command or ("ServeReplica" in below and ":variant" in below)
    return ENGINE if is_engine else REST
