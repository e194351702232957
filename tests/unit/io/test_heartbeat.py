"""No pipe is silent: what is due when, by a clock that is passed in."""

from __future__ import annotations

import io
import threading

import pytest

from ztom.errors import ConfigError
from ztom.io.heartbeat import (
    INTERVAL_S,
    INTERVAL_VARIABLE,
    Heartbeat,
    beating,
    command_heartbeat,
    current,
)
from ztom.io.progress import LineDisplay, shown_until, work_display

#: Seconds that nobody may have to wait for a line.
PROMISED_S = 15


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def heartbeat() -> tuple[Heartbeat, list[tuple[float, str]], Clock]:
    clock, lines = Clock(), []
    return Heartbeat(lambda text: lines.append((clock.now, text)), clock=clock), lines, clock


def test_a_line_comes_whenever_nothing_was_said_for_a_while() -> None:
    beat, lines, clock = heartbeat()
    beat.doing("loading the model")
    while clock.now < 63:  # the silence of a search before there was a heartbeat
        left = beat.beat()
        clock.now += left
    times = [time for time, _ in lines]
    assert times == [10, 20, 30, 40, 50, 60]
    assert lines[0] == (10, "... loading the model (10 s so far)")
    assert INTERVAL_S < PROMISED_S


def test_a_line_that_was_said_puts_the_next_one_off() -> None:
    beat, lines, clock = heartbeat()
    clock.now = 8
    beat.line("trial 1")
    clock.now = 12
    assert beat.beat() == 6
    assert lines == [(8, "trial 1")]
    clock.now = 18
    assert beat.beat() == INTERVAL_S
    assert lines[-1] == (18, "... working (18 s so far)")


def test_what_goes_on_keeps_its_clock_and_what_is_new_gets_one() -> None:
    beat, lines, clock = heartbeat()
    beat.doing("sending: 1 of 9")
    clock.now = 20
    beat.doing("sending: 2 of 9", goes_on=True)
    beat.beat()
    assert lines[-1][1] == "... sending: 2 of 9 (20 s so far)"
    beat.doing(lambda: "something else")
    clock.now = 30
    beat.beat()
    assert lines[-1][1] == "... something else (10 s so far)"


def test_a_thread_looks_whether_a_line_is_due() -> None:
    said = threading.Event()
    beat = Heartbeat(lambda _: said.set(), interval_s=0.01)
    with beating(beat):
        assert said.wait(10)
    assert "heartbeat" not in {thread.name for thread in threading.enumerate()}


def test_parts_are_told_when_they_are_done_and_in_between_by_the_heartbeat() -> None:
    beat, lines, clock = heartbeat()
    display = LineDisplay(lambda _: None, unit="bytes", heartbeat=beat)
    display.show("sending a.tar", 2**20, 3 * 2**20)
    clock.now = 10
    beat.beat()
    clock.now = 11
    display.show("sending a.tar", 3 * 2**20, 3 * 2**20)
    display.doing("the server checks a.tar")
    assert [text for _, text in lines] == [
        "... sending a.tar: 1.0 of 3.0 MiB (10 s so far)",
        "sending a.tar: 3.0 of 3.0 MiB",
        "the server checks a.tar ...",
    ]


def test_counts_are_told_in_numbers() -> None:
    lines: list[str] = []
    display = LineDisplay(lines.append)
    display.show("support", 1200, 1200)
    display.show("unknown", 3, None)
    assert lines == ["support: 1,200 of 1,200"]


def test_in_a_pipe_there_are_lines() -> None:
    stream = io.StringIO()
    with work_display("reading", stream=stream) as display:
        display.show("suite [red]{x}", 2, 2)
    assert stream.getvalue() == "reading ...\nsuite [red]{x}: 2 of 2\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_there_are_bars_and_names_are_no_markup(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with work_display("reading", stream=stream) as display:
        display.show("[red]{task.nothing} [/]:smile:", 1, 2)
        display.doing("loading")
        display.show("[red]{task.nothing} [/]:smile:", 2, 2)
    assert "[red]{task.nothing} [/]:smile:" in stream.getvalue()
    assert "2/2" in stream.getvalue()


def test_silence_where_it_is_wanted() -> None:
    stream = io.StringIO()
    with work_display("reading", show=False, stream=stream) as display:
        display.doing("loading")
        display.show("suite", 2, 2)
    assert stream.getvalue() == ""


def test_what_starts_is_shown_until_it_is_ready(capsys: pytest.CaptureFixture[str]) -> None:
    ready: list[str] = []
    with shown_until("starting the server", ready.append) as on_ready:
        on_ready("up")
        assert "heartbeat" not in {thread.name for thread in threading.enumerate()}
    assert ready == ["up"]
    assert capsys.readouterr().err == "starting the server ...\n"


def test_of_several_only_the_innermost_speaks() -> None:
    outer, outer_lines, clock = heartbeat()
    inner, inner_lines, _ = heartbeat()
    with beating(outer):
        with beating(inner):
            assert (current(), outer.resting, inner.resting) == (inner, True, False)
            clock.now = 30
            assert outer.beat() == INTERVAL_S
        assert (current(), outer.resting) == (outer, False)
        clock.now = 39
        assert outer.beat() == 1  # what the other one said was no silence
        clock.now = 40
        outer.beat()
    assert (current(), inner_lines) == (None, [])
    assert outer_lines == [(40, "... working (40 s so far)")]


def test_what_serves_says_nothing_more() -> None:
    with command_heartbeat("ztom up"), shown_until("starting", lambda value: None) as on_ready:
        on_ready("ready")
        command = current()
        assert command is not None
        assert command.resting
        with work_display("asking", stream=io.StringIO()):
            assert current() is not command
        assert command.resting


def test_a_command_says_its_name_and_nothing_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with command_heartbeat("ztom convert"):
        command = current()
        assert command is not None
        command.line("first")
    assert capsys.readouterr().err == "first\n"
    monkeypatch.setattr("sys.stderr", Terminal())
    with command_heartbeat("ztom convert"):
        assert current() is None


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
def test_an_interval_that_is_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(INTERVAL_VARIABLE, text)
    with pytest.raises(ConfigError, match=f"{INTERVAL_VARIABLE} is wrong: got {text}"):
        Heartbeat(lambda _: None)
