"""What a monitor is told of each request, and the files that hold it: JSON Lines, one a line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from ztom.errors import StimuliError
from ztom.io.problems import check_model
from ztom.stimuli.json_files import read_json_records


class Observation(BaseModel):
    """One request. Only its time and its text are needed; what is absent is not watched.

    Attributes:
        time: Time of the request, with its time zone.
        text: Prompt, or the text that stands for the input.
        answer: Answer of the model.
        expected: True class, or corrected answer; None where nobody labelled it.
        correct: Whether the answer was right; by equality with ``expected`` where it is not given.
        random: Whether its label was drawn at random: chosen ones (the least sure, new clusters)
            say nothing of the quality of all.
        confidence: Confidence of the model in its answer, 0 to 1.
        category: Category of the request, of whatever kind.
        other_answer: Answer of another version to the same request.
        tokens: Number of tokens of prompt and answer.
        latency_s: Seconds to the whole answer.
        cost: Cost of the request, in one currency.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    time: AwareDatetime
    text: str
    answer: str | None = None
    expected: str | None = None
    correct: bool | None = None
    random: bool = True
    confidence: float | None = Field(default=None, ge=0.0, le=1.0)
    category: str | None = None
    other_answer: str | None = None
    tokens: int | None = Field(default=None, ge=0)
    latency_s: float | None = Field(default=None, ge=0.0)
    cost: float | None = Field(default=None, ge=0.0)

    @model_validator(mode="after")
    def _judged(self) -> Self:
        if self.correct is None and self.expected is not None and self.answer is not None:
            object.__setattr__(self, "correct", self.answer.strip() == self.expected.strip())
        return self


class TrafficWindow(BaseModel):
    """The observations of a stretch of time.

    Attributes:
        number: Number of the window, from 0 at the start of the watch; before it negative.
        start: Time of its first moment.
        end: The first moment after it.
        observations: Observations of it, in the order of their times.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    start: AwareDatetime
    end: AwareDatetime
    observations: tuple[Observation, ...]


def read_observations(path: Path) -> tuple[Observation, ...]:
    """Observations of a JSON or JSON Lines file, in the order of their times.

    Args:
        path: Path of the file.

    Raises:
        StimuliError: The file cannot be read, or a line is no observation; names the line.
    """
    _, records = read_json_records(path, on_blank=lambda place: None)
    rows = [
        check_model(
            Observation,
            record,
            wrong=f"{place.path}, {place.unit} {place.line} is no observation",
            kind=StimuliError,
            expected="at least time (ISO 8601, with its zone) and text",
        )
        for place, record in records
    ]
    return tuple(sorted(rows, key=lambda row: row.time))


def split_windows(
    observations: Iterable[Observation], *, start: datetime, length: timedelta
) -> tuple[TrafficWindow, ...]:
    """Windows of equal length from a start on, also before it, in order; empty ones in between too.

    Args:
        observations: The observations.
        start: Start of window 0.
        length: Length of a window, above 0.
    """
    rows: dict[int, list[Observation]] = {}
    for row in observations:
        rows.setdefault((row.time - start) // length, []).append(row)
    if not rows:
        return ()
    return tuple(
        TrafficWindow(
            number=number,
            start=start + number * length,
            end=start + (number + 1) * length,
            observations=tuple(sorted(rows.get(number, ()), key=lambda row: row.time)),
        )
        for number in range(min(rows), max(rows) + 1)
    )


def like(
    window: TrafficWindow, reference: Sequence[TrafficWindow], *, rhythm: int
) -> tuple[Observation, ...]:
    """Observations of the reference at the same place of the rhythm: the same weekday, or season.

    Args:
        window: The window that is looked at.
        reference: Windows of the reference.
        rhythm: Number of windows after which traffic repeats, 1 for none.
    """
    return tuple(
        row
        for other in reference
        if (other.number - window.number) % rhythm == 0
        for row in other.observations
    )
