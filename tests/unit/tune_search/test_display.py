from __future__ import annotations

import io
import logging
import sys
import types

from rich.console import Console

from tune_search.display import NotebookDisplay, StudyProgress, format_factors, progress_display
from ztom.ledger import TrialKind
from ztom.search.events import (
    EnginesReady,
    Event,
    Stopping,
    StudyEnded,
    StudyStarted,
    TrialEnded,
    TrialStarted,
)


def trial(number: int, *, error: float | None = 1.0, best: float = 1.0) -> list[Event]:
    return [
        TrialStarted(number, TrialKind.SEARCH, (0.05, -0.1)),
        TrialEnded(
            number=number,
            kind=TrialKind.SEARCH,
            factors=(0.05, -0.1),
            error=error,
            reason=None if error is not None else "it gave NaN",
            feasible=error is not None,
            seconds=1.0,
            trained_error=2.0,
            best_error=best,
            best_factors=(0.05, -0.1),
            ended=number + 1,
        ),
    ]


EVENTS: list[Event] = [
    StudyStarted(study_id=1, name="mine", total=10, done=0, factor_names=("a", "b")),
    EnginesReady(engine="fake 1", replicas=1, seconds=3.0),
    *trial(0),
    *trial(1, error=None),
    Stopping("interrupted"),
    StudyEnded(stop_reason="budget", trained_error=2.0, optimized_error=1.0, factors=(0.05, -0.1)),
]


def test_time_left_follows_the_pace():
    now = [0.0]
    state = StudyProgress(clock=lambda: now[0])
    state.take(EVENTS[0])
    assert state.seconds_left is None
    state.take(EVENTS[1])
    for number in range(4):
        now[0] += 2.0
        for event in trial(number):
            state.take(event)
    assert state.seconds_left == 2.0 * 6
    now[0] += 1.5
    assert state.seconds_left == 2.0 * 6 - 1.5
    now[0] += 100
    assert state.seconds_left == 0.0


def test_terminal_shows_best_factors_and_failures():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with progress_display(console) as on_event:
        for event in EVENTS[:-1]:
            on_event(event)
    text = console.file.getvalue()
    for expected in ("mine", "2/10", "1.00000", "+0.050 -0.100", "failed trials", "once more"):
        assert expected in text


def test_without_a_terminal_there_are_log_lines(caplog):
    console = Console(file=io.StringIO(), force_terminal=False)
    with caplog.at_level(logging.INFO), progress_display(console) as on_event:
        for event in EVENTS:
            on_event(event)
    assert console.file.getvalue() == ""
    assert "trial 1 (search) failed: it gave NaN" in caplog.text
    assert "best so far 1.00000" in caplog.text
    assert "best blend 1.00000" in caplog.text


def test_many_factors_are_cut():
    assert format_factors((0.1,) * 30).endswith("...")
    assert format_factors(None) == "-"


def test_a_notebook_shows_a_bar_that_is_drawn_anew():
    drawn: list[str] = []
    display = NotebookDisplay(drawn.append)
    for event in EVENTS[:-1]:
        display.take(event)
    assert len(drawn) == len(EVENTS) - 1
    assert '<progress style="width: 20em" value="2" max="10">' in drawn[-1]
    for text in ("mine", "2 of 10", "best so far 1.00000", "failed trials: 1", "once more"):
        assert text in drawn[-1]


def test_in_a_notebook_the_display_goes_into_the_cell(monkeypatch):
    shown: list[str] = []

    class Handle:
        def update(self, html: str) -> None:
            shown.append(html)

    notebook = types.ModuleType("IPython.display")
    notebook.HTML = str
    notebook.display = lambda html, display_id: Handle()
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", notebook)
    console = Console(file=io.StringIO(), force_jupyter=True)
    with progress_display(console) as on_event:
        on_event(EVENTS[0])
    assert "mine" in shown[0]
