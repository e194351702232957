"""Three machines on one: namespaces for network, mounts, processes and names, joined by a bridge.

No machine sees the other's disk: ``/tmp`` and ``/dev/shm``, and with them the home folder and all
data, are its own. What they share is the installed Python, as an image is, and one folder,
``/tmp/team``, as a disk of the team is that is mounted everywhere. The namespaces have no names and
live as long as the first process of each, which the kernel kills with whoever made it, and with
that process everything that runs in them: whatever happens to the tests, no process, mount, bridge
or namespace is left.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

T = TypeVar("T")

#: A network for documentation, which nobody is connected to (RFC 5737).
_NETWORK = "198.51.100"
_CLONE_NEWNET = 0x40000000
_PROGRAMS = ("ip", "unshare", "nsenter", "setpriv", "mount")
_SECONDS = 120.0


def require_namespaces() -> None:
    """Skip where machines cannot be made; fail in CI, which runs as root."""
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    reason = ""
    if os.geteuid() != 0:
        reason = "only root can make namespaces with a bridge between them"
    elif missing:
        reason = f"{', '.join(missing)}: not installed (Debian: iproute2, util-linux)"
    else:
        trial = ["unshare", "--net", "--mount", "--pid", "--uts", "--fork", "true"]
        done = subprocess.run(trial, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = f"namespaces cannot be made here: {done.stderr.strip()}"
    if reason and os.environ.get("CI"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


class Space:
    """Namespaces that live as long as their first process.

    Args:
        script: What the first process does before it sleeps; a shell script.
        arguments: Arguments of `unshare` besides those for the process ids.
    """

    def __init__(self, script: str, *arguments: str) -> None:
        forever = f"{script}\necho ready\nexec sleep infinity"
        # the kernel kills it with us, and all of its namespace with it
        kept = ["setpriv", "--pdeathsig", "KILL", "unshare", "--kill-child=KILL", "--pid", "--fork"]
        self._unshare = subprocess.Popen(
            [*kept, "--mount-proc", *arguments, "sh", "-ec", forever],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._unshare.stdout is not None
        assert self._unshare.stdout.readline() == "ready\n", "the namespaces could not be made"
        (first,) = psutil.Process(self._unshare.pid).children()
        self.first = first

    @property
    def pid(self) -> int:
        """Process id, outside of the namespaces, of the first process in them."""
        return int(self.first.pid)

    def close(self) -> None:
        """End everything in the namespaces, and with it the namespaces."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.first.kill()
        self._unshare.wait(30)
        assert self._unshare.stdout is not None
        self._unshare.stdout.close()


class Machine(Space):
    """A machine of its own: address, name, disk, processes.

    Args:
        number: Number of the machine, from 0.
        disk: Folder that becomes its ``/tmp``.
        environment: Variables of everything that runs on it.
    """

    def __init__(self, number: int, disk: Path, environment: Mapping[str, str]) -> None:
        self.name = f"node{number}"
        self.address = f"{_NETWORK}.{number + 1}"
        self.disk = disk
        self.environment = dict(environment)
        self._network: ThreadPoolExecutor | None = None
        team = disk.parent / "team"
        for path in (disk / "home", disk / "team", team):
            path.mkdir(parents=True, exist_ok=True)
        disk.chmod(0o1777)
        script = f"""
            hostname {self.name}
            mount --bind {team} {disk}/team
            mount --rbind {disk} /tmp
            mount -t tmpfs -o size=2g,mode=1777 tmpfs /dev/shm
            ip link set lo up
            cd /tmp"""
        super().__init__(script, "--net", "--mount", "--uts")

    def plug(self, bridge: Space) -> None:
        """Connect it to the bridge."""
        port = f"p{self.name}"
        run("ip", "link", "add", "eth0", "netns", str(self.pid), "type", "veth", "peer", "name",
            port, "netns", str(bridge.pid))  # fmt: skip
        inside = ["nsenter", "--target", str(self.pid), "--net", "ip"]
        run(*inside, "address", "add", f"{self.address}/24", "dev", "eth0")
        run(*inside, "link", "set", "eth0", "up")
        outside = ["nsenter", "--target", str(bridge.pid), "--net", "ip", "link", "set", port]
        run(*outside, "master", "br0", "up")
        self._port = outside

    def cut(self) -> None:
        """Pull the plug: nothing arrives any more, and nothing says so."""
        run(*self._port, "down")

    def mend(self) -> None:
        """Put the plug back."""
        run(*self._port, "up")

    def command(self, *command: str, variables: Mapping[str, str] | None = None) -> list[str]:
        """The command line that runs a command on this machine."""
        values = {**self.environment, **(variables or {})}
        enter = ["nsenter", "--target", str(self.pid), "--net", "--mount", "--pid", "--uts", "--wd"]
        return [*enter, "env", "-i", *(f"{k}={v}" for k, v in values.items()), *command]

    def run(
        self,
        *command: str,
        variables: Mapping[str, str] | None = None,
        check: bool = True,
        timeout_s: float = _SECONDS,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on this machine and wait for it."""
        line = self.command(*command, variables=variables)
        options = {"capture_output": True, "text": True, "timeout": timeout_s, **options}
        done = subprocess.run(line, check=False, **options)
        if check and done.returncode:
            pytest.fail(
                f"{self.name}: {' '.join(command)} ended with {done.returncode}:\n"
                f"{done.stdout}\n{done.stderr}"
            )
        return done

    def start(
        self, *command: str, log: str, variables: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """Start a command on this machine; what it prints goes into a file of its disk."""
        with (self.disk / log).open("w") as output:
            return subprocess.Popen(
                self.command(*command, variables=variables),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                **options,
            )

    def here(self, call: Callable[..., T], /, *arguments: Any, **options: Any) -> T:
        """Call a function of this process in a thread whose sockets are on this machine."""
        if self._network is None:
            self._network = ThreadPoolExecutor(1, initializer=enter_network, initargs=(self.pid,))
        return self._network.submit(call, *arguments, **options).result()

    def processes(self) -> list[psutil.Process]:
        """Everything that runs on it, but for its first process."""
        found = self.first.children(recursive=True)
        mine = os.readlink(f"/proc/{self.pid}/ns/pid")
        for process in psutil.process_iter():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{process.pid}/ns/pid") == mine and process != self.first:
                    found.append(process)
        return list(set(found))

    def kill_all(self) -> None:
        """Kill everything that runs on it; it stays connected, and its disk stays."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """End everything that runs on it."""
        if self._network is not None:
            self._network.shutdown(wait=False, cancel_futures=True)
        super().close()


@contextlib.contextmanager
def machines(
    folder: Path, environment: Mapping[str, str], *, count: int = 3
) -> Iterator[Sequence[Machine]]:
    """Machines that reach each other and share nothing.

    Args:
        folder: Folder for their disks.
        environment: Variables of everything that runs on them, besides home folder and path.
        count: Number of machines.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin:/usr/bin:/bin:/sbin"])
    common = {"HOME": "/tmp/home", "PATH": path, "PYTHONUNBUFFERED": "1", **environment}
    with contextlib.ExitStack() as undo:
        bridge = Space("ip link add br0 type bridge\nip link set br0 up", "--net", "--mount")
        undo.callback(bridge.close)
        made = []
        for number in range(count):
            machine = Machine(number, folder / f"node{number}", common)
            undo.callback(machine.close)
            machine.plug(bridge)
            made.append(machine)
        yield made


def run(*command: str) -> None:
    """Run a command of the system, which has to work."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


def wait_for(condition: Callable[[], T], timeout_s: float, what: str) -> T:
    """Wait until a condition gives something, and return that."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:g} s"
        time.sleep(0.1)


def enter_network(pid: int) -> None:
    """Move the calling thread into another network; a thread has one of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/proc/{pid}/ns/net") as file:
        if libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "the thread could not enter the network")
