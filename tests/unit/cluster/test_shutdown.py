"""Waiting to be stopped, and stopping one thing after another."""

from __future__ import annotations

import logging
import os
import signal
import threading

import pytest

from cluster.shutdown import (
    best_effort,
    interrupted_unless,
    terminate_like_interrupt,
    wait_for_interrupt,
)


def test_what_fails_while_stopping_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        best_effort(int, "x")
    assert "while stopping: ValueError" in caplog.text


def test_sigterm_ends_a_wait_as_an_interrupt_does() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        terminate_like_interrupt()
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        wait_for_interrupt()
        timer.join()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_signals_are_left_alone_outside_of_the_main_thread() -> None:
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=terminate_like_interrupt)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_waits_for_something_that_has_died_is_interrupted() -> None:
    looks = iter((True, True, False))
    error = OSError("it has died")

    def wait() -> None:
        with interrupted_unless(lambda: next(looks), error, every_s=0.001, again_s=0.05):
            try:
                threading.Event().wait(60)
            finally:
                threading.Event().wait(60)  # undoing waits for it, too

    with pytest.raises(OSError, match="it has died"):
        wait()


def test_an_interrupt_stays_one_while_everything_lives() -> None:
    error = OSError("it has died")
    with pytest.raises(KeyboardInterrupt), interrupted_unless(lambda: True, error, every_s=0.001):
        raise KeyboardInterrupt
