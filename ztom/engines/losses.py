"""Batches of stimuli for derivatives: what a model is given, and how its answer becomes errors.

The same errors as those of `ztom.scoring`, as torch functions of the model's output. Long texts
stand with long ones, and a batch is as small as its logits demand, so that memory is bounded.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ztom.engines.prompts import PromptEncoder, check_length
from ztom.errors import CapabilityError, EngineError, ScoringError
from ztom.scoring.differentiable import LossTerm
from ztom.scoring.likelihood import true_labels
from ztom.scoring.regression import numbers_in
from ztom.stimuli.batches import batches
from ztom.stimuli.records import Prompt, Stimulus

#: Elements of the logits of one batch; derivatives keep several tensors of this size (float32).
_MOST_LOGITS = 2**24

ModelInputs = tuple[tuple[torch.Tensor, ...], Mapping[str, Any]]


@dataclass(frozen=True)
class LossBatch:
    """Some stimuli of one data set.

    Attributes:
        inputs: Positional and named arguments of the model.
        rows: Position of each stimulus in its data set, int64, shape (stimuli,).
        losses: Turns the model's logits or output into the error of each stimulus that is summed
            over the set, shape (stimuli,).
    """

    inputs: ModelInputs
    rows: NDArray[np.int64]
    losses: Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class LossSet:
    """One term of the error over one data set: ``weight * sum(losses) / sum(sizes)``.

    Attributes:
        weight: Factor of the term.
        sizes: What each stimulus counts for, its tokens or one, float64, shape (stimuli,).
        batches: All stimuli, in batches.
    """

    weight: float
    sizes: NDArray[np.float64]
    batches: tuple[LossBatch, ...]


@dataclass(frozen=True)
class LossInputs:
    """What batches are made with.

    Attributes:
        model: The model.
        device: Device of the model.
        encoder: Turns texts into tokens; None for a model that takes numbers.
        row_inputs: Makes the inputs of a model with one output row per stimulus; None for a
            language model.
        max_length: Longest sequence, in tokens.
        max_rows: Most rows of a batch.
    """

    model: Any
    device: torch.device
    encoder: PromptEncoder | None
    row_inputs: Callable[[Sequence[Prompt]], ModelInputs] | None
    max_length: int
    max_rows: int

    def prepare(self, stimuli: Sequence[Stimulus], term: LossTerm) -> LossSet:
        """The batches of one term.

        Raises:
            CapabilityError: The model gives no answer of this kind.
            ScoringError: An expected output is no label, or no number.
        """
        if term.kind == "values":
            return LossSet(term.weight, np.ones(len(stimuli)), tuple(self._value_batches(stimuli)))
        if term.kind == "labels" and self.row_inputs is not None:
            return LossSet(
                term.weight, np.ones(len(stimuli)), tuple(self._class_batches(stimuli, term.labels))
            )
        if self.encoder is None or self.row_inputs is not None:
            raise CapabilityError(
                "this model has no probabilities of tokens",
                fix="Name the class labels (labels: [...]), or use the error mse.",
            )
        if term.kind == "labels":
            return LossSet(
                term.weight, np.ones(len(stimuli)), tuple(self._label_batches(stimuli, term.labels))
            )
        pairs = [self._pair(s, s.expected) for s in stimuli]
        sizes = np.array([len(continuation) for _, continuation in pairs], dtype=np.float64)
        return LossSet(term.weight, sizes, tuple(self._token_batches(pairs)))

    def _value_batches(self, stimuli: Sequence[Stimulus]) -> Iterator[LossBatch]:
        for rows, args in self._row_batches(stimuli):
            wanted = self._numbers([stimuli[i] for i in rows])

            def losses(out: torch.Tensor, wanted: torch.Tensor = wanted) -> torch.Tensor:
                _check_width(out, wanted.shape[1], "numbers in an expected output")
                return ((out - wanted.to(out.dtype)) ** 2).mean(1)

            yield LossBatch(args, rows, losses)

    def _class_batches(
        self, stimuli: Sequence[Stimulus], labels: tuple[str, ...]
    ) -> Iterator[LossBatch]:
        true = true_labels(stimuli, labels, function="cross_entropy")
        for rows, args in self._row_batches(stimuli):
            wanted = torch.from_numpy(true[rows]).to(self.device)

            def losses(out: torch.Tensor, wanted: torch.Tensor = wanted) -> torch.Tensor:
                _check_width(out, len(labels), "labels")
                return -out.log_softmax(1).gather(1, wanted[:, None])[:, 0]

            yield LossBatch(args, rows, losses)

    def _row_batches(
        self, stimuli: Sequence[Stimulus]
    ) -> Iterator[tuple[NDArray[np.int64], ModelInputs]]:
        if self.row_inputs is None:
            raise CapabilityError("a causal language model has no output row")
        for part in batches(range(len(stimuli)), self.max_rows):
            rows = np.array(part, dtype=np.int64)
            yield rows, self.row_inputs([stimuli[i].prompt for i in part])

    def _numbers(self, stimuli: Sequence[Stimulus]) -> torch.Tensor:
        wanted = [numbers_in(stimulus.expected) for stimulus in stimuli]
        if any(row is None or row.size != wanted[0].size for row in wanted):  # type: ignore[union-attr]
            raise ScoringError("mse: the expected outputs are not as many numbers each")
        return torch.tensor(np.array(wanted)).to(self.device)

    def _label_batches(
        self, stimuli: Sequence[Stimulus], labels: tuple[str, ...]
    ) -> Iterator[LossBatch]:
        true = true_labels(stimuli, labels, function="cross_entropy")
        pairs = [[self._pair(s, label) for label in labels] for s in stimuli]
        order = sorted(range(len(pairs)), key=lambda i: max(map(_length, pairs[i])))
        most = max(1, self.max_rows // len(labels))
        for part in self._parts(order, lambda i: max(map(_length, pairs[i])), most, len(labels)):
            batch = self._batch([pair for i in part for pair in pairs[i]])
            wanted = torch.from_numpy(true[part]).to(self.device)

            def losses(
                logits: torch.Tensor, batch: _TokenBatch = batch, wanted: torch.Tensor = wanted
            ) -> torch.Tensor:
                sums = batch.log_likelihoods(logits).reshape(-1, len(labels))
                return -sums.log_softmax(1).gather(1, wanted[:, None])[:, 0]

            yield LossBatch(((), batch.inputs), np.array(part, dtype=np.int64), losses)

    def _token_batches(self, pairs: Sequence[_Pair]) -> Iterator[LossBatch]:
        order = sorted(range(len(pairs)), key=lambda i: _length(pairs[i]))
        for part in self._parts(order, lambda i: _length(pairs[i]), self.max_rows, 1):
            batch = self._batch([pairs[i] for i in part])

            def losses(logits: torch.Tensor, batch: _TokenBatch = batch) -> torch.Tensor:
                return -batch.log_likelihoods(logits)

            yield LossBatch(((), batch.inputs), np.array(part, dtype=np.int64), losses)

    def _pair(self, stimulus: Stimulus, text: str) -> _Pair:
        encoder = self.encoder
        if encoder is None:
            raise CapabilityError("this model takes no text")
        prompt, continuation = encoder.prompt_ids(stimulus.prompt), encoder.continuation_ids(text)
        check_length(prompt, continuation, limit=self.max_length)
        return prompt, continuation

    def _parts(
        self, order: Sequence[int], length: Callable[[int], int], most: int, sequences: int
    ) -> Iterator[list[int]]:
        """Positions in batches whose logits have no more than so many elements."""
        vocabulary = int(self.model.config.get_text_config().vocab_size)
        part: list[int] = []
        for position in order:
            rows = (len(part) + 1) * sequences
            if part and (len(part) == most or rows * length(position) * vocabulary > _MOST_LOGITS):
                yield part
                part = []
            part.append(position)
        if part:
            yield part

    def _batch(self, pairs: Sequence[_Pair]) -> _TokenBatch:
        takes_kept = "logits_to_keep" in inspect.signature(self.model.forward).parameters
        return _token_batch(pairs, device=self.device, trim=takes_kept)


_Pair = tuple[list[int], list[int]]


def _length(pair: _Pair) -> int:
    return len(pair[0]) + len(pair[1])


@dataclass(frozen=True)
class _TokenBatch:
    """Prompts with continuations, padded on the right.

    Attributes:
        inputs: Named arguments of the model.
        row: Row of each token of a continuation, int64, shape (tokens,).
        place: Position of the logits that it is predicted by, shape (tokens,).
        token: Id of each token, shape (tokens,).
        count: Number of rows.
    """

    inputs: Mapping[str, Any]
    row: torch.Tensor
    place: torch.Tensor
    token: torch.Tensor
    count: int

    def log_likelihoods(self, logits: torch.Tensor) -> torch.Tensor:
        """Log-probability of each row's continuation, shape (rows,)."""
        scored = logits[self.row, self.place].log_softmax(-1)
        picked = scored.gather(1, self.token[:, None])[:, 0]
        return picked.new_zeros(self.count).index_add(0, self.row, picked)


def _token_batch(pairs: Sequence[_Pair], *, device: torch.device, trim: bool) -> _TokenBatch:
    longest = max(map(_length, pairs))
    tokens = torch.zeros(len(pairs), longest, dtype=torch.long)
    mask = torch.zeros_like(tokens)
    first = min(len(prompt) for prompt, _ in pairs) - 1 if trim else 0
    row, place, token = [], [], []
    for i, (prompt, continuation) in enumerate(pairs):
        ids = prompt + continuation
        tokens[i, : len(ids)] = torch.tensor(ids)
        mask[i, : len(ids)] = 1
        row += [i] * len(continuation)
        place += [len(prompt) - 1 + k - first for k in range(len(continuation))]
        token += continuation
    inputs: dict[str, Any] = {"input_ids": tokens.to(device), "attention_mask": mask.to(device)}
    inputs["use_cache"] = False
    if trim:
        inputs["logits_to_keep"] = longest - first
    return _TokenBatch(
        inputs,
        torch.tensor(row, device=device),
        torch.tensor(place, device=device),
        torch.tensor(token, device=device),
        len(pairs),
    )


def _check_width(out: torch.Tensor, count: int, what: str) -> None:
    if out.ndim != 2 or out.shape[1] != count:
        raise EngineError(
            "the model's output is not what the error needs",
            got=list(out.shape),
            expected=f"[stimuli, {count}]: as many outputs as {what}",
        )
