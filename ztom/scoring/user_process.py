"""A child process that computes for us and cannot take us with it.

It has a session of its own, a clean environment, limits on memory, processes and printed text, and
a deadline for every call; whatever goes wrong, all that it has started is killed and a
`ChildFailedError` says why. What it may read, write and reach is in `ztom.scoring.containment`;
where the system does not allow all of that, the log says so once.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import select
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ztom.scoring.process_tree import descendants, memory_of
from ztom.scoring.user_reply import ChildFailedError, ChildLateError, ChildReply, read_reply

logger = logging.getLogger(__name__)

_WORKER = Path(__file__).with_name("user_worker.py")
_TICK_S = 0.25
#: Seconds in which its supervisor ends everything; then it is ended as well.
_END_S = 5.0
_TAIL_BYTES = 2000

#: What a child may see of our environment; tokens and Ray's own variables are not among them.
_ENVIRONMENT = (
    "PATH", "HOME", "USER", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "VIRTUAL_ENV",
    "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
    "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "NLTK_DATA",
)  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """What a child may use.

    Attributes:
        memory_bytes: Memory of all its processes together, shared memory included; what one of
            them allocates beyond it is refused (on Linux; elsewhere only the latter holds).
        processes: Processes that it may have started (counted on Linux only).
        printed_bytes: Printed text per call.
        network: Whether it may use the network.
        reads: Files and folders that it may read besides what it is imported from.
    """

    memory_bytes: int = 8 * 2**30
    processes: int = 128
    printed_bytes: int = 16 * 2**20
    network: bool = False
    reads: tuple[str, ...] = ()


class ChildProcess:
    """One running child. Not thread-safe.

    Args:
        function: Name of the function, ``package.module:function``.
        import_paths: Folders that it is imported from; the first is also the child's working
            folder.
        limits: Limits of what it may use.
        pass_environment: Names of further environment variables it may see.
        deadline_s: Seconds for starting and importing.
        booleans: Whether to take True and False for 1 and 0 instead of refusing them.

    Raises:
        ChildFailedError: It did not start.
    """

    def __init__(
        self,
        function: str,
        *,
        import_paths: Sequence[str],
        limits: Limits,
        pass_environment: Sequence[str],
        deadline_s: float,
        booleans: bool = False,
    ) -> None:
        self._limits = limits
        self._tail = bytearray()
        requests_read, self._requests = os.pipe()
        self._replies, replies_write = os.pipe()
        setting = {
            "function": function,
            "import_paths": list(import_paths),
            "memory_bytes": limits.memory_bytes,
            "booleans": booleans,
            "reads": [os.path.abspath(os.path.expanduser(path)) for path in limits.reads],
            "network": limits.network,
            "hides": _socket_folders(),
            # a bomb ends here, between two looks; threads count, and libraries have many
            "tasks": limits.processes + 8 * (os.cpu_count() or 1) + 256,
            "requests": requests_read,
            "replies": replies_write,
        }
        folder = import_paths[0] if import_paths and Path(import_paths[0]).is_dir() else None
        try:
            # -P: the script's folder, with modules of ours, is not on the user's import path.
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_WORKER), json.dumps(setting)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(requests_read, replies_write),
                start_new_session=True,
                env=_environment(pass_environment),
                cwd=folder,
            )
        except OSError as error:
            os.close(self._requests)
            os.close(self._replies)
            raise ChildFailedError(f"its process could not be started: {error}") from error
        finally:
            os.close(requests_read)
            os.close(replies_write)
        for descriptor in (self._requests, self._replies, *self._streams()):
            os.set_blocking(descriptor, False)
        self.started = self._exchange(b"", deadline_s=deadline_s)
        if self.started.lacks:
            _log_once(self.started.lacks)

    def call(self, message: Mapping[str, object], *, deadline_s: float) -> ChildReply:
        """Send a request and wait for its reply.

        Raises:
            ChildFailedError: No proper reply before the deadline; the child is gone.
        """
        body = json.dumps(message).encode()
        return self._exchange(len(body).to_bytes(8, "big") + body, deadline_s=deadline_s)

    def close(self) -> None:
        """Kill the child and everything that it started; calling it twice is harmless."""
        if self._process.returncode is not None:
            return
        # Its supervisor finds what has left the session, and ends when all has ended.
        self._process.terminate()
        _wait(self._process, _END_S)
        self._kill()
        for descriptor in (self._requests, self._replies):
            os.close(descriptor)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _kill(self) -> None:
        """End those who are left where the supervisor has not done it."""
        if self._process.returncode is not None:
            return
        # Before it is waited for: until then nobody else can have its process id.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for pid in _session_members(self._process.pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        folder = Path(os.environ.get("TMPDIR") or "/tmp")
        for left in folder.glob(f"ztom-function-{self._process.pid}-*"):
            shutil.rmtree(left, ignore_errors=True)

    def _streams(self) -> tuple[int, ...]:
        streams = (self._process.stdout, self._process.stderr)
        return tuple(stream.fileno() for stream in streams if stream is not None)

    def _exchange(self, to_send: bytes, *, deadline_s: float) -> ChildReply:
        """Write, read the reply and drain what is printed, all at once, until the deadline."""
        self._tail.clear()
        try:
            return self._until_reply(to_send, deadline_s=deadline_s)
        except ChildFailedError as failure:
            failure.tail = bytes(self._tail).decode("utf-8", "replace").strip()
            self.close()
            raise
        except BaseException:  # an interrupted call leaves half a message behind
            self.close()
            raise

    def _until_reply(self, to_send: bytes, *, deadline_s: float) -> ChildReply:
        end = time.monotonic() + deadline_s
        unsent, reply, printed = memoryview(to_send), bytearray(), 0
        with selectors.DefaultSelector() as selector:
            if unsent:
                selector.register(self._requests, selectors.EVENT_WRITE)
            for descriptor in (self._replies, *self._streams()):
                selector.register(descriptor, selectors.EVENT_READ)
            while True:
                ready = selector.select(max(0.0, min(_TICK_S, end - time.monotonic())))
                for key, _ in ready:
                    if key.fd == self._requests:
                        unsent = unsent[_write_some(self._requests, unsent) :]
                        if not unsent:
                            selector.unregister(self._requests)
                    elif not (block := _read_some(key.fd)):
                        selector.unregister(key.fd)
                    elif key.fd == self._replies:
                        reply += block
                    else:
                        printed += len(block)
                        self._tail = (self._tail + block)[-_TAIL_BYTES:]
                if (message := read_reply(reply)) is not None:
                    return message
                self._check(printed, waited=not ready, overdue=time.monotonic() >= end)

    def _check(self, printed: int, *, waited: bool, overdue: bool) -> None:
        """Refuse a child that is dead, late or out of bounds."""
        if printed > self._limits.printed_bytes:
            raise ChildFailedError(f"it printed more than {self._limits.printed_bytes} bytes")
        if waited and (ended := _exit_of(self._process.pid)) is not None:
            raise ChildFailedError(f"its process died ({ended})")
        if overdue:
            raise ChildLateError("it was not done before its deadline")
        tree = descendants(self._process.pid)
        if len(tree) > self._limits.processes:
            raise ChildFailedError(f"it started more than {self._limits.processes} processes")
        if memory_of(tree, limit=self._limits.memory_bytes) > self._limits.memory_bytes:
            raise ChildFailedError(
                f"it used more than {self._limits.memory_bytes} bytes of memory, shared memory "
                "and all its processes included"
            )


def _socket_folders() -> list[str]:
    """Where the processes of Ray listen, which is reached without the network."""
    temporary = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    return [str(path) for path in Path(temporary).glob("ray/session_*/sockets")]


def _environment(names: Sequence[str]) -> dict[str, str]:
    return {name: os.environ[name] for name in (*_ENVIRONMENT, *names) if name in os.environ}


def _write_some(descriptor: int, data: memoryview) -> int:
    try:
        return os.write(descriptor, data)
    except BlockingIOError:
        return 0
    except BrokenPipeError:  # it died; the next look at it says how
        return len(data)


def _read_some(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 2**18)
    except BlockingIOError:
        return b""


@functools.cache
def _log_once(lacks: tuple[str, ...]) -> None:
    logger.warning(
        "users' functions run with limits and a clean environment, but this system does not allow "
        "them: %s",
        "; ".join(lacks),
    )


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """Wait for a process, and at most so long, without looking again and again where possible."""
    with contextlib.suppress(OSError, AttributeError):  # as on systems that are not Linux
        descriptor = os.pidfd_open(process.pid)
        try:
            end = select.poll()
            end.register(descriptor, select.POLLIN)
            end.poll(1000 * timeout_s)
        finally:
            os.close(descriptor)
        timeout_s = 1.0
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout_s)


def _exit_of(pid: int) -> str | None:
    """How a child ended, without reaping it; None while it runs."""
    try:
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # somebody else in this process reaps all children
        return "exit status unknown"
    if ended is None:
        return None
    if ended.si_code == os.CLD_EXITED:
        return f"exit status {ended.si_status}"
    return signal.Signals(ended.si_status).name


def _session_members(session: int) -> Iterator[int]:
    """Process ids of a session, zombies aside; none where there is no /proc."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # After the name in parentheses: state, parent, group, session.
            fields = (folder / "stat").read_text(encoding="utf-8", errors="replace")
            state, _, _, owner = fields.rpartition(")")[2].split()[:4]
            if int(owner) == session and state != "Z":
                yield int(folder.name)
