"""A suite as a task of lm-eval, and the model that answers it batch by batch.

Each row is one question: an item, and of a probe one of its repeats. lm-eval builds the requests,
runs them and hands the answers back with the rows they belong to; scoring is ours
(`ztom.evaluation.metrics.build`), because what did not arrive must have no score. Nothing is read
from a hub or a disk, and lm-eval's request cache, which knows a model by its name, is never used.

This module imports lm-eval, which takes seconds: import it where it is needed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import datasets
from lm_eval import evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from ztom.engines.protocol import GenerationConfig
from ztom.errors import CapabilityError, EngineError, EngineTimeoutError, ZtomError
from ztom.evaluation.runs.engine_lm import EngineLM
from ztom.evaluation.runs.questions import Asking, Question, Reply
from ztom.stimuli.prompts import prompt_text

#: An engine that has failed for so long, seconds, without an answer between, is not asked any more.
_GIVE_UP_AFTER_S = 120.0
#: Seeds of repeats lie so far apart; those of items of one repeat follow each other.
_SEED_STRIDE = 1_000_003


def ask(name: str, questions: Sequence[Question], asking: Asking) -> list[Reply]:
    """Ask all questions through lm-eval; one reply for each, in order.

    Args:
        name: Of the suite.
        questions: At least one, by repeat and then in the order of the suite.
        asking: How.

    Raises:
        CapabilityError: The engine does not generate.
    """
    lm = SuiteLM(questions, asking)
    task = SuiteTask(name, questions, asking.decode)
    results = evaluate(
        lm=lm, task_dict={"tasks": {name: task}}, bootstrap_iters=0, cache_requests=False
    )
    replies: dict[int, Reply] = {}
    for sample in results["samples"][name]:
        (answers,) = sample["resps"]
        replies[sample["doc"]["row"]] = answers[0]
    return [replies[row] for row in range(len(questions))]


class SuiteTask(ConfigurableTask):  # type: ignore[misc]
    """The questions as lm-eval's documents, held in memory."""

    def __init__(self, name: str, questions: Sequence[Question], decode: GenerationConfig) -> None:
        self._rows = [
            {"row": row, "text": prompt_text(question.prompt), "target": ""}
            for row, question in enumerate(questions)
        ]
        super().__init__(
            config={
                "task": name,
                "test_split": "test",
                "output_type": "generate_until",
                "doc_to_text": "text",
                "doc_to_target": "target",
                "generation_kwargs": {
                    "until": list(decode.stop),
                    "max_gen_toks": decode.max_new_tokens,
                    "temperature": decode.temperature,
                },
                "process_results": _arrived,
                "metric_list": [
                    {"metric": "arrived", "aggregation": "mean", "higher_is_better": True}
                ],
            }
        )

    def download(self, *_: object, **__: object) -> None:
        """Nothing is fetched: the rows are there."""
        self.dataset = {"test": datasets.Dataset.from_list(self._rows)}

    def build_all_requests(self, **_: object) -> None:
        """A request for each row: no few-shot examples, no template of lm-eval's, no cache."""
        self._instances = [
            self.construct_requests(doc, doc["text"], metadata=(self.config.task, place, 1))
            for place, doc in enumerate(self._rows)
        ]


def _arrived(_: Mapping[str, Any], results: Sequence[Reply]) -> dict[str, float]:
    return {"arrived": float(results[0].text is not None)}


class SuiteLM(EngineLM):
    """Gives lm-eval a `Reply` for every question, whatever the engine does.

    A batch that fails is asked again in halves, until what fails stands alone: one prompt that is
    too long costs one item. An engine that fails slowly, time after time, is left alone.

    For sampled answers the seed follows from repeat and item only, and a batch holds neighbours
    only, because engines count seeds on from one prompt to the next.
    """

    def __init__(self, questions: Sequence[Question], asking: Asking) -> None:
        super().__init__(asking.engine, batch_size=asking.batch_size)
        self._questions = questions
        self._asking = asking
        self._lost_s = 0.0

    def generate_until(self, requests: list[Instance]) -> list[Reply]:  # type: ignore[override]
        """A reply for each request."""
        replies: dict[int, Reply] = {}
        rows = [request.doc["row"] for request in requests]
        for batch in self._neighbours(rows):
            if self._asking.should_stop():
                texts = [Reply(problem="the run was stopped before this was asked")] * len(batch)
            else:
                texts = self._replies(batch)
            replies.update(zip(batch, texts, strict=True))
        return [replies[row] for row in rows]

    def _neighbours(self, rows: Sequence[int]) -> Iterator[Sequence[int]]:
        """Batches of rows; of one repeat and without gaps where answers are sampled."""
        sampled = self._asking.decode.temperature > 0

        def run(pair: tuple[int, int]) -> tuple[int, int]:
            place, row = pair
            question = self._questions[row]
            return (question.repeat, question.position - place) if sampled else (0, 0)

        for _, group in groupby(enumerate(rows), key=run):
            yield from self._batches([row for _, row in group])

    def _replies(self, batch: Sequence[int]) -> list[Reply]:
        if self._lost_s > _GIVE_UP_AFTER_S:
            told = f"not asked: the engine had only failed for {self._lost_s:.0f} s"
            return [Reply(problem=told)] * len(batch)
        began = time.monotonic()
        try:
            texts = self._texts(batch)
        except CapabilityError:
            raise
        except Exception as error:  # an engine's layers raise anything; none of it is an answer
            self._lost_s += time.monotonic() - began
            return self._after_failure(batch, error)
        self._lost_s = 0.0
        self._asking.answered(
            {self._questions[row].key: text for row, text in zip(batch, texts, strict=True)}
        )
        return [Reply(text=text) for text in texts]

    def _texts(self, batch: Sequence[int]) -> list[str]:
        first = self._questions[batch[0]]
        decode = self._asking.decode
        if decode.temperature > 0:
            seed = decode.seed + first.repeat * _SEED_STRIDE + first.position
            decode = decode.model_copy(update={"seed": seed % 2**31})
        prompts = [self._questions[row].prompt for row in batch]
        completions = self._engine.generate(prompts, decode)
        if len(completions) != len(batch):
            raise EngineError("answers were lost", got=len(completions), expected=len(batch))
        return [_encodable(completion.text) for completion in completions]

    def _after_failure(self, batch: Sequence[int], error: Exception) -> list[Reply]:
        if len(batch) > 1 and not isinstance(error, EngineTimeoutError):
            half = len(batch) // 2
            return self._replies(batch[:half]) + self._replies(batch[half:])
        told = str(error) if isinstance(error, ZtomError) else f"{type(error).__name__}: {error}"
        return [Reply(problem=f"the engine failed: {told[:500]}")] * len(batch)


def _encodable(text: str) -> str:
    """``text`` as UTF-8 can write it: half a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")
