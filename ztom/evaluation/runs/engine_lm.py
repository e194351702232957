"""Our engines as models of EleutherAI's lm-evaluation-harness.

`EngineLM` runs any task of lm-eval that generates text or compares the probability of choices. What
the protocol of engines cannot say is refused: ``loglikelihood_rolling`` (perplexity of whole
documents) and empty contexts, both of which need a model's start token. Prompts are given to the
engine as everything else is: with its chat template, if it has one and is not told otherwise.

lm-eval's request cache is never used: it is keyed by the names of tasks, not by weights.

This module imports lm-eval, which takes seconds: import it where it is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from numpy.typing import NDArray

from ztom.engines.protocol import Capability, Engine, GenerationConfig
from ztom.errors import CapabilityError
from ztom.stimuli.batches import batches

Progress = Callable[[int, int], None]

_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_DEFAULT_TOKENS = 256
_PASSED_ON = ("top_p", "top_k", "repetition_penalty", "seed")
#: Settings that are as the engines do it anyway.
_IMPLIED = {"num_beams": 1, "num_return_sequences": 1, "skip_special_tokens": True}


class EngineLM(LM):  # type: ignore[misc]
    """An engine as lm-eval's model.

    Args:
        engine: Engine that answers; for one caller at a time.
        batch_size: Number of requests that the engine gets at once.
        greedy_tasks: Names of tasks that look at whether a continuation is what the model would
            have generated. It takes another generation to know, so the others are told False.
        progress: Callback with how many requests of one kind are done, and of how many.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        batch_size: int,
        greedy_tasks: Collection[str] = (),
        progress: Progress | None = None,
    ) -> None:
        super().__init__()
        self._engine = engine
        self._batch_size = batch_size
        self._greedy_tasks = greedy_tasks
        self._progress = progress

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Generate for each request, those with the same settings together.

        Raises:
            CapabilityError: A setting is not known here.
            EngineError: The engine failed: a task without some of its answers has no result.
        """
        answers: dict[int, str] = {}
        by_settings: dict[GenerationConfig, list[int]] = {}
        for place, request in enumerate(requests):
            by_settings.setdefault(generation_config(request.args[1]), []).append(place)
        for config, places in by_settings.items():
            for batch in batches(places, self._batch_size):
                prompts = [requests[place].args[0] for place in batch]
                texts = [answer.text for answer in self._engine.generate(prompts, config)]
                answers.update(zip(batch, texts, strict=True))
                self._tell(len(answers), len(requests))
        return [answers[place] for place in range(len(requests))]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Natural-log probability of each continuation, and whether it is the greedy one.

        Raises:
            CapabilityError: A context is empty, or the engine has no probabilities.
        """
        results: list[tuple[float, bool]] = []
        for batch in batches(range(len(requests)), self._batch_size):
            some = [requests[place] for place in batch]
            if any(request.args[0] == "" for request in some):
                raise CapabilityError(
                    "an empty context needs the model's start token, which engines do not take"
                )
            contexts, continuations = zip(*(request.args for request in some), strict=True)
            rows = self._engine.log_probs(contexts, continuations)
            results += [
                (float(row.sum()), self._is_greedy(request, row))
                for request, row in zip(some, rows, strict=True)
            ]
            self._tell(len(results), len(requests))
        return results

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Refuse: engines score continuations of a prompt only.

        Raises:
            CapabilityError: Always.
        """
        raise CapabilityError(
            "the perplexity of whole documents (loglikelihood_rolling) is not offered: engines "
            "score continuations of prompts",
            fix="Choose tasks that generate, or that choose among continuations.",
        )

    def _is_greedy(self, request: Instance, row: NDArray[Any]) -> bool:
        if request.task_name not in self._greedy_tasks:
            return False
        if (row > math.log(0.5)).all():  # nothing else can be more probable
            return True
        if Capability.GENERATE not in self._engine.info.capabilities:
            raise CapabilityError(f"task {request.task_name} needs an engine that generates")
        context, continuation = request.args
        config = GenerationConfig(max_new_tokens=len(row))
        (generated,) = self._engine.generate([context], config)
        return bool(generated.text.strip() == continuation.strip())

    def _tell(self, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(done, total)


def generation_config(settings: Mapping[str, Any]) -> GenerationConfig:
    """lm-eval's generation settings as ours.

    Raises:
        CapabilityError: One is unknown: ignoring it would measure something else.
    """
    left = dict(settings)
    until = left.pop("until", None) or []
    limits = [left.pop(name) for name in _LIMITS if name in left]
    sampled = left.pop("do_sample", None)
    temperature = float(left.pop("temperature", 0.0) or 0.0)
    ours = {name: left.pop(name) for name in _PASSED_ON if left.get(name) is not None}
    unknown = sorted(name for name, value in left.items() if _IMPLIED.get(name, object()) != value)
    if unknown:
        raise CapabilityError(
            "a task sets how text is generated in a way that engines do not know",
            got=", ".join(unknown),
        )
    return GenerationConfig(
        max_new_tokens=int(next((n for n in limits if n is not None), _DEFAULT_TOKENS)),
        temperature=0.0 if sampled is False else temperature,
        stop=tuple(stop for stop in ([until] if isinstance(until, str) else until) if stop),
        **ours,
    )
