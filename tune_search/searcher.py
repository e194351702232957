"""Ray Tune's side of the protocol: a searcher over a conductor, and what carries reports to it.

Tune's own bridge to Optuna knows no constraints, repeats or start points, and Tune's saved state is
not used at all: every run of a study is a fresh Tune experiment that the ledger feeds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ray.tune import Callback
from ray.tune.search import Searcher

from tune_search.payload import TrialReport
from tune_search.replacements import Replacements
from tune_search.trial import REPORT
from ztom.ledger import TrialOutcome
from ztom.search.conductor import Assignment, Conductor
from ztom.search.trackers.protocol import metrics_of

logger = logging.getLogger(__name__)

_FINISHED: str = Searcher.FINISHED
#: Number of engines that may be lost with a trial under way before it counts as failed.
_LOSSES = 1


class ProtocolSearcher(Searcher):  # type: ignore[misc]  # Ray is not typed
    """Gives Tune the conductor's trials and the conductor Tune's answers.

    A trial whose process died is given out again, as a new trial of Tune's. Tune's own retry would
    count the death of a process that was waiting for its next trial twice. A trial whose engine
    died goes to another one, if there are several; one that two engines died of has failed.

    An exception in here (the ledger's disk is full, say) would end Tune with a text about Tune, so
    it is kept in `failure`, nothing more is suggested, and the study raises it.

    Args:
        conductor: Conductor that decides what is tried next, and records what came of it.
        slots: Number of trials that run at once: as many as engines, or more, which wait for one.
        engines: The engines that there are, and those of them that answer now.
        retries: Number of times that a trial whose process died is run again.
        on_report: Callback that takes every trial's number and report, after the ledger has it.
    """

    def __init__(
        self,
        conductor: Conductor,
        *,
        slots: int,
        engines: Replacements,
        retries: int,
        on_report: Callable[[int, TrialReport], None],
    ) -> None:
        super().__init__()
        self.failure: BaseException | None = None
        self._conductor = conductor
        self._retries = retries
        self._on_report = on_report
        self._engines = engines
        self._ahead = slots - len(engines.live)
        self._running: dict[str, tuple[Assignment, int]] = {}
        self._reports: dict[str, TrialReport] = {}
        self._again: list[Assignment] = []
        self._attempts: dict[int, int] = {}
        self._losses: dict[int, int] = {}

    @property
    def elapsed_s(self) -> float:
        """Seconds that the study has taken."""
        return self._conductor.elapsed_s

    def __getstate__(self) -> dict[str, Any]:
        """An empty state: nothing of it is Tune's to keep, the ledger has everything."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The configuration of the next trial, None for now, or FINISHED."""
        if self.failure is not None:
            return _FINISHED
        self.failure = self._engines.failure
        if self.failure is not None:
            return _FINISHED
        live = self._engines.live
        busy = [slot for _, slot in self._running.values() if slot in live]
        if not live or len(busy) >= len(live) + self._ahead:
            return None
        try:
            assignment = self._again.pop(0) if self._again else self._conductor.next()
        except Exception as error:
            self.failure = error
            return _FINISHED
        if assignment is None:
            return None if self._conductor.stop_reason is None else _FINISHED
        slot = min(live, key=busy.count)
        self._running[trial_id] = (assignment, slot)
        self._attempts[assignment.number] = self._attempts.get(assignment.number, 0) + 1
        return {
            "number": assignment.number,
            "factors": list(assignment.factors),
            "slot": slot,
            **({} if assignment.incumbent is None else {"incumbent": assignment.incumbent}),
            "derivatives": assignment.derivatives,
            # by name, for trackers that show single values
            **{f"alpha_{i}": value for i, value in enumerate(assignment.factors, start=1)},
        }

    def receive(self, trial_id: str, report: TrialReport) -> None:
        """Keep a trial's report until Tune says that the trial is complete."""
        self._reports[trial_id] = report

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Hand the answer to the conductor; without a report the trial's process died."""
        assignment, slot = self._running.pop(trial_id)
        report = self._reports.pop(trial_id, None)
        if report is not None and report.engine_lost:
            self._engines.lose(slot)
            if self._goes_elsewhere(assignment):
                return
        attempts = self._attempts[assignment.number]
        if report is None and attempts <= self._retries:
            logger.warning("the process of trial %d died: it is run again", assignment.number)
            self._again.append(assignment)
            self._again.sort(key=lambda waiting: waiting.number)
            return
        if report is None:
            report = TrialReport(TrialOutcome(reason=f"its process died {attempts} times"))
        try:
            outcome = replace(report.outcome, attempts=attempts)
            self._conductor.complete(assignment.number, outcome)
            self._on_report(assignment.number, report)
        except Exception as failure:
            self.failure = failure

    def _goes_elsewhere(self, assignment: Assignment) -> bool:
        """Whether a trial whose engine died is given out again: it may be what engines die of."""
        losses = self._losses[assignment.number] = self._losses.get(assignment.number, 0) + 1
        if losses > _LOSSES:
            return False
        self._attempts[assignment.number] -= 1  # the engine's node died, not the trial
        self._again.append(assignment)
        self._again.sort(key=lambda waiting: waiting.number)
        return True

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the ledger has it."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: the ledger has it."""


class ReportCarrier(Callback):  # type: ignore[misc]  # Ray is not typed
    """Takes the reports out of Tune's results before Tune writes them into its state.

    Their numbers stay, for the trackers that come after it.
    """

    def __init__(self, searcher: ProtocolSearcher) -> None:
        self._searcher = searcher

    def __getstate__(self) -> dict[str, Any]:
        """An empty state: nothing of it is Tune's to keep."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        """Record a trial's result before the searcher hears that the trial is complete."""
        report = result.pop(REPORT, None)
        if report is not None:
            self._searcher.receive(trial.trial_id, report)
            result.update(metrics_of(report.outcome))
