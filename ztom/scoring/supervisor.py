"""The process between ours and a user's function: it ends all that the function has started.

It forks before anything of the user's is imported. Where the system allows it, what it starts has
process numbers of its own (a namespace, whose first process ends all others with itself), so that
nothing can outrun its end. Elsewhere whatever leaves the session or loses its parent stays below
the supervisor (``PR_SET_CHILD_SUBREAPER``), which hunts it down. That happens when the function's
process ends, when ours does, or when ours asks for it (SIGTERM); then the supervisor ends as the
function's process did. Standard library only; Linux. Source: pid_namespaces(7), prctl(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from pathlib import Path

_PARENT_CHECK_S = 1.0
_SET_PARENT_SIGNAL, _SET_SUBREAPER = 1, 36
_NEWUSER, _NEWPID = 0x10000000, 0x20000000
_WATCHED = (signal.SIGCHLD, signal.SIGTERM)
_libc = ctypes.CDLL(None, use_errno=True)


def split(parent: int) -> tuple[str, bool]:
    """Fork; returns in the function's process, and never in those that supervise it.

    Args:
        parent: Process id of ours, whose end ends all.

    Returns:
        A temporary folder, which is removed when the process has ended, and whether it has process
        numbers of its own.
    """
    _libc.prctl(_SET_SUBREAPER, 1, 0, 0, 0)
    name = f"ztom-function-{os.getpid()}-{os.urandom(4).hex()}"
    temporary = os.path.join(os.environ.get("TMPDIR") or "/tmp", name)
    os.mkdir(temporary, 0o700)
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    own_numbers = _unshare_numbers()
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        _supervise(child, parent, temporary, statuses=reading, own_numbers=own_numbers)
    os.close(reading)
    _libc.prctl(_SET_PARENT_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if own_numbers and (function := os.fork()):
        _be_first(function, writing)
    os.close(writing)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
    return temporary, own_numbers


def _unshare_numbers() -> bool:
    """Give what is forked from here on numbers of its own; whether the system allowed it."""
    if os.geteuid() == 0:
        return bool(_libc.unshare(_NEWPID) == 0)
    user, group = os.geteuid(), os.getegid()
    if _libc.unshare(_NEWUSER | _NEWPID) != 0:
        return False
    try:
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    except OSError:
        return False
    return True


def _be_first(function: int, statuses: int) -> None:
    """The first process of the namespace: say how the function's ended, and end all with it."""
    _close_streams()
    while True:
        pid, status = os.wait()
        if pid == function:
            os.write(statuses, status.to_bytes(4, "little"))
            os._exit(0)


def _supervise(
    child: int, parent: int, temporary: str, *, statuses: int, own_numbers: bool
) -> None:
    _close_streams()
    status = None
    while status is None and os.getppid() == parent:
        arrived = signal.sigtimedwait(_WATCHED, _PARENT_CHECK_S)
        if arrived is not None and arrived.si_signo == signal.SIGTERM:
            break
        status = _reap(child)
    if own_numbers:  # the kernel ends the others with their first
        if status is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    else:
        _end_all()
    if status is not None and (inner := os.read(statuses, 4)):
        status = int.from_bytes(inner, "little")
    _remove(temporary)
    _end_like(status or 0)


def _close_streams() -> None:
    """The function's, which shall end with the last process that writes to them."""
    for descriptor in range(3):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _reap(child: int) -> int | None:
    """Take note of those who have ended; how the child did, None if it runs."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == child:
                return status
            if pid == 0:
                break
    return None


def _end_all() -> None:
    """Kill all descendants: each round takes the children, and inherits theirs."""
    while True:
        for pid in _children():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            return


def _children() -> list[int]:
    me, children = os.getpid(), []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = (folder / "stat").read_text(encoding="utf-8", errors="replace")
            if int(fields.rpartition(")")[2].split()[1]) == me:
                children.append(int(folder.name))
    return children


def _remove(folder: str) -> None:
    """Remove a folder with all that is in it, as far as that is possible."""
    with contextlib.suppress(OSError):
        for path, folders, files in os.walk(folder, topdown=False):
            for name in files:
                os.unlink(os.path.join(path, name))
            for name in folders:
                place = os.path.join(path, name)
                (os.unlink if os.path.islink(place) else os.rmdir)(place)
        os.rmdir(folder)


def _end_like(status: int) -> None:
    """End with the exit status, or by the signal, of another process."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
