"""A Ray cluster with an autoscaler whose pools begin with no node, on this machine.

`ray.cluster_utils.AutoscalingCluster` ends every Ray of the machine when it starts, and its base
configuration is not in the wheel; this one has Ray's fake provider too, and ends only its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.environment import worker_environment
from cluster.ports import free_port

_MARK = "ZTOM_TEST_POOLS"
_EMPTY_LISTS = [
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
    "cluster_synced_files",
    "rsync_exclude",
    "rsync_filter",
]


@contextmanager
def pools_at_zero(pools: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A head with one CPU, and pools by name as the autoscaler's ``available_node_types``.

    Yields:
        The cluster's address.
    """
    with tempfile.TemporaryDirectory(prefix="zp") as folder:
        file = Path(folder) / "pools.yaml"
        file.write_text(json.dumps(_configuration(pools)))
        address = f"127.0.0.1:{free_port('127.0.0.1', 0)}"
        variables = {
            _MARK: folder,
            "RAY_FAKE_CLUSTER": "1",
            "RAY_AUTH_MODE": "disabled",  # whoever joins would need the token of who started it
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            **worker_environment(),
        }
        try:
            _start(address, file, folder, {**os.environ, **variables})
            yield address
        finally:
            _end(folder)


def _start(address: str, file: Path, folder: str, environment: Mapping[str, str]) -> None:
    host, port = address.split(":")
    options = {
        "node-ip-address": host,
        "port": port,
        "ray-client-server-port": free_port(host, 0),
        "dashboard-agent-listen-port": 0,
        "min-worker-port": 0,
        "max-worker-port": 0,
        "num-cpus": 1,
        "object-store-memory": 80 * 2**20,
        "include-dashboard": "false",
        "autoscaling-config": file,
        "temp-dir": f"{folder}/r",
    }
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head"]
    command += [f"--{name}={value}" for name, value in options.items()]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def _configuration(pools: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    head = {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0}
    kinds = {name: {"node_config": {}, "min_workers": 0, **kind} for name, kind in pools.items()}
    return {
        "cluster_name": "pools",
        "max_workers": 4,
        "idle_timeout_minutes": 5,
        "upscaling_speed": 1.0,
        "provider": {
            "type": "fake_multinode",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "available_node_types": {"ray.head.default": head, **kinds},
        "head_node_type": "ray.head.default",
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **{name: [] for name in _EMPTY_LISTS},
    }


def _end(folder: str) -> None:
    """Kill what was started with this mark, until nothing of it is left."""
    mark = f"{_MARK}={folder}".encode()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        mine = [pid for pid in _processes() if mark in _environment(pid)]
        if not mine:
            return
        for pid in mine:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.2)


def _processes() -> list[int]:
    own = os.getpid()
    found = (int(entry.name) for entry in Path("/proc").glob("[0-9]*"))
    return [pid for pid in found if pid != own]


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
