"""Runs the protocol against the ledger and a sampler: give out trials, take answers.

This is the driver's only writer of the ledger. A trial is written before it is given out and again
when its answer came, so that a new conductor over the same study goes on exactly where this one
stopped: it replays every ask and tell to its sampler in the order in which they happened, which
also restores the sampler's random state, and gives out again the trials that were never answered.
It knows nothing of Ray.

With a *window* of w trials the order of asks and answers is fixed, whichever process is faster: an
answer is taken in the order of the trials' numbers, and trial n is asked for when the answers of
trials 0 to n - w have been taken and no others, or, where nothing can be asked for (a phase of the
protocol ends), when all have. So a study of one seed repeats itself.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ztom.ledger import Ledger, TrialKind, TrialOutcome, TrialRecord, TrialStatus
from ztom.ledger import StudyEvent as LedgerEvent
from ztom.search.baselines import is_part_of_search
from ztom.search.events import Event, Stopping, TrialEnded, TrialStarted
from ztom.search.protocol import (
    Evaluate,
    Plan,
    Stop,
    StopReason,
    StudyState,
    WaitForTrials,
    incumbent,
    is_feasible,
    known_guardrails,
    lowest,
    next_decision,
    trained_error,
    violations,
)
from ztom.search.racing import Incumbent
from ztom.search.samplers.protocol import Sampler, TakesGradients
from ztom.search.space import Factors

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assignment:
    """A trial to run.

    Attributes:
        number: Number of the trial.
        kind: Why it is run.
        factors: Factors to evaluate.
        derivatives: Whether the error's derivatives are taken as well.
        incumbent: The best so far, where the trial may be stopped for being worse.
    """

    number: int
    kind: TrialKind
    factors: Factors
    derivatives: bool = False
    incumbent: Incumbent | None = None


class Conductor:
    """One study under way.

    Args:
        plan: The protocol's parameters.
        ledger: Keeps the study.
        study_id: Id of the study in the ledger; the trials it already has are replayed.
        sampler: Proposes factors; a new one, that nobody has asked yet.
        on_event: Callback that gets every event of the study.
        window: Number of trials under way at once, in a fixed order; None takes answers as they
            come.
        racing: Whether start-up and search trials run against the best so far.
        clock: Gives seconds that never go back.
    """

    def __init__(
        self,
        plan: Plan,
        ledger: Ledger,
        study_id: int,
        *,
        sampler: Sampler,
        on_event: Callable[[Event], None],
        window: int | None = None,
        racing: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plan = plan
        self._ledger = ledger
        self._study_id = study_id
        self._sampler = sampler
        self._on_event = on_event
        self._clock = clock
        self._window = window
        self._racing = racing
        self._answers: dict[int, TrialOutcome] = {}
        self._trials: list[TrialRecord] = []
        self._converged = False
        self._differs = False
        self._interrupted = False
        self.stop_reason: StopReason | None = None
        self.thinking_s = 0.0
        self._replay(ledger.studies.events(study_id))
        self._unanswered = deque(t for t in self._trials if t.status is TrialStatus.RUNNING)
        self._earlier_s = sum(t.outcome.seconds.get("total", 0.0) for t in self._trials)
        self._started: float | None = None

    @property
    def trials(self) -> tuple[TrialRecord, ...]:
        """Every trial of the study, by number."""
        return tuple(self._trials)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the first trial began to be evaluated, and those of earlier runs' trials.

        Starting processes and loading the model do not count as the study's time.
        """
        running = 0.0 if self._started is None else self._clock() - self._started
        return self._earlier_s + running

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to run; sets the stop reason when so."""
        if self._unanswered:
            return False
        decision = self._decide()
        if isinstance(decision, Stop):
            self._stop(decision.reason)
        return self.stop_reason is not None

    def interrupt(self) -> None:
        """Give out no more trials; safe to call from a signal handler."""
        self._interrupted = True
        self._stop("interrupted")

    def _stop(self, reason: StopReason) -> None:
        if self.stop_reason is None:
            self.stop_reason = reason
            self._on_event(Stopping(reason))

    def next(self) -> Assignment | None:
        """The next trial to run; None when one has to end first, or, with a stop reason, for
        good.
        """
        if self._interrupted:
            return None
        if self._unanswered:
            trial = self._unanswered.popleft()
            return self._give_out(trial)
        if self._window is not None and self._under_way() >= self._window:
            return None
        assignment = self._new_trial()
        while self._take_answers() and assignment is None:
            assignment = self._new_trial()
        return assignment

    def _under_way(self) -> int:
        """Number of trials that were asked for and whose answer was not taken yet."""
        return sum(trial.status is TrialStatus.RUNNING for trial in self._trials)

    def _new_trial(self) -> Assignment | None:
        decision = self._decide()
        if isinstance(decision, Evaluate) and decision.factors is None:
            factors = self._ask(len(self._trials))
            if factors is None:
                self._converged = True
                return self._new_trial()
            decision = Evaluate(decision.kind, factors)
        if isinstance(decision, Evaluate) and decision.factors is not None:
            return self._write_ask(decision.kind, decision.factors)
        if isinstance(decision, Stop):
            self._stop(decision.reason)
        return None

    def _decide(self) -> Evaluate | WaitForTrials | Stop:
        state = StudyState(self.elapsed_s, self._converged, self._interrupted)
        with self._thinking():
            return next_decision(self._plan, self._trials, state)

    @contextmanager
    def _thinking(self) -> Iterator[None]:
        """Adds up what samplers and decisions take, in `thinking_s`."""
        started = self._clock()
        try:
            yield
        finally:
            self.thinking_s += self._clock() - started

    def _write_ask(self, kind: TrialKind, factors: Factors) -> Assignment:
        if kind not in (TrialKind.BASELINE, TrialKind.COMPARISON):
            self._plan.space.check(factors)
        number = len(self._trials)
        trial = self._ledger.studies.ask(self._study_id, number=number, kind=kind, factors=factors)
        self._trials.append(trial)
        return self._give_out(trial)

    def _give_out(self, trial: TrialRecord) -> Assignment:
        self._on_event(TrialStarted(trial.number, trial.kind, trial.factors))
        derivatives = self._plan.gradients and trial.kind is TrialKind.SEARCH
        races = self._racing and trial.kind in (TrialKind.STARTUP, TrialKind.SEARCH)
        rival = incumbent(self._plan, self._trials) if races and not derivatives else None
        return Assignment(trial.number, trial.kind, trial.factors, derivatives, rival)

    def complete(self, number: int, outcome: TrialOutcome) -> None:
        """Take a trial's answer, now or when its turn has come."""
        if self._started is None:
            self._started = self._clock() - outcome.seconds.get("total", 0.0)
        if self._window is None:
            self._take(number, outcome)
            return
        self._answers[number] = outcome
        self._take_answers()

    def _take_answers(self) -> bool:
        """Take the answers whose turn has come; says whether there were any."""
        before = len(self._answers)
        while self._answers:
            first = next(t.number for t in self._trials if t.status is TrialStatus.RUNNING)
            if first not in self._answers or self._may_ask():
                break
            self._take(first, self._answers.pop(first))
        return len(self._answers) < before

    def _may_ask(self) -> bool:
        """Whether the next trial is to be asked for before another answer is taken."""
        if self._window is None or self._under_way() >= self._window:
            return False
        return isinstance(self._decide(), Evaluate)

    def _take(self, number: int, outcome: TrialOutcome) -> None:
        trial = self._ledger.studies.tell(self._study_id, number, outcome)
        self._trials[number] = trial
        self._tell(trial)
        self._on_event(self._ended_event(trial))

    def _replay(self, events: tuple[LedgerEvent, ...]) -> None:
        for event in events:
            trial = event.trial
            if event.action == "tell":
                self._trials[trial.number] = trial
                self._tell(trial)
                continue
            confirming = any(t.kind is TrialKind.CONFIRM for t in self._trials)
            if trial.kind is TrialKind.CONFIRM and not confirming:
                # exploration had ended here: with its budget, its time, or by itself
                no_limit = self._plan.seconds is None
                self._converged = self._has_budget() and (
                    self._ask(trial.number) is None or no_limit
                )
            self._trials.append(_unanswered(trial))
            if trial.kind is TrialKind.SEARCH:
                self._compare(trial, self._ask(trial.number))

    def _has_budget(self) -> bool:
        explored = (TrialKind.STARTUP, TrialKind.SEARCH)
        return sum(t.kind in explored for t in self._trials) < self._plan.evaluations

    def _compare(self, trial: TrialRecord, proposed: Factors | None) -> None:
        if proposed != trial.factors:
            logger.log(
                logging.DEBUG if self._differs else logging.WARNING,
                "trial %d was %s in the ledger and would now be %s (another version of the sampler "
                "or of a library); the ledger's counts, for this trial and all that differ",
                trial.number,
                trial.factors,
                proposed,
            )
            self._differs = True

    def _ask(self, number: int) -> Factors | None:
        with self._thinking():
            return self._sampler.ask(number)

    def _tell(self, trial: TrialRecord) -> None:
        if not is_part_of_search(self._plan.space, trial):
            return
        outcome = trial.outcome
        known = None if trained_error(self._trials) is None else known_guardrails(outcome)
        if outcome.gradient and isinstance(self._sampler, TakesGradients):
            slopes = tuple(outcome.guardrail_gradients[n] for n, _ in self._plan.max_increases)
            self._sampler.take_gradients(trial.number, outcome.gradient, slopes)
        with self._thinking():
            self._sampler.tell(
                trial.number,
                trial.factors,
                error=outcome.error,
                violations=violations(self._plan, self._trials, known),
            )

    def _ended_event(self, trial: TrialRecord) -> TrialEnded:
        best = lowest(self._plan, self._trials)
        finished = trial.status is TrialStatus.FINISHED
        return TrialEnded(
            number=trial.number,
            kind=trial.kind,
            factors=trial.factors,
            error=trial.outcome.error,
            reason=trial.outcome.reason,
            feasible=finished and is_feasible(self._plan, self._trials, trial),
            seconds=trial.outcome.seconds.get("total", 0.0),
            trained_error=trained_error(self._trials),
            best_error=None if best is None else best.error,
            best_factors=None if best is None else best.factors,
            ended=sum(t.status is not TrialStatus.RUNNING for t in self._trials),
        )


def _unanswered(trial: TrialRecord) -> TrialRecord:
    """The trial as it was between its ask and its tell."""
    return TrialRecord(
        study_id=trial.study_id,
        number=trial.number,
        kind=trial.kind,
        factors=trial.factors,
        status=TrialStatus.RUNNING,
        asked=trial.asked,
        told=None,
        outcome=TrialOutcome(),
    )
