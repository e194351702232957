"""How far work is: bars on a terminal, lines with a heartbeat anywhere else.

Nothing of rich is imported before something is shown.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Literal, Protocol, TextIO, TypeVar

from ztom.io.heartbeat import Heartbeat, beating, rest

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

#: In which unit sizes of work are told: things that are counted, or bytes.
Unit = Literal["", "bytes"]
_MIB = 2**20

Value = TypeVar("Value")


class WorkDisplay(Protocol):
    """Where work says how it goes."""

    def doing(self, what: str) -> None:
        """Note what is being done from now on, of which nobody knows how long it takes."""

    def show(self, name: str, done: int, total: int | None) -> None:
        """Note how far one part of the work is.

        Args:
            name: Name of the part.
            done: Number of things, or of bytes, that are done.
            total: Number of them in all; None where nobody knows.
        """


@contextmanager
def work_display(
    what: str, *, unit: Unit = "", show: bool = True, stream: TextIO | None = None
) -> Iterator[WorkDisplay]:
    """Show how work goes for the time of the context, on standard error.

    Args:
        what: What is being done first.
        unit: Unit of the counts.
        show: Whether anything is shown at all.
        stream: Stream to write to; standard error when None.
    """
    stream = stream or sys.stderr
    if not show:
        yield _Silence()
    elif stream.isatty():
        with _bars(what, unit, stream) as display:
            yield display
    else:
        lines = LineDisplay(lambda line: print(line, file=stream, flush=True), unit=unit)
        lines.doing(what)
        with beating(lines.heartbeat):
            yield lines


@contextmanager
def shown_until(what: str, ready: Callable[[Value], None]) -> Iterator[Callable[[Value], None]]:
    """Show that something starts, until it is ready; from then on its own log speaks for it.

    Args:
        what: What is being done.
        ready: Callback for what is ready.

    Yields:
        The same callback, which ends what is shown first.
    """
    with ExitStack() as stack:
        stack.enter_context(work_display(what))

        def end_and_call(value: Value) -> None:
            stack.close()
            rest()
            ready(value)

        yield end_and_call


class LineDisplay:
    """Says it in lines: one where work begins, one where it ends, and the heartbeat's in between.

    Args:
        say: Callback that prints a line.
        unit: Unit of the counts.
        heartbeat: Heartbeat that says what lies between; a new one when None.
    """

    def __init__(
        self, say: Callable[[str], None], *, unit: Unit = "", heartbeat: Heartbeat | None = None
    ) -> None:
        self.heartbeat = heartbeat or Heartbeat(say)
        self._unit = unit
        self._names: set[str] = set()

    def doing(self, what: str) -> None:
        """See `WorkDisplay.doing`."""
        self.heartbeat.doing(what)
        self.heartbeat.line(f"{what} ...")

    def show(self, name: str, done: int, total: int | None) -> None:
        """See `WorkDisplay.show`."""
        text = f"{name}: {_amount(done, total, self._unit)}"
        self.heartbeat.doing(text, goes_on=name in self._names)
        self._names.add(name)
        if total is not None and done >= total:
            self.heartbeat.line(text)


def _amount(done: int, total: int | None, unit: Unit) -> str:
    if unit == "bytes":
        whole = "" if total is None else f" of {total / _MIB:,.1f}"
        return f"{done / _MIB:,.1f}{whole} MiB"
    return f"{done:,}" + ("" if total is None else f" of {total:,}")


class _Silence:
    def doing(self, what: str) -> None:
        pass

    def show(self, name: str, done: int, total: int | None) -> None:
        pass


@contextmanager
def _bars(what: str, unit: Unit, stream: TextIO) -> Iterator[WorkDisplay]:
    import rich.progress as parts
    from rich.console import Console

    counts = parts.DownloadColumn() if unit == "bytes" else parts.MofNCompleteColumn()
    title = parts.TextColumn("{task.description}", markup=False)
    columns = (title, parts.BarColumn(), counts, parts.TimeElapsedColumn())
    with parts.Progress(*columns, console=Console(file=stream)) as bars:
        yield _Bars(bars, bars.add_task(what, total=None))


class _Bars:
    def __init__(self, bars: Progress, waiting: TaskID) -> None:
        self._bars = bars
        self._waiting = waiting
        self._tasks: dict[str, TaskID] = {}

    def doing(self, what: str) -> None:
        self._bars.reset(self._waiting, description=what, total=None, visible=True)

    def show(self, name: str, done: int, total: int | None) -> None:
        self._bars.update(self._waiting, visible=False)
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name)
        self._bars.update(self._tasks[name], completed=done, total=total)
