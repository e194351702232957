"""The team's suites in the proof of a search: the gate decides about the variant as written.

The trained model is the champion, the variant the candidate. Both are asked through the process
that answers the holdout; answers are scored here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tune_search.config import SearchConfig
from tune_search.engine_pool import EngineClient
from tune_search.prepare import Prepared
from tune_search.result import GateSummary
from ztom.engines.protocol import BlendStats, Completion, EngineInfo, GenerationConfig
from ztom.errors import CapabilityError
from ztom.evaluation.cache import usual_cache
from ztom.evaluation.gate import decide
from ztom.evaluation.harness import RunOptions, run_suite
from ztom.evaluation.models import open_model, setup_digest
from ztom.evaluation.render.page import render_page
from ztom.evaluation.render.texts import item_texts
from ztom.evaluation.results import ModelRef, SuiteRun
from ztom.evaluation.verdict import Verdict
from ztom.files import write_whole
from ztom.settings import Settings
from ztom.stimuli.records import Prompt

VERDICT, PAGE = "verdict.json", "verdict.html"
Runs = tuple[SuiteRun, ...]


@dataclass(frozen=True)
class AskedEngine:
    """An engine of another process with one blend loaded, for generating only.

    Attributes:
        client: The way to it.
        info: What it is.
        factors: Of the blend.
    """

    client: EngineClient
    info: EngineInfo
    factors: tuple[float, ...]

    def generate(self, prompts: Sequence[Prompt], config: GenerationConfig) -> list[Completion]:
        """See `ztom.engines.protocol.Engine.generate`."""
        return self.client.generate(self.factors, tuple(prompts), config)

    def blend(self, factors: Sequence[float]) -> BlendStats:
        """Not offered."""
        self._refuse("blend")

    def log_probs(self, prompts: Sequence[Prompt], continuations: Sequence[str]) -> NoReturn:
        """Not offered."""
        self._refuse("log_probs")

    def values(self, prompts: Sequence[Prompt]) -> NoReturn:
        """Not offered."""
        self._refuse("values")

    def close(self) -> None:
        """Whoever made the client ends the process."""

    def _refuse(self, what: str) -> NoReturn:
        raise CapabilityError(f"suites are asked for text only, not for {what}")


def champion_of(prepared: Prepared, settings: Settings) -> ModelRef:
    """The trained model, named and with the digest that ``ztom gate --champion`` gives it."""
    chain = prepared.chain
    if chain.is_adapter_chain:
        return open_model(
            chain.reference.reference, base=chain.base.reference, settings=settings
        ).ref
    return ModelRef(name=chain.reference.reference, digest=chain.reference.digest)


def written(prepared: Prepared, folder: Path, settings: Settings) -> ModelRef:
    """Weights that were written and are no variant yet, with the digest of their files."""
    is_adapter = (folder / "adapter_config.json").exists()
    base = prepared.chain.base.reference if is_adapter else None
    return open_model(str(folder), base=base, settings=settings).ref


def answer_suites(
    config: SearchConfig,
    prepared: Prepared,
    engine: AskedEngine,
    model: ModelRef,
    *,
    on_progress: Callable[[str, int, int], None],
) -> Runs:
    """Have a model answer every suite of the configuration.

    Args:
        config: Of the search.
        prepared: Has the suites.
        engine: With the model loaded.
        model: Which it is.
        on_progress: Told the suite, how many answers there are, and of how many.
    """
    runs = []
    with usual_cache(Settings()) as cache:
        for each in prepared.suites:
            name = each.suite.config.name
            options = RunOptions(
                import_paths=each.import_paths,
                progress=lambda done, total, name=name: on_progress(name, done, total),
            )
            setup = setup_digest(config.engine)
            runs.append(
                run_suite(engine, each.suite, model, setup=setup, cache=cache, options=options)
            )
    return tuple(runs)


def judge_suites(
    config: SearchConfig, prepared: Prepared, champion: Runs, candidate: Runs, model: ModelRef
) -> Verdict:
    """The gate's verdict, with the candidate under the name and digest that it has by now."""
    named = [run.model_copy(update={"model": model}) for run in candidate]
    suites = [each.suite for each in prepared.suites]
    return decide(named, champion, suites, seed=config.seed)


def write_verdict(
    config: SearchConfig, prepared: Prepared, verdict: Verdict, champion: Runs, candidate: Runs
) -> None:
    """Write ``verdict.html`` and ``verdict.json`` into the output folder."""
    texts = item_texts(verdict, [each.suite for each in prepared.suites], candidate, champion)
    write_whole(config.output / PAGE, render_page(verdict, texts))
    write_whole(config.output / VERDICT, verdict.to_bytes().decode())


def summary(verdict: Verdict) -> GateSummary:
    """What the result of the search and the variant's recipe say of a verdict."""
    return GateSummary(
        outcome=verdict.outcome,
        reasons=verdict.reasons,
        suites={each.suite.name: each.suite.digest for each in verdict.suites},
    )
