"""A server on a cluster of its operator's, whose launcher is killed: the next one goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import starts
from server_helpers import PASSWORD
from up import Up, wait_for

from cluster.ports import free_port


@pytest.fixture
def cluster() -> Iterator[str]:
    """Address of a Ray that nobody of ours has started."""
    port, dashboard = free_port("127.0.0.1", 0), free_port("127.0.0.1", 0)
    with tempfile.TemporaryDirectory(prefix="ztom-", ignore_cleanup_errors=True) as folder:
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"]
        command += [f"--port={port}", f"--dashboard-port={dashboard}", "--num-cpus=2"]
        command += ["--min-worker-port=0", "--max-worker-port=0"]  # any, not one that is taken
        command += ["--node-ip-address=127.0.0.1", "--dashboard-agent-listen-port=0"]
        command += [f"--ray-client-server-port={free_port('127.0.0.1', 0)}"]
        command += ["--object-store-memory=80000000", f"--temp-dir={folder}"]
        environment = {**os.environ, "RAY_AUTH_MODE": "token", "PYTHONWARNINGS": "ignore"}
        head = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
        starts.record("cluster")
        yield f"127.0.0.1:{port}"
        head.send_signal(signal.SIGTERM)
        head.wait(60)


def test_a_new_launcher_goes_on_where_a_killed_one_was(cluster: str, tmp_path: Path) -> None:
    """It was refused for ever: "Serve runs in this Ray already"."""
    options = ["--without-deadlines"]  # nobody has set this Ray up for us
    up = Up(tmp_path, "poll_s=0.1", environment={"RAY_ADDRESS": cluster}, options=options)
    up.roots.mkdir()
    where = ["--data", str(up.data), "--password-stdin"]
    up.ztom("admin", "create", "root", "root@example.org", *where, input=PASSWORD + "\n")
    up.start()
    session, url = up.session(), up.url
    assert up.process is not None
    up.process.kill()
    up.process.wait(60)
    assert requests.get(f"{url}/health", timeout=60).status_code == 200, "it goes on answering"
    other = subprocess.run(
        [up.command, "up", "--data", str(tmp_path / "other"), "--port", "0", *options],
        env=up.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert other.returncode == 3, "somebody else's is left alone"
    assert "another server of Z-TOM runs in this Ray" in " ".join(other.stderr.split())
    up.start()
    assert up.url == url, "where it was"
    up.wait_until_up()
    assert session.get(f"{url}/api/auth/user", timeout=60).status_code == 200, "logins hold"
    up.stop()
    assert up.process.returncode == 0
    wait_for(lambda: not answers(url), 30)


def answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/health", timeout=5).ok
    except requests.ConnectionError:
        return False
