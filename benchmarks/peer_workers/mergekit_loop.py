"""mergekit, as its own evolution does it: to disk, or planned and merged in memory.

``mergekit_loop.py TASK disk|memory|merge``: ``merge`` only writes the model, for another process.
A blend with factors is mergekit's method ``linear`` without normalisation, with the coefficients
that the factors give each checkpoint.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exchange import Answer, Phases, serve
from huggingface import Evaluation, load_model
from mergekit.architecture import arch_info_for_config
from mergekit.config import MergeConfiguration
from mergekit.graph import Executor
from mergekit.io.tasks import LoaderCache, ReturnTensor
from mergekit.merge import _model_out_config, run_merge
from mergekit.options import MergeOptions
from mergekit.plan import MergePlanner

OPTIONS = MergeOptions(cuda=False, quiet=True, copy_tokenizer=True, random_seed=0)


def configuration(folders: list[str], factors: list[float]) -> MergeConfiguration:
    """The merge of a chain with these scaling factors."""
    weights = [0.0] * len(folders)
    weights[-1] = 1.0
    for step, factor in enumerate(factors, start=1):
        weights[step] += factor
        weights[step - 1] -= factor
    models = [
        {"model": folder, "parameters": {"weight": weight}}
        for folder, weight in zip(folders, weights, strict=True)
    ]
    return MergeConfiguration.model_validate(
        {
            "merge_method": "linear",
            "dtype": "float32",
            "parameters": {"normalize": False},
            "models": models,
        }
    )


def start(task: dict[str, Any]) -> Callable[[dict[str, Any], Phases], Answer]:
    """Choose what the command line names."""
    folders, kind = task["checkpoints"], sys.argv[2]
    if kind == "memory":
        return _in_memory(folders, Evaluation(task, len(task["stimuli"])))
    evaluation = None if kind == "merge" else Evaluation(task, len(task["stimuli"]))
    target = Path(task["scratch"]) / f"merged-{kind}"

    def evaluate(line: dict[str, Any], phases: Phases) -> Answer:
        shutil.rmtree(target, ignore_errors=True)
        with phases.time("blend"):
            run_merge(configuration(folders, line["factors"]), str(target), OPTIONS)
        if evaluation is None:
            return {"folder": str(target)}
        with phases.time("load"):
            model = load_model(str(target))
        return evaluation.run(model, phases)

    return evaluate


def _in_memory(
    folders: list[str], evaluation: Evaluation
) -> Callable[[dict[str, Any], Phases], Answer]:
    """One model that stays; each merge is copied into it (`InMemoryMergeEvaluator`)."""
    model = load_model(folders[-1])
    parameters = dict(model.named_parameters())
    LoaderCache().setup(OPTIONS)

    def evaluate(line: dict[str, Any], phases: Phases) -> Answer:
        with phases.time("blend"):
            merge = configuration(folders, line["factors"])
            architecture = arch_info_for_config(model.config)
            out = _model_out_config(merge, architecture, trust_remote_code=False)
            executor = Executor(
                _tasks(merge, architecture, out), math_device="cpu", storage_device="cpu"
            )
            for task, value in executor.run(quiet=True):
                name = task.weight_info.name
                if name in parameters:
                    parameters[name].data.copy_(value)
        return evaluation.run(model, phases)

    return evaluate


def _tasks(merge: MergeConfiguration, architecture: Any, out: Any) -> list[ReturnTensor]:
    """`MergePlanner.plan_in_memory`, which fails in 0.1.5: its tasks fail their own validation."""
    planner = MergePlanner(merge, architecture, OPTIONS, out)
    planner._plan()
    return [
        ReturnTensor.model_construct(weight_info=info, tensor_task=task, dtype="float32")
        for info, task in planner._tensors
    ]


if __name__ == "__main__":
    serve(start)
