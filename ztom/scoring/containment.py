"""What a user's function gives up before it is imported. Standard library only; Linux.

In this order, each as far as the system allows it:

- a network and a ``/dev/shm`` of its own, the latter of limited size (namespaces; as root, or in a
  user namespace where those are allowed);
- rights: as root it becomes a user id that nobody else has, and keeps the one right to read what
  the next point leaves it;
- files (Landlock): it reads installed packages, the folders that it is imported from and the models
  in the caches, and writes to a temporary folder of its own. What is hidden or has mode 600 or 700
  in a folder that it is imported from is not read: ledgers, keys, the server's data. It connects to
  no TCP port and signals no process but its own.

Sources: landlock(7), unshare(2), capabilities(7) of the Linux manual; system call numbers are those
of every architecture (landlock), from ``asm-generic/unistd.h``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import stat
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

_NEWNS, _NEWIPC, _NEWNET = 0x00020000, 0x08000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_REC, _MS_PRIVATE = 2, 4, 16384, 1 << 18
_SET_DUMPABLE, _KEEP_CAPS, _NO_NEW_PRIVS, _AMBIENT = 4, 8, 38, 47
_CREATE, _ADD, _RESTRICT = 444, 445, 446
#: CAP_DAC_READ_SEARCH, and CAP_DAC_OVERRIDE where a container has only that.
_READERS = (2, 1)
#: First of the user ids that are nobody's; what a system does not know becomes `_NOBODY`.
_FIRST_ID, _NOBODY = 0x60000000, 65534

_EXECUTE, _WRITE, _READ, _LIST = 1, 2, 4, 8
_TRUNCATE = 1 << 14
_READING = _EXECUTE | _READ | _LIST
_OF_FILES = _EXECUTE | _WRITE | _READ | _TRUNCATE
#: Everything that Landlock can forbid about files, by the first version that knows it.
_FILE_RIGHTS = ((1, 0x1FFF), (2, 1 << 13), (3, _TRUNCATE))

_SYSTEM = (
    "/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/opt", "/nix", "/sys", "/proc/self",
    "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/version", "/proc/filesystems",
    "/proc/sys", "/proc/driver", "/etc/ssl", "/etc/pki", "/etc/ca-certificates",
    "/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d",
    "/etc/localtime", "/etc/timezone",
    "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/resolv.conf", "/etc/hosts",
    "/etc/host.conf", "/etc/mime.types", "/etc/os-release", "/etc/fonts", "/etc/services",
    "/etc/OpenCL", "/etc/vulkan",
)  # fmt: skip
_DEVICES = (
    "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/dri", "/dev/kfd",
    "/dev/dxg",
)  # fmt: skip
#: Variables that name a file or folder, or several, which it may read.
_NAMED = ("VIRTUAL_ENV", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "NLTK_DATA")
#: Of a cache of models, what holds no token.
_HUB = ("hub", "datasets", "modules", "assets")

_libc = ctypes.CDLL(None, use_errno=True)


def contain(
    temporary: str,
    *,
    import_paths: Sequence[str],
    reads: Sequence[str],
    network: bool,
    memory_bytes: int,
    tasks: int,
    own_numbers: bool,
    hides: Sequence[str],
) -> list[str]:
    """Give up what the function does not need; for a process that has one thread.

    Args:
        temporary: Folder that it may write to, and which is its own.
        import_paths: Folders that it is imported from.
        reads: Further files and folders that it may read.
        network: Whether it may use the network.
        memory_bytes: Size of its ``/dev/shm``.
        tasks: Processes and threads that it may have, where they can be counted by the system.
        own_numbers: Whether it is in a namespace of process numbers; without root's rights that is
            in a user namespace as well.
        hides: Folders of sockets that it shall not see; Landlock says nothing about those.

    Returns:
        What the system did not allow, in words; empty where all of it holds.
    """
    lacks = []
    version = _landlock_version()
    is_root = os.geteuid() == 0
    has_own_memory = own_numbers and _unshare(network=network, memory_bytes=memory_bytes)
    for folder in hides if has_own_memory else ():
        _mount(b"tmpfs", os.fsencode(folder), b"size=4k,mode=755")
    has_own_proc = has_own_memory and _mount(b"proc", b"/proc", b"")
    if not is_root:
        _set_capabilities(0)  # those that a user namespace gives
    if not has_own_memory:
        lacks.append("processes, network and shared memory of its own (namespaces)")
    if is_root and not _become_nobody(temporary, import_paths, can_hide_files=version > 0):
        lacks.append("a user id of its own")
    if os.geteuid() != 0 and (is_root or own_numbers):
        # of this user id in this namespace; on a plain account it would count all that the user has
        resource.setrlimit(resource.RLIMIT_NPROC, (tasks, tasks))
    _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    if version < 1:
        lacks.append("files of its own (Landlock)")
    else:
        readable = _readable(import_paths, (*reads, *(["/proc"] if has_own_proc else [])))
        writable = [temporary, *_DEVICES, *map(str, Path("/dev").glob("nvidia*"))]
        writable += ["/dev/shm"] if has_own_memory else []
        _restrict(version, readable, writable, network=network)
    _libc.prctl(_SET_DUMPABLE, 1, 0, 0, 0)  # or our own process could not look at its memory
    return lacks


def _unshare(*, network: bool, memory_bytes: int) -> bool:
    """Namespaces of its own, with a ``/dev/shm`` of limited size; whether the system allowed it."""
    if _libc.unshare(_NEWNS | _NEWIPC | (0 if network else _NEWNET)) != 0:
        return False
    if _libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) != 0:
        return False
    return _mount(b"tmpfs", b"/dev/shm", f"size={memory_bytes},mode=1777".encode())


def _mount(kind: bytes, place: bytes, options: bytes) -> bool:
    return bool(_libc.mount(kind, place, kind, _MS_NOSUID | _MS_NODEV, options) == 0)


def _become_nobody(temporary: str, import_paths: Sequence[str], *, can_hide_files: bool) -> bool:
    """Become a user who owns nothing; whether that was possible.

    What it is imported from may lie in a folder of root's alone. Where Landlock says which files it
    reads, it keeps the right to read; elsewhere all has to be open to others.
    """
    kept = next((1 << bit for bit in _READERS if _has_capability(bit)), 0) if can_hide_files else 0
    needed = (sys.prefix, sys.base_prefix, os.path.realpath(sys.executable), *import_paths)
    if not kept and not all(_is_open(path) for path in needed):
        return False
    user = _FIRST_ID + os.getpid()
    try:
        _libc.prctl(_KEEP_CAPS, 1 if kept else 0, 0, 0, 0)
        with contextlib.suppress(OSError):
            os.chown(temporary, user, user)
        os.setgroups([])
        try:
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        except OSError:  # a container that knows 65,536 of them
            os.chown(temporary, _NOBODY, _NOBODY)
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    except OSError:
        return False
    _set_capabilities(kept)
    if kept:  # for the programs that it starts
        _libc.prctl(_AMBIENT, 2, kept.bit_length() - 1, 0, 0)
    return True


def _has_capability(bit: int) -> bool:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> bit & 1)
    return False


def _set_capabilities(kept: int) -> None:
    """Have these rights and no others: effective, permitted and inheritable."""
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))
    data = ctypes.create_string_buffer(struct.pack("6I", kept, kept, kept, 0, 0, 0))
    _libc.capset(header, data)


def _is_open(path: str) -> bool:
    """Whether everybody may read a path, and go through every folder above it."""
    try:
        own = os.stat(path)
        above = [os.stat(folder).st_mode for folder in Path(path).resolve().parents]
    except OSError:
        return False
    wanted = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(own.st_mode) else 0)
    return own.st_mode & wanted == wanted and all(mode & stat.S_IXOTH for mode in above)


def _readable(import_paths: Sequence[str], reads: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Paths that it may read, with the rights to each."""
    prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix}
    named = [path for name in _NAMED for path in os.environ.get(name, "").split(os.pathsep)]
    for path in (*_SYSTEM, *prefixes, *filter(None, named), *_model_caches(), *reads):
        yield path, _READING
    inside = tuple(os.path.realpath(prefix) + os.sep for prefix in prefixes)
    for folder in dict.fromkeys((*import_paths, *sys.path, *_editable())):
        if not os.path.realpath(folder).startswith(inside):
            yield from _import_folder(folder)


def _model_caches() -> Iterator[str]:
    home = os.path.expanduser("~")
    caches = os.environ.get("XDG_CACHE_HOME") or f"{home}/.cache"
    for hub in (os.environ.get("HF_HOME"), f"{caches}/huggingface"):
        yield from (f"{hub}/{name}" for name in _HUB if hub)
    yield from filter(
        None, (os.environ.get("HF_HUB_CACHE"), f"{caches}/torch", f"{home}/nltk_data")
    )


def _editable() -> Iterator[str]:
    """Folders of packages that were installed to be worked on, which are on no path."""
    for finder in sys.meta_path:
        mapping = getattr(sys.modules.get(getattr(finder, "__module__", "")), "MAPPING", None)
        if isinstance(mapping, dict):
            yield from map(str, mapping.values())


def _import_folder(folder: str) -> Iterator[tuple[str, int]]:
    """A folder that is imported from: its names, and what in it is not hidden or private."""
    yield folder, _READING if os.path.isfile(folder) else _LIST
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            with contextlib.suppress(OSError):
                is_open = bool(entry.stat().st_mode & 0o077)
                if is_open or entry.name.endswith(".py") or _is_package(entry.path):
                    yield entry.path, _READING


def _is_package(path: str) -> bool:
    return os.path.isfile(os.path.join(path, "__init__.py"))


def _landlock_version() -> int:
    """Version of Landlock that the kernel has; 0 for none."""
    if not sys.platform.startswith("linux"):
        return 0
    return max(0, int(_libc.syscall(_CREATE, None, ctypes.c_size_t(0), 1)))


def _restrict(
    version: int,
    readable: Iterable[tuple[str, int]],
    writable: Iterable[str],
    *,
    network: bool,
) -> None:
    """Allow these paths and nothing else."""
    handled = sum(rights for first, rights in _FILE_RIGHTS if version >= first)
    ports = 3 if version >= 4 and not network else 0
    scopes = 3 if version >= 6 else 0
    attributes = struct.pack("QQQ", handled, ports, scopes)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _libc.syscall(_CREATE, attributes, ctypes.c_size_t(size), 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    for path, rights in readable:
        _allow(ruleset, path, rights & handled)
    for path in writable:
        _allow(ruleset, path, handled)
    if _libc.syscall(_RESTRICT, ruleset, 0) != 0:
        raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there is not read either
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= _OF_FILES
        # packed, as the kernel's structure is
        _libc.syscall(_ADD, ruleset, 1, struct.pack("=Qi", rights, place), 0)
    finally:
        os.close(place)
