"""A monitor: windows of observations go in, one at a time; looks come out, and at most one alarm.

A pure function of configuration, reference, state and window: time comes with the observations, and
everything that is drawn comes from the seed, so that a replay of the same log gives the same looks,
byte for byte. The state is a small document that survives restarts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from pydantic import BaseModel, ConfigDict

from ztom.drift.config import MonitorConfig
from ztom.drift.findings import Alarm, DriftFinding, Look
from ztom.drift.inputs import Embed, InputsMonitor
from ztom.drift.observations import Observation, TrafficWindow, like, split_windows
from ztom.drift.quality import QualityMonitor, QualityState
from ztom.drift.unlabelled import confidence, differing, disagreement, effort
from ztom.errors import ConfigError
from ztom.statistics.sequential import Sums


class MonitorState(BaseModel):
    """What a monitor knows between two windows.

    Attributes:
        next_window: Number of the window that comes next.
        quality: State of the labelled monitor.
        compared: Answers of two versions so far.
        open: The alarm that nobody has acted on yet; while there is one there is no other.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    next_window: int = 0
    quality: QualityState = QualityState()
    compared: Sums = Sums()
    open: Alarm | None = None


@dataclass(frozen=True)
class Monitor:
    """A monitor of one endpoint.

    Attributes:
        config: What it watches.
        reference: Observations of a time in which all was well.
        embed: Function that embeds texts; None leaves their meanings out.
    """

    config: MonitorConfig
    reference: tuple[Observation, ...]
    embed: Embed | None = None

    def look(self, state: MonitorState, window: TrafficWindow) -> tuple[Look, MonitorState]:
        """Look at the next window.

        Args:
            state: State before it.
            window: The window.

        Raises:
            ConfigError: It is not the next one: each is looked at once, in order.
        """
        if window.number != state.next_window:
            raise ConfigError(
                "this window is not the next one",
                got=window.number,
                expected=state.next_window,
                fix="Look at each window once, in order; to begin anew, begin without a state.",
            )
        rows = window.observations
        findings = [*self._inputs(window), *self._efforts(rows)]
        quality, compared = state.quality, state.compared + differing(rows)
        if self.quality is not None:
            finding, quality = self.quality.look(state.quality, rows)
            findings.insert(0, finding)
        if self.config.disagreement is not None:
            findings += _those(disagreement(self.config.disagreement, compared))
        findings += _those(confidence(self.reference, rows))
        alarm = None if state.open else _alarm(window, findings)
        look = Look(
            window=window.number,
            start=window.start,
            end=window.end,
            requests=len(rows),
            labels=sum(row.random and row.correct is not None for row in rows),
            findings=tuple(findings),
            alarm=alarm,
        )
        after = MonitorState(
            next_window=window.number + 1,
            quality=quality,
            compared=compared,
            open=state.open or alarm,
        )
        return look, after

    def replay(
        self, observations: Sequence[Observation], state: MonitorState | None = None
    ) -> Iterator[tuple[Look, MonitorState]]:
        """Look at every whole window of a log that the state has not seen.

        The last window is looked at only where an observation after it shows that it has ended.

        Args:
            observations: The log.
            state: State to go on from; the beginning by default.
        """
        state = MonitorState() if state is None else state
        windows = split_windows(observations, start=self.config.start, length=self.config.length)
        for window in windows[:-1]:
            if window.number >= state.next_window:
                look, state = self.look(state, window)
                yield look, state

    @cached_property
    def quality(self) -> QualityMonitor | None:
        """The labelled monitor; None without labels in the reference, or where it is turned off."""
        judged = [r.correct for r in self.reference if r.random and r.correct is not None]
        if self.config.quality is None or not judged:
            return None
        return QualityMonitor(
            self.config.quality,
            wrong=judged.count(False),
            total=len(judged),
            horizon=self.config.horizon,
            seed=self.config.seed,
        )

    @cached_property
    def _reference_windows(self) -> tuple[TrafficWindow, ...]:
        return split_windows(self.reference, start=self.config.start, length=self.config.length)

    def _inputs(self, window: TrafficWindow) -> tuple[DriftFinding, ...]:
        options = self.config.inputs
        if options is None:
            return ()
        tests = InputsMonitor(options, self.embed, self.config.horizon, self.config.seed)
        before = like(window, self._reference_windows, rhythm=options.rhythm)
        return tests.look(window.number, before, window.observations)

    def _efforts(self, rows: Sequence[Observation]) -> tuple[DriftFinding, ...]:
        if self.config.effort is None:
            return ()
        return effort(self.config.effort, self.reference, rows, horizon=self.config.horizon)


def acted(state: MonitorState) -> MonitorState:
    """The state after somebody, or the loop, has acted on the open alarm: the watch begins anew."""
    return MonitorState(next_window=state.next_window)


def _alarm(window: TrafficWindow, findings: Sequence[DriftFinding]) -> Alarm | None:
    evidence = tuple(finding for finding in findings if finding.is_alarm)
    if not evidence:
        return None
    signals = tuple(dict.fromkeys(finding.signal for finding in evidence))
    return Alarm(window=window.number, time=window.end, signals=signals, evidence=evidence)


def _those(finding: DriftFinding | None) -> list[DriftFinding]:
    return [] if finding is None else [finding]
