"""Waiting to be stopped, and stopping one thing after another."""

from __future__ import annotations

import logging
import os
import signal
import threading

import pytest

from cluster.shutdown import best_effort, terminate_like_interrupt, wait_for_interrupt


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
        assert wait_for_interrupt()
        timer.join()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_signals_are_left_alone_outside_of_the_main_thread() -> None:
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=terminate_like_interrupt)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_wait_ends_with_what_it_waits_on() -> None:
    looks = iter((True, True, False))
    assert not wait_for_interrupt(lambda: next(looks), every_s=0.001)
