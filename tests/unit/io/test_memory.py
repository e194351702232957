"""What may be taken: a container's limit, of either version of cgroups, less what others claim."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ztom.io.memory import memory_limit
from ztom.io.memory_claims import claimed_memory

GIB = 2**30
MIB = 2**20


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine with 24 GiB, 21 of them free, as every container of it sees."""
    _write(tmp_path / "proc/meminfo", f"MemTotal: {24 * MIB} kB\nMemAvailable: {21 * MIB} kB\n")
    return tmp_path


def _write(file: Path, text: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n")


def _version_2(folder: Path, *, limit: object, used: int, idle: int = 0) -> None:
    _write(folder / "memory.max", limit)
    _write(folder / "memory.current", used)
    _write(folder / "memory.stat", f"anon 7\ninactive_file {idle}")


def _version_1(folder: Path, *, limit: int, used: int, idle: int = 0) -> None:
    _write(folder / "memory.limit_in_bytes", limit)
    _write(folder / "memory.usage_in_bytes", used)
    _write(folder / "memory.stat", f"cache 7\ntotal_inactive_file {idle}")


def test_without_a_limit_the_machine_counts(machine: Path) -> None:
    assert memory_limit(root=machine).free == 21 * GIB
    _write(machine / "proc/self/cgroup", "0::/user")
    _version_2(machine / "sys/fs/cgroup/user", limit="max", used=GIB)
    limit = memory_limit(root=machine)
    assert (limit.total, limit.free) == (24 * GIB, 21 * GIB)


def test_a_container_of_512_mib_has_no_21_gib(machine: Path) -> None:
    _write(machine / "proc/self/cgroup", "0::/")
    _version_2(machine / "sys/fs/cgroup", limit=512 * MIB, used=300 * MIB, idle=100 * MIB)
    limit = memory_limit(root=machine)
    assert (limit.total, limit.free) == (512 * MIB, 312 * MIB)
    assert limit.source.endswith("memory.max")


def test_the_tightest_group_above_counts(machine: Path) -> None:
    groups = machine / "sys/fs/cgroup"
    _write(machine / "proc/self/cgroup", "0::/pods/pod/container")
    _version_2(groups / "pods/pod/container", limit="max", used=GIB)
    _version_2(groups / "pods/pod", limit=4 * GIB, used=3 * GIB)
    _version_2(groups / "pods", limit=16 * GIB, used=2 * GIB)
    assert memory_limit(root=machine).free == GIB


@pytest.mark.parametrize("place", ["docker/abc", "."])
def test_version_1(machine: Path, place: str) -> None:
    """A container often names a group of its host whose folder it does not see."""
    _write(machine / "proc/self/cgroup", "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc")
    folder = machine / "sys/fs/cgroup/memory" / place
    _version_1(folder, limit=2 * GIB, used=2 * GIB, idle=GIB)
    assert memory_limit(root=machine).free == GIB
    _version_1(folder, limit=9223372036854771712, used=2 * GIB)
    assert memory_limit(root=machine).free == 21 * GIB


def test_here_there_is_memory() -> None:
    limit = memory_limit()
    assert 0 < limit.free <= limit.total


def test_what_others_are_about_to_load_is_not_free(tmp_path: Path) -> None:
    file = tmp_path / "claims"
    script = (
        "import sys; from pathlib import Path; from ztom.io.memory_claims import claimed_memory\n"
        f"with claimed_memory({GIB}, file=Path(sys.argv[1])): print('claimed', flush=True); input()"
    )
    command = [sys.executable, "-c", script, str(file)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "claimed\n"
    with claimed_memory(0, file=file) as free:
        assert free < memory_limit().free - GIB + 256 * MIB
    other.kill()  # it never gave its claim back
    other.communicate()
    with claimed_memory(GIB, file=file) as free, claimed_memory(GIB, file=file) as own:
        assert abs(free - own) < GIB  # one's own claims are not another's
        (owner,) = json.loads(file.read_text())
        assert owner.startswith(f"{os.getpid()}/")
    assert json.loads(file.read_text()) == {}
