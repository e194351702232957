"""vLLM on a model that another process has written: loaded anew for each evaluation.

The process and vLLM's imports stay; what each evaluation pays is loading the model.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import vllm
from exchange import Answer, Phases, Similarity, serve
from vllm.inputs import TokensPrompt


def start(task: dict[str, Any]) -> Callable[[dict[str, Any], Phases], Answer]:
    """Import everything; a line names the folder of the model."""
    rows = task["stimuli"]
    similarity = Similarity(task)
    on_cpu = not torch.cuda.is_available()
    memory = {"gpu_memory_utilization": 0.01, "kv_cache_memory_bytes": 2**29} if on_cpu else {}

    def evaluate(line: dict[str, Any], phases: Phases) -> Answer:
        with phases.time("load"):
            model = vllm.LLM(
                model=line["folder"], dtype="float32", enforce_eager=on_cpu, seed=0, **memory
            )
        prompts = [TokensPrompt(prompt_token_ids=row["prompt_ids"]) for row in rows]
        whole = [
            TokensPrompt(prompt_token_ids=row["prompt_ids"] + row["expected_ids"]) for row in rows
        ]
        greedy = vllm.SamplingParams(max_tokens=task["new_tokens"], temperature=0)
        scored = vllm.SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)
        with phases.time("generate"):
            answers = model.generate(prompts, greedy, use_tqdm=False)
        with phases.time("likelihood"):
            results = model.generate(whole, scored, use_tqdm=False)
        texts = [answer.outputs[0].text for answer in answers]
        with phases.time("score"):
            likeness = similarity.score(texts)
        total = sum(
            step[token].logprob
            for result, row in zip(results, rows, strict=True)
            for step, token in zip(
                result.prompt_logprobs[len(row["prompt_ids"]) :], row["expected_ids"], strict=True
            )
        )
        model.llm_engine.engine_core.shutdown()
        del model
        gc.collect()
        tokens = sum(len(row["expected_ids"]) for row in rows)
        return {"cross_entropy": -total / tokens, "similarity": likeness, "texts": texts}

    return evaluate


if __name__ == "__main__":
    serve(start)
