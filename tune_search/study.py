"""Running one study: Ray, engines, Tune and the ledger brought together.

Ray Tune runs the trials; what comes next, what is written and what it all came to is decided in
`ztom.search.conductor`, `ztom.search.protocol` and `ztom.search.outcome`.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from tune_search.payload import SEARCH, StudyInputs, TrialReport
from tune_search.study_record import open_study
from ztom.engines.protocol import Capability
from ztom.errors import LedgerError
from ztom.io.files import write_whole
from ztom.ledger import Ledger, StudyRecord, StudyStatus, TrialRecord, TrialStatus
from ztom.search.conductor import Conductor
from ztom.search.config import SearchConfig
from ztom.search.events import EnginesReady, Event, StudyEnded, StudyStarted
from ztom.search.outcome import PHASES, SearchOutcome, build_outcome
from ztom.search.protocol import Plan
from ztom.search.racing import make_race
from ztom.search.samplers.build import build_sampler, startup_count, startup_scale
from ztom.search.samplers.protocol import Sampler
from ztom.search.signals import interruptible
from ztom.search.trackers.config import require_trackers

if TYPE_CHECKING:
    from tune_search.engine_client import EngineClient
    from tune_search.score_actor import ScoreClient
    from tune_search.spare_engine import SpareEngine

logger = logging.getLogger(__name__)

OnEvent = Callable[[Event], None]
#: Seconds beyond the time limit, for starting the trials' processes and for the trial under way.
_GRACE_S = 30.0


@dataclass
class _Clock:
    """Seconds of this run, by what they went into.

    Attributes:
        started: Start of the run, in seconds of the monotonic clock.
        fit_s: Seconds that Tune took for all trials.
        start_s: Seconds until the engines were ready.
    """

    started: float
    fit_s: float = 0.0
    start_s: float = 0.0

    @contextmanager
    def fit(self) -> Iterator[None]:
        """Measure Tune's part."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.fit_s = time.monotonic() - began

    def seconds(self, conductor: Conductor, already: frozenset[int]) -> dict[str, float]:
        """Per-run seconds; overhead is Tune's time that no phase of a trial and no sampler took."""
        fresh = [t for t in conductor.trials if t.number not in already]
        worked = sum(t.outcome.seconds.get(phase, 0.0) for t in fresh for phase in PHASES)
        return {
            "sampler": conductor.thinking_s,
            "start": self.start_s,
            "overhead": max(0.0, self.fit_s - worked - conductor.thinking_s),
            "total": time.monotonic() - self.started,
        }


def run_search(
    config: SearchConfig,
    *,
    resume: bool = False,
    on_event: OnEvent | None = None,
    inputs: StudyInputs | None = None,
    spare: SpareEngine | None = None,
) -> SearchOutcome:
    """Run a study, or go on with one.

    Args:
        config: Configuration of the search.
        resume: Whether to go on with the newest study of this name; with none there, one starts.
        on_event: Callback that takes every event, in the driver's thread.
        inputs: Space, data and engine; read from the configuration when None.
        spare: Place that an engine is kept in for what comes after; None stops all of them.

    Returns:
        The outcome, computed from the ledger; also of a study that had ended before.

    Raises:
        SearchError: Nothing could be evaluated, or the study to go on with was made from another
            configuration, chain or data.
        LedgerError: The ledger failed, or another process is running this study.
        ZtomError: Whatever preparing the inputs or starting the engines raised.
    """
    from tune_search.preparation import prepare

    require_trackers(config.trackers)
    notify = on_event or (lambda event: None)
    with Ledger.open(config.ledger_address) as ledger, ledger.studies.lock(config.name):
        inputs = inputs or prepare(config).study
        study = open_study(config, inputs, ledger, resume=resume)
        plan = make_plan(config, inputs)
        sampler = build_sampler(
            config.sampler, plan.space, seed=config.seed, tolerance=config.budget.tolerance
        )
        try:
            run = StudyRun(config, inputs, ledger, study, plan, sampler, notify, spare)
            return run.run()
        finally:
            sampler.close()


def make_plan(config: SearchConfig, inputs: StudyInputs) -> Plan:
    """The protocol's parameters."""
    evaluations = config.budget.evaluations
    return Plan(
        space=inputs.space,
        evaluations=evaluations,
        startup=startup_count(config.sampler, inputs.space, evaluations),
        startup_scale=startup_scale(config.sampler),
        seed=config.seed,
        max_increases=tuple((g.name, g.max_increase) for g in config.guardrails),
        seconds=config.budget.seconds,
        models=inputs.models,
        gradients=config.sampler.takes_gradients,
    )


class StudyRun:
    """One run of the driver over one study."""

    def __init__(
        self,
        config: SearchConfig,
        inputs: StudyInputs,
        ledger: Ledger,
        study: StudyRecord,
        plan: Plan,
        sampler: Sampler,
        notify: OnEvent,
        spare: SpareEngine | None,
    ) -> None:
        self._config = config
        self._inputs = inputs
        self._ledger = ledger
        self._study = study
        self._plan = plan
        self._sampler = sampler
        self._notify = notify
        self._spare = spare
        self._race = make_race(config.racing, len(inputs.data[0].stimuli), seed=config.seed)
        self._clock = _Clock(time.monotonic())

    def run(self) -> SearchOutcome:
        """Run what is left to run, and say what it came to."""
        conductor = Conductor(
            self._plan,
            self._ledger,
            self._study.id,
            sampler=self._sampler,
            on_event=self._notify,
            window=self._window(),
            racing=self._race is not None,
        )
        already = _ended_numbers(conductor.trials)
        self._notify(
            StudyStarted(
                study_id=self._study.id,
                name=self._study.name,
                total=self._plan.total,
                done=len(already),
                factor_names=self._plan.space.names,
                groups=self._plan.space.groups,
            )
        )
        try:
            if not conductor.is_over:
                self._run_trials(conductor)
            outcome = build_outcome(
                self._plan,
                self._study.id,
                conductor.trials,
                stop_reason=conductor.stop_reason or "time",
                seconds=self._clock.seconds(conductor, already),
            )
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt)
            self._mark_failed(error, interrupted=stopped or conductor.stop_reason == "interrupted")
            raise
        self._mark_ended(outcome)
        return outcome

    def _window(self) -> int | None:
        """Trials under way at once, where one engine answers them in the order of their numbers."""
        return 1 + self._ahead if self._engines == 1 else None

    @property
    def _engines(self) -> int:
        """Number of engines; a sampler that waits for each answer has work for one."""
        return 1 if self._sampler.sequential else self._config.engine.replicas

    @property
    def _ahead(self) -> int:
        """Trials that an engine answers while others are scored; a race leaves no room for any."""
        overlap = self._config.overlap_scoring and self._race is None
        return int(overlap and not self._sampler.sequential)

    def _run_trials(self, conductor: Conductor) -> None:
        from tune_search.engine_pool import make_clients, stop_engines
        from tune_search.experiment import prepare_processes, run_trials
        from tune_search.replacements import Replacements
        from tune_search.score_actor import make_scorers, stop_scorers
        from tune_search.searcher import ProtocolSearcher
        from tune_search.session import ray_for_search
        from tune_search.trackers import make_callbacks

        replicas = self._engines
        slots = replicas + self._ahead
        # Ray's own handling of signals comes with its start, so ours has to come after it.
        with ray_for_search(replicas), interruptible(conductor):
            trackers = make_callbacks(self._config, self._study.id, self._plan.space)
            clients = make_clients(
                self._inputs,
                replicas=replicas,
                deadline_s=self._config.generation_deadline_s,
                start_deadline_s=self._config.engine_start_deadline_s,
                callers=-(-slots // replicas),
            )
            retries = self._config.trial_retries
            places = [client.slot for client in clients]
            scorers = make_scorers(self._inputs.data, slots=places, retries=retries)
            replacements = Replacements(
                [partial(_start_both, *pair) for pair in zip(clients, scorers, strict=True)]
            )
            searcher = ProtocolSearcher(
                conductor,
                slots=slots,
                engines=replacements,
                retries=retries,
                on_report=self._store_outputs,
            )
            prepare_processes(slots)
            is_free = False
            try:
                self._await_engines(clients)
                with self._clock.fit():
                    run_trials(
                        searcher,
                        clients,
                        scorers=scorers,
                        detailed=self._config.wants_outputs,
                        race=self._race,
                        limit_s=self._time_left(searcher.elapsed_s),
                        trackers=trackers,
                    )
                # of a trial that hung, the engine may hang as well
                is_free = conductor.is_over and searcher.failure is None
            except KeyboardInterrupt:
                logger.warning("the trial under way was abandoned; a resume runs it again")
            finally:
                replacements.end()
                stop_scorers(scorers)
                if is_free and self._spare is not None:
                    self._spare.keep(clients)
                else:
                    stop_engines(clients)
        if searcher.failure is not None:
            raise searcher.failure

    def _await_engines(self, clients: tuple[EngineClient, ...]) -> None:
        starting = [client.begin_start() for client in clients]
        self._sampler.warm_up()
        infos = [c.await_start(started) for c, started in zip(clients, starting, strict=True)]
        self._clock.start_s = time.monotonic() - self._clock.started
        engine = _describe(infos[0])
        if self._inputs.gradients is not None:
            engine += "; derivatives in float32"
            if Capability.GRADIENT not in infos[0].capabilities:
                engine += " by the engine torch beside it"
        self._notify(EnginesReady(engine, len(clients), self._clock.start_s))

    def _time_left(self, elapsed_s: float) -> float | None:
        """Tune's own limit ends a trial that hangs; the protocol stops asking well before it."""
        if self._plan.seconds is None:
            return None
        return max(0.0, self._plan.seconds - elapsed_s) + _GRACE_S

    def _store_outputs(self, number: int, report: TrialReport) -> None:
        if not report.outputs:
            return
        stimuli = next(data.stimuli for data in self._inputs.data if data.name == SEARCH)
        lines = [
            json.dumps({"id": stimulus.id, "output": output.text}, ensure_ascii=False)
            for stimulus, output in zip(stimuli, report.outputs, strict=True)
        ]
        write_whole(
            self._config.output / "outputs" / f"trial-{number:05d}.jsonl", "\n".join(lines) + "\n"
        )

    def _mark_ended(self, outcome: SearchOutcome) -> None:
        interrupted = outcome.stop_reason == "interrupted"
        status = StudyStatus.INTERRUPTED if interrupted else StudyStatus.FINISHED
        self._ledger.studies.set_status(self._study.id, status, reason=outcome.stop_reason)
        self._notify(
            StudyEnded(
                stop_reason=outcome.stop_reason,
                trained_error=outcome.trained_model_error,
                optimized_error=outcome.optimized_model_error,
                factors=outcome.optimized_scaling_factors,
            )
        )

    def _mark_failed(self, error: BaseException, *, interrupted: bool) -> None:
        status = StudyStatus.INTERRUPTED if interrupted else StudyStatus.FAILED
        try:
            self._ledger.studies.set_status(
                self._study.id, status, reason=str(error) or repr(error)
            )
        except LedgerError:
            logger.exception("the study's failure could not be written down")


def _start_both(engine: EngineClient, scorer: ScoreClient) -> None:
    """Wait until an engine and what scores its answers are there again."""
    engine.start()
    scorer.start()


def _ended_numbers(trials: tuple[TrialRecord, ...]) -> frozenset[int]:
    return frozenset(t.number for t in trials if t.status is not TrialStatus.RUNNING)


def _describe(info: Any) -> str:
    return f"{info.name} {info.version}, {info.dtype}, {info.device}"
