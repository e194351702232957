"""What the launchers share, as far as it needs no Ray."""

from __future__ import annotations

import logging

import pytest

from serve_apps.launching import forgiving, loopback_only, reason

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
