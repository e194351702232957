"""``ztom up`` in a process of its own, and what tests do to it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import starts
from server_helpers import PASSWORD

ZTOM = str(Path(sys.executable).with_name("ztom"))


class Up:
    """A server in a process of its own."""

    def __init__(
        self,
        home: Path,
        *settings: str,
        environment: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        command: str | Path = ZTOM,
    ) -> None:
        self.home = home
        self.roots = home / "roots"
        self.command = str(command)
        self.environment = {**os.environ, **(environment or {})}
        self.settings = settings
        self.options = list(options)
        self.data = home / "data"
        self.process: subprocess.Popen[str] | None = None
        self._neighbour: socket.socket | None = None
        self.url = ""
        #: What the console showed since the server was up.
        self.lines: list[str] = []

    def ztom(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [self.command, *arguments]
        return subprocess.run(command, check=True, text=True, env=self.environment, **options)

    def start(self) -> None:
        self._neighbour = _ray_beside()
        options = ["--set", f'pointer_roots=["{self.roots}"]']
        for setting in self.settings:
            options += ["--set", setting]
        self.process = subprocess.Popen(
            [self.command, "up", "--data", str(self.data), "--port", "0"]
            + [*self.options, *options],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=self.environment,
        )
        starts.record("server")
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("Z-TOM serves at "):
                self.url = line.split()[-1]
            if line.startswith("Ctrl-C"):
                threading.Thread(target=self._read, args=(self.process,), daemon=True).start()
                return
        pytest.fail("the server did not start")

    def _read(self, process: subprocess.Popen[str]) -> None:
        """Take note of what the console shows: a pipe that nobody reads fills up."""
        assert process.stdout is not None
        with contextlib.suppress(ValueError):  # it is closed
            for line in process.stdout:
                self.lines.append(line.rstrip())

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(180)
        if self._neighbour is not None:
            self._neighbour.close()

    def kill_ray(self) -> None:
        """Kill the daemon of the node, with which all processes of Ray end."""
        (raylet,) = [p for p in self.children() if p.name() == "raylet"]
        raylet.kill()

    def children(self) -> list[psutil.Process]:
        assert self.process is not None
        found = psutil.Process(self.process.pid).children(recursive=True)
        # what Ray's daemons started has another parent, but the session's folder in its command
        return found

    def ray_logs(self) -> Path:
        """Folder that this server's Ray writes its logs into: another Ray may be the latest."""
        (raylet,) = [p for p in self.children() if p.name() == "raylet"]
        (option,) = [a for a in raylet.cmdline() if a.startswith("--session_dir=")]
        return Path(option.removeprefix("--session_dir=")) / "logs"

    def replica(self, name: str = "ztom:control-plane") -> psutil.Process:
        found = self.replicas(name)
        assert found, f"there is no replica of {name}"
        return found[0]

    def replicas(self, name: str) -> list[psutil.Process]:
        found = []
        for process in self.children():
            with contextlib.suppress(psutil.Error):  # it ends while one looks
                if f"ray::ServeReplica:{name}" in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def session(self) -> requests.Session:
        answer = requests.post(
            f"{self.url}/api/auth/login",
            json={"username": "root", "password": PASSWORD},
            timeout=120,
        )
        assert answer.status_code == 200, answer.text
        session = requests.Session()
        session.headers["Authorization"] = f"Bearer {answer.text}"
        return session

    def wait_until_up(self, timeout_s: float = 300) -> None:
        def up() -> bool:
            try:
                return requests.get(f"{self.url}/health", timeout=30).status_code == 200
            except requests.RequestException:
                return False

        wait_for(up, timeout_s)


def _ray_beside() -> socket.socket | None:
    """Hold the port that the agent of any other Ray on this machine has; None where one has it."""
    holder = socket.socket()
    try:
        holder.bind(("127.0.0.1", 52365))
        holder.listen()
    except OSError:
        holder.close()
        return None
    return holder


def wait_for(condition: Callable[[], Any], timeout_s: float = 240) -> Any:
    deadline = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.2)
