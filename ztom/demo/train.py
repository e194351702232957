"""Training a small chat model in plain PyTorch.

One loop: padded batches of rows of similar length, AdamW, linear warm-up and cosine decay, loss on
the answer's tokens. Rows are rendered by the tokenizer's own chat template, so that training,
teacher-forced scoring and a chat server see the same tokens.

It is meant for chains of minutes on a laptop: one device (the CPU), no mixed precision, no
resuming.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ztom.errors import StimuliError

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

logger = logging.getLogger(__name__)

_MOST_THREADS = 4
_IGNORED = -100  # the target that torch's cross_entropy skips


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and the answer to be learned."""

    prompt: str
    answer: str


@dataclass(frozen=True, slots=True)
class Stage:
    """One checkpoint of a chain: what it is trained on and how.

    Attributes:
        name: Folder name of the checkpoint.
        pairs: Questions and answers, every one seen once per epoch.
        epochs: Number of passes over ``pairs``.
        learning_rate: Peak learning rate of the schedule.
        answers_only: Whether the loss is on the answer and the end token only; otherwise on every
            token.
    """

    name: str
    pairs: tuple[Pair, ...]
    epochs: int
    learning_rate: float
    answers_only: bool = True


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """What the stages have in common.

    Attributes:
        max_tokens: Longest row in tokens; longer rows are cut at their end.
        batch_tokens: Number of padded tokens per step.
        weight_decay: Weight decay of AdamW, on matrices only.
        warmup: Share of a stage's steps spent warming up.
        clip_norm: Largest norm of the gradient; a larger one is scaled down to it.
        seed: Seed of the weights and of the order of the rows.
        threads: Number of PyTorch's threads; None is a thread per core, four at most: matrices this
            small keep no more busy. One is best on a machine whose cores are taken, where threads
            wait for each other after every one of thousands of small operations.
    """

    max_tokens: int = 192
    batch_tokens: int = 512
    weight_decay: float = 0.01
    warmup: float = 0.1
    clip_norm: float = 1.0
    seed: int = 0
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training is, for whoever shows it: after each step.

    Attributes:
        stage: Name of the stage.
        step: Steps done of this stage, from 1.
        steps: Steps of this stage.
        loss: Loss of this step's batch, natural log per trained token.
        done: Share of the whole chain's work that is done, in (0, 1].
    """

    stage: str
    step: int
    steps: int
    loss: float
    done: float


@dataclass(frozen=True, slots=True)
class Example:
    """One row of tokens.

    Attributes:
        ids: Token ids of the question and the answer, start and end tokens included.
        answer_start: Index of the answer's first token.
    """

    ids: tuple[int, ...]
    answer_start: int


def encode(
    tokenizer: PreTrainedTokenizerFast, pairs: Sequence[Pair], *, max_tokens: int
) -> list[Example]:
    """Rows of tokens exactly as a chat server builds them, then the answer and the end token.

    Raises:
        StimuliError: A question alone fills ``max_tokens``.
    """
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": pair.prompt}], tokenize=False, add_generation_prompt=True
        )
        for pair in pairs
    ]
    examples = []
    prompt_ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    answered = tokenizer([pair.answer for pair in pairs], add_special_tokens=False)["input_ids"]
    for pair, question, answer in zip(pairs, prompt_ids, answered, strict=True):
        if len(question) >= max_tokens:
            raise StimuliError(
                f"the question {pair.prompt[:60]!r} leaves no room for an answer",
                got=f"{len(question)} tokens",
                expected=f"fewer than {max_tokens}",
                fix="Shorten the question or raise max_tokens.",
            )
        ids = (*question, *answer, tokenizer.eos_token_id)[:max_tokens]
        examples.append(Example(ids=ids, answer_start=len(question)))
    return examples


def train_stage(
    model: LlamaForCausalLM,
    examples: Sequence[Example],
    stage: Stage,
    *,
    settings: TrainSettings,
    span: tuple[float, float] = (0.0, 1.0),
    on_progress: Callable[[Progress], None] | None = None,
) -> float:
    """Train ``model`` in place on one stage.

    Args:
        model: Model that is trained further from where it stands.
        examples: The stage's pairs, encoded.
        stage: Stage with its number of passes and its learning rate.
        settings: Settings that all stages share.
        span: The part of the whole chain's work that this stage is, for ``Progress.done``.
        on_progress: Callback after each step.

    Returns:
        Mean loss (natural log, per trained token) of the last tenth of the steps.
    """
    order = torch.Generator().manual_seed(settings.seed)
    batches = [batch for _ in range(stage.epochs) for batch in _batches(examples, settings, order)]
    optimizer = _optimizer(model, stage.learning_rate, settings.weight_decay)
    losses: list[float] = []
    model.train()
    with _threads(settings.threads or min(_cores(), _MOST_THREADS)):
        for step, batch in enumerate(batches):
            rate = stage.learning_rate * _schedule(step, len(batches), settings.warmup)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = batch_loss(model, batch, answers_only=stage.answers_only)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
            if on_progress is not None:
                done = span[0] + (span[1] - span[0]) * (step + 1) / len(batches)
                on_progress(Progress(stage.name, step + 1, len(batches), losses[-1], done))
    tail = losses[-max(1, len(losses) // 10) :]
    return sum(tail) / len(tail)


def batch_loss(
    model: LlamaForCausalLM, batch: Sequence[Example], *, answers_only: bool = True
) -> Tensor:
    """Mean cross-entropy per trained token of a batch of rows, a scalar."""
    width = max(len(row.ids) for row in batch)
    ids = torch.full((len(batch), width), model.config.pad_token_id)
    targets = torch.full((len(batch), width), _IGNORED)
    for i, row in enumerate(batch):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        first = row.answer_start if answers_only else 1
        targets[i, first : len(row.ids)] = torch.tensor(row.ids[first:])
    # Padding stands at the right of causal rows: no real token attends to it, so no mask is needed.
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    # The output head is a third of the work at this size: only the positions that are scored.
    wanted = targets[:, 1:] != _IGNORED
    logits = model.lm_head(hidden[:, :-1][wanted])
    return torch.nn.functional.cross_entropy(logits, targets[:, 1:][wanted])


def _batches(
    examples: Sequence[Example], settings: TrainSettings, order: torch.Generator
) -> Iterator[list[Example]]:
    """One epoch: rows of similar length together, batches in random order."""
    shuffled = torch.randperm(len(examples), generator=order).tolist()
    by_length = sorted(shuffled, key=lambda i: len(examples[i].ids))
    batches: list[list[Example]] = [[]]
    for i in by_length:
        if batches[-1] and (len(batches[-1]) + 1) * len(examples[i].ids) > settings.batch_tokens:
            batches.append([])
        batches[-1].append(examples[i])
    for i in torch.randperm(len(batches), generator=order).tolist():
        yield batches[i]


def _optimizer(model: LlamaForCausalLM, rate: float, weight_decay: float) -> torch.optim.AdamW:
    parameters = list(model.parameters())
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ],
        lr=rate,
        betas=(0.9, 0.98),
        fused=True,
    )


def _schedule(step: int, steps: int, warmup: float) -> float:
    """Linear from 0 to 1 over the warm-up, then a cosine down to 0."""
    rising = max(1, round(steps * warmup))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def _cores() -> int:
    """Cores that this process may use; where the system cannot say, all there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
