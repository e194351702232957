"""What `chaos` breaks: a server under supervision, its database, its disk and its clock.

Whatever is killed here is started again by what would do so in operation: Ray starts its workers,
and this file, in the place of an init system, the server and the database.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import httpx
import psutil
import psycopg

from cluster.ports import free_port

ZTOM = str(Path(sys.executable).with_name("ztom"))
_FAKETIME = Path("/usr/lib")
_FREE_S = 60.0
_UP_S = 900.0


class Database:
    """A PostgreSQL that is started again when it was killed.

    Args:
        home: Gets the database; the server's account must be able to enter it.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port("127.0.0.1", 0)
        account = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        self._who = {"user": account.pw_uid, "group": account.pw_gid} if os.geteuid() == 0 else {}
        home.mkdir()
        home.chmod(0o755)
        if self._who:
            os.chown(home, account.pw_uid, account.pw_gid)
        make = [_program("initdb"), "-D", str(home / "data"), "-A", "trust", "-U", "ztom"]
        subprocess.run(make, check=True, stdout=subprocess.DEVNULL, cwd="/", **self._who)
        self.start()
        with psycopg.connect(f"{self._plain}/postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE ztom")

    @property
    def address(self) -> str:
        """SQLAlchemy's address of the ledger."""
        return f"postgresql+psycopg://ztom@127.0.0.1:{self.port}/ztom"

    @property
    def _plain(self) -> str:
        return f"postgresql://ztom@127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [_program("postgres"), "-D", str(self.home / "data"), "-p", str(self.port)]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        log = (self.home / "log").open("ab")
        self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **self._who)
        deadline = time.monotonic() + _FREE_S
        while True:
            try:
                psycopg.connect(f"{self._plain}/postgres").close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def kill(self, down_s: float) -> None:
        """Kill all of it, and start it again after some seconds."""
        family = [self._process.pid, *_children(self._process.pid)]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(30)
        time.sleep(down_s)
        self.start()

    def stop(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)


class Clock:
    """The wall clock of the server's processes, which can be put forward and back (libfaketime).

    Args:
        file: Says how far it is put; monotonic clocks are as they are, as on a host that is set.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._libraries = _clock_libraries(file.with_suffix(".so"))
        self.put(0)

    @property
    def is_there(self) -> bool:
        """Whether libfaketime and a C compiler are installed."""
        return bool(self._libraries)

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the processes whose clock it is."""
        if not self._libraries:
            return {}
        return {
            "LD_PRELOAD": " ".join(map(str, self._libraries)),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def put(self, seconds: float) -> None:
        """Put it so many seconds before the machine's."""
        part = self._file.with_suffix(".part")
        part.write_text(f"{seconds:+.1f}\n")
        part.replace(self._file)


class Supervised:
    """``ztom up``, started again whenever it ends, as an init system would.

    Args:
        data: Data folder.
        settings: Of ``ztom up``, as for ``--set``.
        ledger: Address of the ledger.
        environment: Variables besides those of this process.
        log: File for what it says.
    """

    def __init__(
        self,
        data: Path,
        *,
        settings: list[str],
        ledger: str,
        environment: Mapping[str, str],
        log: Path,
    ) -> None:
        port = free_port("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{port}"
        self.starts = 0
        self._command = [ZTOM, "up", "--data", str(data), "--port", str(port), "--ledger", ledger]
        for setting in settings:
            self._command += ["--set", setting]
        self._environment = {**os.environ, **environment}
        self.log = log
        self._wanted = threading.Event()
        self._wanted.set()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._supervise, daemon=True)
        self._thread.start()

    def _supervise(self) -> None:
        while self._wanted.is_set():
            self.starts += 1
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    self._command, stdout=log, stderr=log, env=self._environment
                )
            self._process.wait()
            time.sleep(5)

    def wait_until_up(self) -> None:
        """Wait until it answers.

        Raises:
            SystemExit: It does not; its log is shown.
        """
        deadline = time.monotonic() + _UP_S
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health", timeout=10).status_code == 200:
                    return
            time.sleep(0.5)
        raise SystemExit(f"the server does not start:\n{self.log.read_text()[-4000:]}")

    def find(self, name: str) -> list[psutil.Process]:
        """Its processes whose command line holds ``name``."""
        process = self._process
        found = []
        for pid in _children(process.pid) if process is not None else ():
            with contextlib.suppress(psutil.Error):
                child = psutil.Process(pid)
                if name in " ".join(child.cmdline()):
                    found.append(child)
        return found

    def stop(self) -> None:
        """End it, for good."""
        self._wanted.clear()
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
        self._thread.join(180)


class Disk:
    """A small file system of its own, that can be filled.

    Args:
        folder: Where it is; a plain folder where mounting is not allowed.
        megabytes: Its size.
    """

    def __init__(self, folder: Path, megabytes: int) -> None:
        folder.mkdir()
        self.folder = folder
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
        self.is_small = subprocess.run(command, check=False, capture_output=True).returncode == 0

    def fill(self, seconds: float) -> None:
        """Have no byte left for some seconds."""
        filling = self.folder / "filling"
        with filling.open("wb") as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 20))
                file.flush()
        time.sleep(seconds)
        filling.unlink()

    def close(self) -> None:
        """Take it away."""
        if self.is_small:
            subprocess.run(["umount", "-l", str(self.folder)], check=False)


def _children(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _clock_libraries(built: Path) -> list[Path]:
    faketime = next(_FAKETIME.glob("*/faketime/libfaketimeMT.so.1"), None)
    compiler = shutil.which("cc")
    if faketime is None or compiler is None:
        return []
    source = Path(__file__).with_name("clock_nanosleep.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(built), str(source)], check=True)
    return [built, faketime]


def _program(name: str) -> str:
    found = shutil.which(name) or max(
        map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), default=None
    )
    if found is None:
        raise SystemExit(f"there is no {name}: install Debian's package postgresql")
    return found
