"""One server per data folder, and nobody else's eyes on what it keeps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import faults
import pytest
from server_helpers import serving

from serve_apps.control_plane.config import ServerConfig
from serve_apps.server.launch import close_token
from serve_apps.server.lock import LOCK, server_lock
from ztom.errors import ConfigError

#: Holds the lock until it is killed, as a server does.
_HOLDER = """
import sys, time
from pathlib import Path
from serve_apps.server.launch import close_token
from serve_apps.server.lock import server_lock
with server_lock(Path(sys.argv[1])) as lock:
    lock.write("http://127.0.0.1:8000", "session_1")
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.abuse(109)
def test_a_second_server_is_refused_by_name_of_the_first(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConfigError) as refused, server_lock(tmp_path):
            pass
        text = str(refused.value)
        assert f"process {holder.pid} on {os.uname().nodename}, since 20" in text
        assert "http://127.0.0.1:8000" in text
        assert str(tmp_path) in text
        began = time.monotonic()
        second = subprocess.run(
            [sys.executable, "-m", "ztom", "up", "--data", str(tmp_path), "--port", "0"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert second.returncode == 3
        assert f"process {holder.pid} on" in second.stderr
        assert time.monotonic() - began < 20, "before Ray, not after it"
        assert not (tmp_path / "ledger.db").exists(), "nothing of it was touched"
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    assert str(holder.pid) in (tmp_path / LOCK).read_text(), "the killed one left its name"
    with server_lock(tmp_path) as lock:
        assert lock.session_before == "session_1", "where what it started may still run"
        assert str(os.getpid()) in (tmp_path / LOCK).read_text()
    assert (tmp_path / LOCK).read_text() == ""


@pytest.mark.abuse(102)
def test_a_folder_that_was_open_to_all_is_closed(tmp_path: Path) -> None:
    """Made by hand, before the first start, with a umask that hides nothing."""
    data = tmp_path / "data"
    before = os.umask(0)
    try:
        for folder in (data, data / "keys", data / "requests", data / "checkpoints"):
            folder.mkdir(mode=0o755)
        tmp_path.chmod(0o755)
        with serving(ServerConfig(data=data, poll_s=0.05)) as server:
            server.as_user("ada")
            server.services.store.request_folder("r")
            names = {path.name for path in data.rglob("*")}
            assert {"ledger.db", "ledger.db-wal", "jwt.keys", "r"} <= names
            assert data.stat().st_mode & 0o777 == 0o700
            if os.geteuid() == 0:
                assert faults.readable_by_a_stranger(data) == []
                data.chmod(0o755)  # even if somebody opens the door again
                assert faults.readable_by_a_stranger(data) == [data]
    finally:
        os.umask(before)


@pytest.mark.abuse(102)
def test_the_token_of_ray_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    close_token()
    folder = tmp_path / ".ray"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not (folder / "auth_token").exists(), "Ray makes it, as private as the umask is"
    (folder / "auth_token").write_text("secret")
    (folder / "auth_token").chmod(0o644)
    folder.chmod(0o755)
    tmp_path.chmod(0o755)
    close_token()
    assert (folder / "auth_token").stat().st_mode & 0o777 == 0o600
    assert faults.readable_by_a_stranger(folder) == []
