"""A loop of one's own: deltas in memory, the model's parameters written in place.

``torch_loop.py TASK BATCH``: BATCH 1 is the way of the original product, a prompt at a time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from exchange import Answer, Phases, serve
from huggingface import Evaluation, load_model
from safetensors.torch import load_file


def start(task: dict[str, Any]) -> Callable[[dict[str, Any], Phases], Answer]:
    """Load the model and the deltas."""
    folders = task["checkpoints"]
    model = load_model(folders[-1])
    parameters = dict(model.named_parameters())
    states = [load_file(f"{folder}/model.safetensors") for folder in folders]
    names = [name for name in states[0] if name in parameters]
    latest = {name: states[-1][name] for name in names}
    deltas = [
        {name: after[name] - before[name] for name in names}
        for before, after in zip(states, states[1:], strict=False)
    ]
    del states
    evaluation = Evaluation(task, int(sys.argv[2]))

    def evaluate(line: dict[str, Any], phases: Phases) -> Answer:
        with phases.time("blend"), torch.no_grad():
            for name in names:
                target = parameters[name].data
                target.copy_(latest[name])
                for factor, delta in zip(line["factors"], deltas, strict=True):
                    target.add_(delta[name], alpha=factor)
        return evaluation.run(model, phases)

    return evaluate


if __name__ == "__main__":
    serve(start)
