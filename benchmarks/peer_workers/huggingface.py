"""Likelihood and generation with transformers, in batches of any size."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import transformers
from exchange import Answer, Phases, Similarity

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def load_model(folder: str) -> Any:
    """A causal language model in float32, not to be trained."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval().requires_grad_(False)


class Evaluation:
    """Generates, scores the expected answers, and compares texts.

    Args:
        task: The task as `exchange.serve` reads it.
        batch: Prompts in one forward pass.
    """

    def __init__(self, task: dict[str, Any], batch: int) -> None:
        self._rows = task["stimuli"]
        self._new_tokens = task["new_tokens"]
        self._batch = batch
        self._similarity = Similarity(task)
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(task["checkpoints"][-1])

    def run(self, model: Any, phases: Phases) -> Answer:
        """Evaluate a model as it is.

        Args:
            model: Model of transformers.
            phases: Gets the seconds of generate, likelihood and score.
        """
        with torch.inference_mode():
            with phases.time("generate"):
                texts = [t for rows in self._batches() for t in self._generate(model, rows)]
            with phases.time("likelihood"):
                sums = [self._likelihood(model, rows) for rows in self._batches()]
        with phases.time("score"):
            similarity = self._similarity.score(texts)
        tokens = sum(len(row["expected_ids"]) for row in self._rows)
        return {"cross_entropy": sum(sums) / tokens, "similarity": similarity, "texts": texts}

    def _batches(self) -> list[list[dict[str, Any]]]:
        size = self._batch
        return [self._rows[i : i + size] for i in range(0, len(self._rows), size)]

    def _generate(self, model: Any, rows: list[dict[str, Any]]) -> list[str]:
        width = max(len(row["prompt_ids"]) for row in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, width - len(row["prompt_ids"]) :] = torch.tensor(row["prompt_ids"])
            mask[i, width - len(row["prompt_ids"]) :] = 1
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=self._new_tokens,
            do_sample=False,
            pad_token_id=self._tokenizer.pad_token_id,
        )
        return [
            self._tokenizer.decode(row, skip_special_tokens=True) for row in out[:, width:].tolist()
        ]

    def _likelihood(self, model: Any, rows: list[dict[str, Any]]) -> float:
        """Negative log-likelihood of the expected tokens, summed."""
        whole = [row["prompt_ids"] + row["expected_ids"] for row in rows]
        ids = torch.zeros(len(rows), max(map(len, whole)), dtype=torch.long)
        mask = torch.zeros_like(ids)
        labels = torch.full_like(ids, -100)
        for i, (row, tokens) in enumerate(zip(rows, whole, strict=True)):
            ids[i, : len(tokens)] = torch.tensor(tokens)
            mask[i, : len(tokens)] = 1
            labels[i, len(row["prompt_ids"]) : len(tokens)] = torch.tensor(row["expected_ids"])
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        picked = labels[:, 1:] != -100
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1][picked].float(), labels[:, 1:][picked], reduction="sum"
        )
        return float(loss)
