"""Running a model on a suite.

An answer is asked for once: answers that the cache knows (`ztom.evaluation.runs.cache`) are not
asked for again, and where everything is known the model is not asked at all. What was answered
before a run was stopped or killed is kept, so the next run goes on where it ended.

An answer that did not arrive (the engine failed, the run was stopped) has no score but a problem;
so has an item of which one repeat is missing. An empty answer is an answer. Tasks of EleutherAI's
lm-evaluation-harness are run by `ztom.evaluation.runs.lm_tasks`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

from ztom.engines.protocol import Capability, Generates
from ztom.errors import CapabilityError, ZtomError
from ztom.evaluation.metrics.build import build_metric
from ztom.evaluation.metrics.protocol import Case, Metric, Scored
from ztom.evaluation.runs.ask import ask
from ztom.evaluation.runs.cache import AnswerCache, AnswerOrigin, usual_cache
from ztom.evaluation.runs.questions import Asking, Question
from ztom.evaluation.runs.results import Conditions, ItemResult, ModelRef, SuiteRun, ref_of
from ztom.evaluation.suites.discover import FoundSuite
from ztom.evaluation.suites.suite import Item, Suite
from ztom.evaluation.suites.templates import PromptTemplate
from ztom.settings import Settings

Progress = Callable[[int, int], None]

#: Characters of an answer that are kept with the results.
KEPT_CHARACTERS = 20_000
LEFT_OUT = "left out: the run was limited to fewer items"
_BATCH = 128


@dataclass(frozen=True)
class RunOptions:
    """How a run goes about it; none of it changes an answer.

    Attributes:
        batch_size: Number of prompts that the engine gets at once; after each batch answers are
            kept, progress is told and stopping is possible.
        limit: Number of items that are asked, the first ones; the others get a problem.
        import_paths: Folders in which a user's metric is looked for; by default the working folder,
            then PYTHONPATH.
        progress: Callback with how many answers are there, and of how many.
        should_stop: Function that is asked before every batch; what is not asked any more gets a
            problem.
    """

    batch_size: int = _BATCH
    limit: int | None = None
    import_paths: Sequence[str] | None = None
    progress: Progress | None = None
    should_stop: Callable[[], bool] | None = None


_DEFAULTS = RunOptions()


def run_suite(
    engine: Generates,
    suite: Suite,
    model: ModelRef,
    *,
    setup: str = "",
    cache: AnswerCache | None = None,
    options: RunOptions = _DEFAULTS,
) -> SuiteRun:
    """Ask a model every item of a suite and score the answers.

    Args:
        engine: Engine with the model loaded.
        suite: Suite with settings and items.
        model: Name and digest of the model; the digest decides what the cache may give.
        setup: Digest of how the engine is set up (`ztom.evaluation.runs.models.setup_digest`).
        cache: Cache of answers; None asks for all.
        options: Options of the run.

    Returns:
        A result for every item of the suite, in its order.

    Raises:
        CapabilityError: The engine does not generate.
        ConfigError: The user's function cannot be imported, or the embedding model is missing.
        EvaluationError: The suite's template, labels or checks are malformed.
    """
    if Capability.GENERATE not in engine.info.capabilities:
        raise CapabilityError(f"suites ask for text, which {model.name} does not generate")
    began = time.perf_counter()
    metric = build_metric(suite, import_paths=options.import_paths)
    try:
        origin = AnswerOrigin.of(engine, model=model.digest, setup=setup)
        run = _Run(suite, origin, options)
        completions = run.ask(engine, cache)
        items = run.results(metric)
    finally:
        metric.close()
    return SuiteRun(
        suite=ref_of(suite),
        model=model,
        key=origin.run_key(suite.digest),
        conditions=_conditions(engine, setup),
        items=items,
        seconds=time.perf_counter() - began if completions else 0.0,
    )


def run_suites(
    engine: Generates,
    suites: Sequence[FoundSuite],
    model: ModelRef,
    *,
    setup: str,
    use_cache: bool = True,
    limit: int | None = None,
    progress: Callable[[str, int, int], None],
) -> Iterator[SuiteRun]:
    """Run a model on suites, each result as soon as it is there.

    Args:
        engine: Engine with the model loaded.
        suites: Suites with the places of their functions.
        model: Name and digest of the model.
        setup: Digest of how the engine is set up; see `run_suite`.
        use_cache: Whether known answers are used and new ones kept.
        limit: Number of items of each suite; all when None.
        progress: Callback with the suite, how many answers are there, and of how many.

    Raises:
        ZtomError: The engine, a suite or a function fails; see `run_suite`.
    """
    with usual_cache(Settings()) if use_cache else nullcontext() as cache:
        for entry in suites:
            options = RunOptions(
                limit=limit,
                import_paths=entry.import_paths,
                progress=partial(progress, entry.suite.config.name),
            )
            yield run_suite(engine, entry.suite, model, setup=setup, cache=cache, options=options)


def _conditions(engine: Generates, setup: str) -> Conditions:
    info = engine.info
    return Conditions(engine=info.name, version=info.version, device=info.device, setup=setup)


class _Run:
    """One model on one suite: questions, what came back, and results."""

    def __init__(self, suite: Suite, origin: AnswerOrigin, options: RunOptions) -> None:
        self._suite = suite
        self._options = options
        self._repeats = suite.config.repeats
        template = PromptTemplate(suite.config.template)
        self._prompts = [template.render(item) for item in suite.items[: options.limit]]
        self._keys: dict[tuple[int, int], str] = {}
        self._questions: dict[str, Question] = {}  # one for each key: the same is asked once
        for repeat in range(self._repeats):
            for position, prompt in enumerate(self._prompts):
                sample = self._sample(position, repeat)
                key = origin.key(prompt, suite.config.decode, sample=sample)
                self._keys[position, repeat] = key
                self._questions.setdefault(key, Question(position, repeat, prompt, key))
        self._texts: dict[str, str] = {}
        self._problems: dict[str, str] = {}

    def ask(self, engine: Generates, cache: AnswerCache | None) -> int:
        """Get all answers, from the cache or the engine; returns how many were asked for."""
        if cache is not None:
            self._texts = cache.find(list(self._questions))
        missing = [q for key, q in self._questions.items() if key not in self._texts]
        self._tell()
        if missing:
            self._ask(engine, missing, cache)
        return len(missing)

    def results(self, metric: Metric) -> tuple[ItemResult, ...]:
        """A result for every item of the suite."""
        answered: dict[int, Case] = {}
        for position, prompt in enumerate(self._prompts):
            answers = self._answers(position)
            if len(answers) == self._repeats:
                answered[position] = Case(self._suite.items[position], prompt, answers)
        scored = dict(zip(answered, _score(metric, list(answered.values())), strict=True))
        return tuple(
            self._result(item, position, scored.get(position))
            for position, item in enumerate(self._suite.items)
        )

    def _ask(
        self, engine: Generates, missing: Sequence[Question], cache: AnswerCache | None
    ) -> None:
        def answered(texts: Mapping[str, str]) -> None:
            self._texts.update(texts)
            if cache is not None:
                cache.keep(texts)
            self._tell()

        asking = Asking(
            engine=engine,
            decode=self._suite.config.decode,
            batch_size=self._options.batch_size,
            answered=answered,
            should_stop=self._options.should_stop or (lambda: False),
        )
        replies = ask(missing, asking)
        for question, reply in zip(missing, replies, strict=True):
            if reply.problem is not None:
                self._problems[question.key] = reply.problem

    def _answers(self, position: int) -> tuple[str, ...]:
        keys = self._keys_of(position)
        return tuple(self._texts[key] for key in keys if key in self._texts)

    def _keys_of(self, position: int) -> list[str]:
        return [self._keys[position, repeat] for repeat in range(self._repeats)]

    def _result(self, item: Item, position: int, scored: Scored | None) -> ItemResult:
        if position >= len(self._prompts):
            return ItemResult(id=item.id, repeats=self._repeats, problem=LEFT_OUT)
        answers = tuple(kept(answer) for answer in self._answers(position))
        if scored is None:
            scored = Scored(problem=self._missing(position, len(answers)))
        return ItemResult(
            id=item.id,
            answers=answers,
            value=scored.value,
            parts=scored.parts,
            repeats=self._repeats,
            failed_checks=scored.failed_checks,
            problem=scored.problem,
        )

    def _missing(self, position: int, arrived: int) -> str:
        problems = [self._problems[k] for k in self._keys_of(position) if k in self._problems]
        reason = problems[0] if problems else "no answer arrived"
        if self._repeats == 1:
            return reason
        return f"{self._repeats - arrived} of {self._repeats} repeats have no answer: {reason}"

    def _sample(self, position: int, repeat: int) -> str | None:
        if self._suite.config.decode.temperature == 0:
            return None
        return f"{self._suite.items[position].id} {repeat}"

    def _tell(self) -> None:
        if self._options.progress is not None:
            self._options.progress(len(self._texts), len(self._questions))


def _score(metric: Metric, cases: list[Case]) -> list[Scored]:
    """Scores; where the metric as a whole fails the answers are kept and the reason is told."""
    try:
        return metric.score(cases)
    except ZtomError as error:
        return [Scored(problem=f"not scored: {error}")] * len(cases)


def kept(answer: str) -> str:
    """``answer`` as it is kept with results: long ones are cut, and say so."""
    if len(answer) <= KEPT_CHARACTERS:
        return answer
    return f"{answer[:KEPT_CHARACTERS]} [cut here: {len(answer):,} characters in all]"
