"""What the launchers share, as far as it needs no Ray."""

from __future__ import annotations

import json
import logging
import subprocess

import pytest

from serve_apps.launching import forgiving, loopback_only, reason
from serve_apps.server.launch import write_haproxy

TRACEBACK = """The deployment failed to start 1 times in a row. Error:
Traceback (most recent call last):
  File "replica.py", line 1, in start
ztom.errors.StorageError: cannot read
The above exception was the direct cause of the following exception:
ztom.errors.EngineError: no memory
"""


def test_a_reason_is_the_last_error_or_the_end_of_the_message() -> None:
    assert reason(TRACEBACK) == "EngineError: no memory"
    assert reason("  It is being deployed. ") == "It is being deployed."
    assert reason("x" * 1000) == "x" * 500


def test_a_local_ray_stays_local_unless_somebody_wants_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv(name, raising=False)
    assert loopback_only() == {name: "0"}
    monkeypatch.setenv(name, "1")
    assert loopback_only() == {name: "1"}
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert loopback_only() == {}


def test_what_fails_while_stopping_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        forgiving(int, "x")
    assert "while stopping: ValueError" in caplog.text


def test_haproxy_reads_its_configuration_as_we_want_it(tmp_path) -> None:
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(
        "defaults\n"
        "    mode http\n"
        "    timeout client 5s\n"
        "    timeout server 5s\n"
        "    timeout connect 5s\n"
        "    errorfile 502 /nowhere/500.http\n"
        "    errorfile 503 /nowhere/500.http\n"
        "frontend metrics\n"
        "    bind *:18404\n"
        "    default_backend default_backend\n"
        "backend default_backend\n"
        '    http-request return status 404 content-type text/plain string "not found"\n'
        "backend gateways\n"
        "    server gateway 127.0.0.1:18405 check\n"
        "    server fallback 127.0.0.1:18406 check backup\n"
    )
    program = write_haproxy(tmp_path, private=(18404,))
    checked = subprocess.run([program, "-c", "-f", configuration], capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
    lines = [line.strip() for line in configuration.read_text().splitlines()]
    assert lines[1] == "timeout http-request 15s"
    assert "bind 127.0.0.1:18404" in lines
    for status in (502, 503):
        (line,) = (each for each in lines if each.startswith(f"http-error status {status}"))
        assert json.loads(line.split("'")[1])["error"]["code"] == "unavailable"
        assert line.endswith("hdr retry-after 1")
    (line,) = (each for each in lines if each.startswith("http-request return status"))
    assert line.startswith("http-request return status 503")
    assert line.endswith("hdr retry-after 1"), "no application yet is no wrong address"
    assert lines[-1].startswith("http-response return status 503")
    assert lines[-1].endswith("if { status 500 } { srv_name -m str fallback }")
