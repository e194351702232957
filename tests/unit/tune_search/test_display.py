from __future__ import annotations

import io
import logging
import re
import sys
import types

from rich.console import Console

from tune_search.display import (
    LogDisplay,
    NotebookDisplay,
    StudyProgress,
    format_factors,
    progress_display,
)
from ztom.ledger import TrialKind
from ztom.search.events import (
    EnginesReady,
    Event,
    Preparing,
    Proving,
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


def test_without_a_terminal_there_are_lines():
    """They are printed, not logged: whoever has configured logging cannot make them vanish."""
    console = Console(file=io.StringIO(), force_terminal=False)
    logging.disable(logging.CRITICAL)
    try:
        with progress_display(console) as on_event:
            for event in [Preparing("starting Ray"), *EVENTS, Proving("the variant is written")]:
                on_event(event)
    finally:
        logging.disable(logging.NOTSET)
    lines = console.file.getvalue().splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines)
    assert [line[9:] for line in lines] == [
        "starting Ray",
        "study mine (1): 10 trials at most, 0 done; loading the model",
        "engine ready after 3.0 s: fake 1, 1 replicas",
        "trial 0 (search) 1.00000, best so far 1.00000, 1.00 s at +0.050 -0.100",
        "trial 1 (search) failed: it gave NaN",
        "stopping after the trial under way; once more abandons it",
        "trained model 2.00000, best blend 1.00000 at +0.050 -0.100",
        "proof: the variant is written",
    ]


def test_the_heartbeat_says_what_is_being_done():
    now, lines = [0.0], []
    log = LogDisplay(lines.append, clock=lambda: now[0])

    def beat(seconds: float) -> str:
        now[0] += seconds
        log.heartbeat.beat()
        return lines[-1]

    log.take(Preparing("loading the libraries"))
    assert beat(12) == "... loading the libraries (12 s so far)"
    log.take(EVENTS[0])
    assert beat(30) == "... loading the model; 0 of at most 10 trials (30 s so far)"
    log.take(EVENTS[1])
    for event in trial(0):
        log.take(event)
    log.take(TrialStarted(1, TrialKind.SEARCH, (0.05, -0.1)))
    assert beat(10).startswith("... trial 1 (search) +0.050 -0.100; 1 of at most 10 trials")
    log.take(EVENTS[-1])
    log.take(Proving("the variant, as written, answers the holdout"))
    assert beat(11).startswith("... proof: the variant, as written, answers the holdout; 1 of")


def test_a_bar_stands_between_the_steps_of_groups():
    state = StudyProgress()
    state.take(StudyStarted(1, "s", 9, 0, ("a: x", "a: y", "b: x", "b: y"), ("x", "y")))
    state.take(TrialStarted(0, TrialKind.SEARCH, (0.1, 0.2, 0.3, -0.4)))
    assert state.now == "trial 0 (search) +0.100 +0.200 | +0.300 -0.400"


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
