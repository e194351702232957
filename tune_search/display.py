"""Showing a study while it runs: live on a terminal or in a notebook, lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ztom.io.heartbeat import Heartbeat, beating
from ztom.pages.notebook import notebook_progress
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
from ztom.search.space import Factors

_RECENT = 10
_SHOWN_FACTORS = 12


@dataclass
class StudyProgress:
    """How far a study is, by its events; knows nothing of terminals.

    Attributes:
        clock: Seconds that never go back.
        name: Name of the study.
        total: Number of trials at most.
        ended: Number of trials that have ended, failed ones included.
        factor_names: Names of the chain's transitions, or of each with each group.
        groups: Number of groups of tensors that have factors of their own; 1 without.
        trained: Error of the trained model; None until its trial has ended.
        best: Lowest error of a blend that breaks no guardrail.
        best_factors: Scaling factors of that blend.
        failed: Number of trials without an error.
        now: Sentence that says what is going on.
        is_over: Whether no more trials are given out.
    """

    clock: Callable[[], float] = time.monotonic
    name: str = ""
    total: int = 0
    ended: int = 0
    factor_names: tuple[str, ...] = ()
    groups: int = 1
    trained: float | None = None
    best: float | None = None
    best_factors: Factors | None = None
    failed: int = 0
    now: str = "starting"
    is_over: bool = False
    _ends: list[float] = field(default_factory=list)

    def take(self, event: Event) -> None:
        """Note an event."""
        if isinstance(event, Preparing):
            self.now = event.what
        elif isinstance(event, StudyStarted):
            self.name, self.total, self.ended = event.name, event.total, event.done
            self.factor_names = event.factor_names
            self.groups = max(1, len(event.groups))
            self.now = "loading the model"
        elif isinstance(event, EnginesReady):
            self.now = event.engine
            self._ends.append(self.clock())
        elif isinstance(event, TrialStarted):
            factors = format_factors(event.factors, groups=self.groups)
            self.now = f"trial {event.number} ({event.kind}) {factors}"
        elif isinstance(event, TrialEnded):
            self._take_trial(event)
        elif isinstance(event, Stopping):
            self.is_over = True
            self.now = _STOPPING.get(event.reason, f"ending: {event.reason}")
        elif isinstance(event, Proving):
            self.now = f"proof: {event.what}"
        else:
            self.is_over = True
            self.now = f"ended: {event.stop_reason}"

    def _take_trial(self, event: TrialEnded) -> None:
        self.ended = event.ended
        self.trained, self.best = event.trained_error, event.best_error
        self.best_factors = event.best_factors
        self.failed += event.error is None
        self._ends = [*self._ends[-_RECENT:], self.clock()]

    @property
    def seconds_left(self) -> float | None:
        """Seconds that remain at the latest trials' pace; None before the first of them ended."""
        if len(self._ends) < 2:
            return None
        pace = (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)
        return max(0.0, pace * (self.total - self.ended) - (self.clock() - self._ends[-1]))


_STOPPING = {
    "interrupted": "stopping after the trial under way; once more abandons it",
    "budget": "the budget is spent",
    "converged": "the sampler has converged",
    "time": "the time is up",
}


def format_factors(factors: Factors | None, *, groups: int = 1) -> str:
    """Factors for people: three decimals, not too many, a bar between the steps of groups."""
    if factors is None:
        return "-"
    shown = factors[:_SHOWN_FACTORS]
    parts = [
        ("| " if groups > 1 and at and at % groups == 0 else "") + f"{factor:+.3f}"
        for at, factor in enumerate(shown)
    ]
    return " ".join(parts) + (" ..." if len(factors) > _SHOWN_FACTORS else "")


def event_line(event: Event) -> str | None:
    """An event as one line for a log; None for those that are told with the next one."""
    if isinstance(event, Preparing):
        return event.what
    if isinstance(event, StudyStarted):
        trials = f"{event.total} trials at most, {event.done} done"
        return f"study {event.name} ({event.study_id}): {trials}; loading the model"
    if isinstance(event, EnginesReady):
        engine = f"{event.engine}, {event.replicas} replicas"
        return f"engine ready after {event.seconds:.1f} s: {engine}"
    if isinstance(event, TrialEnded):
        return _trial_line(event)
    if isinstance(event, Stopping):
        return _STOPPING.get(event.reason, event.reason)
    if isinstance(event, Proving):
        return f"proof: {event.what}"
    if isinstance(event, StudyEnded):
        errors = f"trained model {event.trained_error:.5f}, best blend {event.optimized_error:.5f}"
        return f"{errors} at {format_factors(event.factors)}"
    return None


def _trial_line(event: TrialEnded) -> str:
    if event.error is None:
        return f"trial {event.number} ({event.kind}) failed: {event.reason}"
    best = "-" if event.best_error is None else f"{event.best_error:.5f}"
    broken = "" if event.feasible else ", breaks a guardrail"
    if event.reason is not None:  # of a trial that has an error, why it was stopped
        broken = f" (estimated), {event.reason}"
    return (
        f"trial {event.number} ({event.kind}) {event.error:.5f}{broken}, best so far {best}, "
        f"{event.seconds:.2f} s at {format_factors(event.factors)}"
    )


class LogDisplay:
    """A line for each event worth one, and a heartbeat while nothing happens.

    Args:
        say: Callback that prints a line.
        clock: Seconds that never go back.
    """

    def __init__(
        self, say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._state = StudyProgress(clock=clock)
        self.heartbeat = Heartbeat(say, clock=clock)
        self.heartbeat.doing(self._now)

    def take(self, event: Event) -> None:
        """Note an event and say it."""
        self._state.take(event)
        self.heartbeat.doing(self._now)
        line = event_line(event)
        if line is not None:
            self.heartbeat.line(line)

    def _now(self) -> str:
        state = self._state
        left = state.seconds_left
        parts = [f"{state.ended} of at most {state.total} trials"] if state.total else []
        parts += [] if left is None or state.is_over else [f"about {_duration(left)} left"]
        return state.now + (f"; {', '.join(parts)}" if parts else "")


@contextmanager
def progress_display(console: Console | None = None) -> Iterator[Callable[[Event], None]]:
    """The callback that a study takes as ``on_event``.

    Args:
        console: Console that shows progress; standard error when None.
    """
    console = console or Console(stderr=True)
    if console.is_jupyter:
        yield NotebookDisplay(_notebook_output()).take
        return
    if not console.is_terminal:
        log = LogDisplay(lambda line: print(_timed(line), file=console.file, flush=True))
        with beating(log.heartbeat):
            yield log.take
        return
    display = _Display(console)
    with display.live:
        yield display.take


def _timed(line: str) -> str:
    return f"{datetime.now():%H:%M:%S} {line}"


class NotebookDisplay:
    """A bar in the output of a notebook's cell, drawn anew with each event.

    Args:
        draw: Callback with the HTML to show in place of what was shown before.
    """

    def __init__(self, draw: Callable[[str], None]) -> None:
        self._state = StudyProgress()
        self._draw = draw

    def take(self, event: Event) -> None:
        """Note an event and draw."""
        self._state.take(event)
        self._draw(self.html())

    def html(self) -> str:
        """The display as it is now."""
        state = self._state
        left = state.seconds_left
        lines = [
            f"trained model {_number(state.trained)}, best so far {_number(state.best)} "
            f"{_gain(state)} at {format_factors(state.best_factors, groups=state.groups)}",
            state.now + ("" if left is None else f", about {_duration(left)} left"),
        ]
        if state.failed:
            lines.append(f"failed trials: {state.failed}")
        return notebook_progress(state.name or "search", state.ended, state.total or None, lines)


def _notebook_output() -> Callable[[str], None]:
    """Shows HTML in the cell that runs, in place of what it showed before."""
    from IPython.display import HTML, display  # there wherever a notebook runs

    handle = display(HTML(""), display_id=True)
    return lambda html: handle.update(HTML(html))


class _Display:
    def __init__(self, console: Console) -> None:
        self._state = StudyProgress()
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
        )
        self._task = self._bar.add_task("search", total=None, left="")
        self.live = Live(get_renderable=self._render, console=console, refresh_per_second=4)

    def take(self, event: Event) -> None:
        self._state.take(event)

    def _render(self) -> Group:
        state = self._state
        left = state.seconds_left
        self._bar.update(
            self._task,
            description=state.name or "search",
            total=state.total or None,
            completed=state.ended,
            left="" if left is None else f"about {_duration(left)} left",
        )
        table = Table.grid(padding=(0, 2))
        table.add_row("trained model", _number(state.trained))
        table.add_row("best so far", f"{_number(state.best)}  {_gain(state)}")
        table.add_row("its factors", format_factors(state.best_factors, groups=state.groups))
        if state.failed:
            table.add_row("failed trials", str(state.failed))
        return Group(self._bar, table, Text(state.now, style="dim", overflow="ellipsis"))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5f}"


def _gain(state: StudyProgress) -> str:
    if state.trained is None or state.best is None or state.best >= state.trained:
        return ""
    return f"({state.best - state.trained:+.5f})"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
