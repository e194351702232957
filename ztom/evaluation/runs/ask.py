"""Asking an engine all questions of a suite, batch by batch, whatever the engine does.

Each question gets a `ModelReply`. A batch that fails is asked again in halves, until what fails
stands alone: one prompt that is too long costs one item. An engine that fails slowly, time after
time, is left alone.

For sampled answers the seed follows from repeat and item only, and a batch holds neighbours only,
because engines count seeds on from one prompt to the next.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import groupby

from ztom.engines.protocol import GenerationConfig
from ztom.errors import CapabilityError, EngineError, EngineTimeoutError, PromptError, ZtomError
from ztom.evaluation.runs.questions import Asking, ModelReply, Question
from ztom.stimuli.batches import batches

#: An engine that has failed for so long, seconds, without an answer between, is not asked any more.
_GIVE_UP_AFTER_S = 120.0
#: Seeds of repeats lie so far apart; those of items of one repeat follow each other.
_SEED_STRIDE = 1_000_003


def ask(questions: Sequence[Question], asking: Asking) -> list[ModelReply]:
    """Ask all questions; one reply for each, in order.

    Args:
        questions: Questions by repeat and then in the order of the suite.
        asking: Engine and settings to ask with.

    Raises:
        CapabilityError: The engine does not generate.
    """
    patient = _PatientEngine(asking)
    replies: list[ModelReply] = []
    for batch in _batches(questions, asking):
        if asking.should_stop():
            replies += [ModelReply(problem="the run was stopped before this was asked")] * len(
                batch
            )
        else:
            replies += patient.replies(batch)
    return replies


def _batches(questions: Sequence[Question], asking: Asking) -> Iterator[Sequence[Question]]:
    """Batches of questions; of one repeat and without gaps where answers are sampled."""
    sampled = asking.decode.temperature > 0

    def run(numbered: tuple[int, Question]) -> tuple[int, int]:
        number, question = numbered
        return (question.repeat, question.position - number) if sampled else (0, 0)

    for _, group in groupby(enumerate(questions), key=run):
        yield from batches([question for _, question in group], asking.batch_size)


class _PatientEngine:
    """An engine whose failures cost no more than the questions that they are about."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking
        self._lost_s = 0.0

    def replies(self, batch: Sequence[Question]) -> list[ModelReply]:
        """A reply for each question.

        Raises:
            CapabilityError: The engine does not generate.
        """
        if self._lost_s > _GIVE_UP_AFTER_S:
            reason = f"not asked: the engine had only failed for {self._lost_s:.0f} s"
            return [ModelReply(problem=reason)] * len(batch)
        began = time.monotonic()
        try:
            texts = self._texts(batch)
        except PromptError as error:  # the engine is as good as before
            return self._after_failure(batch, error)
        except CapabilityError:
            raise
        except Exception as error:  # an engine's layers raise anything; none of it is an answer
            self._lost_s += time.monotonic() - began
            return self._after_failure(batch, error)
        self._lost_s = 0.0
        self._asking.answered(
            {question.key: text for question, text in zip(batch, texts, strict=True)}
        )
        return [ModelReply(text=text) for text in texts]

    def _texts(self, batch: Sequence[Question]) -> list[str]:
        decode = _seeded(self._asking.decode, batch[0])
        prompts = [question.prompt for question in batch]
        completions = self._asking.engine.generate(prompts, decode)
        if len(completions) != len(batch):
            raise EngineError("answers were lost", got=len(completions), expected=len(batch))
        return [_encodable(completion.text) for completion in completions]

    def _after_failure(self, batch: Sequence[Question], error: Exception) -> list[ModelReply]:
        if len(batch) > 1 and not isinstance(error, EngineTimeoutError):
            half = len(batch) // 2
            return self.replies(batch[:half]) + self.replies(batch[half:])
        reason = str(error) if isinstance(error, ZtomError) else f"{type(error).__name__}: {error}"
        return [ModelReply(problem=f"the engine failed: {reason[:500]}")] * len(batch)


def _seeded(decode: GenerationConfig, first: Question) -> GenerationConfig:
    """The settings for a batch that begins with this question."""
    if decode.temperature == 0:
        return decode
    seed = decode.seed + first.repeat * _SEED_STRIDE + first.position
    return decode.model_copy(update={"seed": seed % 2**31})


def _encodable(text: str) -> str:
    """``text`` as UTF-8 can write it: half a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")
