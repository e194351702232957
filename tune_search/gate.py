"""The team's suites in the proof of a search: the gate decides about the variant as written.

The trained model is the champion, the variant the candidate. Both are asked through the process
that answers the holdout; answers are scored here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tune_search.engine_client import EngineClient
from tune_search.phases import PhaseTimer
from tune_search.preparation import RunInputs
from ztom.engines.protocol import Completion, EngineInfo, GenerationConfig
from ztom.evaluation.gate.decide import decide
from ztom.evaluation.gate.verdict import Verdict
from ztom.evaluation.render.page import render_page
from ztom.evaluation.render.texts import item_texts
from ztom.evaluation.runs.harness import run_suites
from ztom.evaluation.runs.models import open_model, setup_digest
from ztom.evaluation.runs.results import ModelRef, SuiteRun
from ztom.io.files import write_whole
from ztom.ledger import Ledger
from ztom.ledger.verdicts import NewVerdict
from ztom.search.config import SearchConfig
from ztom.search.result import GateSummary
from ztom.settings import Settings, local_actor
from ztom.stimuli.records import Prompt

VERDICT, PAGE = "verdict.json", "verdict.html"
Runs = tuple[SuiteRun, ...]

#: Has the model in an engine's process answer the suites.
AnswerSuites = Callable[[EngineClient, EngineInfo], Runs]


@dataclass(frozen=True)
class RemoteEngine:
    """Generates with one blend, in an engine of another process.

    Attributes:
        client: The way to the process.
        info: Name, version and capabilities of the engine.
        factors: Scaling factors of the blend, one per transition.
    """

    client: EngineClient
    info: EngineInfo
    factors: tuple[float, ...]

    def generate(self, prompts: Sequence[Prompt], config: GenerationConfig) -> list[Completion]:
        """See `ztom.engines.protocol.Generates.generate`."""
        return self.client.generate(self.factors, tuple(prompts), config)


class SuiteGate:
    """The suites of a search: has models answer them, and decides.

    Args:
        config: Configuration of the search.
        inputs: Inputs of the run, with its suites and its chain.
        settings: Limits on what may be opened as a checkpoint.
        variant: Name of the variant that is published if it passes.
        timer: Timer that counts seconds and reports progress.
    """

    def __init__(
        self,
        config: SearchConfig,
        inputs: RunInputs,
        settings: Settings,
        *,
        variant: str,
        timer: PhaseTimer,
    ) -> None:
        self._config, self._inputs, self._settings = config, inputs, settings
        self._variant, self._timer = variant, timer
        self._champion = _trained_model(inputs, settings)

    def champion_answers(self, factors: tuple[float, ...]) -> AnswerSuites:
        """Have the trained model, which is in the engine, answer the suites."""
        return self._answers("the trained model", self._champion, factors)

    def candidate_answers(self, folder: Path, factors: tuple[float, ...]) -> AnswerSuites:
        """Have what was written into a folder, and is no variant yet, answer the suites."""
        is_adapter = (folder / "adapter_config.json").exists()
        base = self._inputs.chain.base.reference if is_adapter else None
        settings = self._settings.also_allowing(folder)
        model = open_model(str(folder), base=base, settings=settings).ref
        return self._answers("the variant, as written,", model, factors)

    def decide(self, champion: Runs, candidate: Runs) -> GateSummary:
        """Decide about what is not published yet; writes the verdict down as well.

        Returns:
            What the result of the search and the variant's recipe say of the verdict.
        """
        verdict = self._decide(champion, candidate, candidate[0].model)
        return GateSummary(
            outcome=verdict.outcome,
            reasons=verdict.reasons,
            suites={entry.suite.name: entry.suite.digest for entry in verdict.suites},
        )

    def record(self, ledger: Ledger, champion: Runs, candidate: Runs, digest: str) -> None:
        """The same verdict again, about the variant that it let out, on record."""
        verdict = self._decide(champion, candidate, ModelRef(name=self._variant, digest=digest))
        new = NewVerdict(verdict.to_bytes(), digest, self._champion.digest, verdict.outcome)
        ledger.verdicts.record(new, actor=local_actor())

    def _decide(self, champion: Runs, candidate: Runs, model: ModelRef) -> Verdict:
        """The gate's verdict, on the candidate under the name and digest that it has by now."""
        config, suites = self._config, [entry.suite for entry in self._inputs.suites]
        named = [run.model_copy(update={"model": model}) for run in candidate]
        verdict = decide(named, champion, suites, seed=config.seed)
        texts = item_texts(verdict, suites, candidate, champion)
        write_whole(config.output / PAGE, render_page(verdict, texts))
        write_whole(config.output / VERDICT, verdict.to_bytes().decode())
        return verdict

    def _answers(self, who: str, model: ModelRef, factors: tuple[float, ...]) -> AnswerSuites:
        def answer(client: EngineClient, info: EngineInfo) -> Runs:
            began = time.perf_counter()
            runs = run_suites(
                RemoteEngine(client, info, factors),
                self._inputs.suites,
                model,
                setup=setup_digest(self._config.engine),
                progress=lambda suite, done, total: self._timer.report(
                    f"{who} answers suite {suite}: {done} of {total}"
                ),
            )
            results = tuple(runs)
            self._timer.add("suites", time.perf_counter() - began)
            return results

        return answer


def _trained_model(inputs: RunInputs, settings: Settings) -> ModelRef:
    """Named and with the digest that ``ztom gate --champion`` gives it."""
    chain = inputs.chain
    if chain.is_adapter_chain:
        return open_model(
            chain.reference.reference, base=chain.base.reference, settings=settings
        ).ref
    return ModelRef(name=chain.reference.reference, digest=chain.reference.digest)
