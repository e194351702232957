"""What a search settles when it knows the cluster: the dtype, and whether the model fits at all.

Both before anything is loaded. The kind of GPU is known from the nodes that engines may come to, or
from the one that was asked for; where it is not, the engine says what it is when it starts.
"""

from __future__ import annotations

from dataclasses import replace

from cluster.capacity import ClusterCapacity
from tune_search.factories import EngineFactory
from tune_search.preparation import RunInputs
from ztom.blending.plan import parse_dtype
from ztom.engines.device_dtype import settle_dtype
from ztom.engines.device_plan import require_weights_fit
from ztom.engines.gpus import GPUS, Gpu
from ztom.search.config import SearchConfig


def settle_device(
    config: SearchConfig, inputs: RunInputs, capacity: ClusterCapacity
) -> tuple[SearchConfig, RunInputs]:
    """The configuration and the inputs with the dtype that the cluster's GPUs compute in.

    Args:
        config: Configuration of the search.
        inputs: Inputs of the run, opened and read.
        capacity: What the cluster has, and could have.

    Raises:
        EngineError: A GPU that engines may come to holds no such model, or has no such dtype.
    """
    place = inputs.study.place
    needs = capacity.choose(place.needs, place.device)
    if not needs.gpus:
        return config, inputs
    notes = inputs.notes
    for gpu in (GPUS[kind] for kind in capacity.kinds(needs) if kind in GPUS):
        config, note = _settled(config, inputs, gpu)
        notes = (*notes, note) if note else notes
        _require_fit(config, inputs, gpu)
    study = inputs.study
    if isinstance(study.engine, EngineFactory):
        engine = study.engine.engine.model_copy(update={"dtype": config.engine.dtype})
        study = replace(study, engine=replace(study.engine, engine=engine))
    return config, replace(inputs, study=study, notes=notes)


def _settled(config: SearchConfig, inputs: RunInputs, gpu: Gpu) -> tuple[SearchConfig, str]:
    model = inputs.chain.members[inputs.chain.model]
    dtype, note = settle_dtype(
        config.engine.dtype,
        stored=str(model.dtype).removeprefix("torch."),
        model_type=str(model.config.get("model_type", "")),
        gpu=gpu,
    )
    engine = config.engine.model_copy(update={"dtype": dtype})
    return config.model_copy(update={"engine": engine}), note


def _require_fit(config: SearchConfig, inputs: RunInputs, gpu: Gpu) -> None:
    model = inputs.chain.members[inputs.chain.model]
    dtype = parse_dtype(config.engine.dtype)
    specs = model.tensors.values()
    require_weights_fit(
        weights=sum(spec.count * (dtype or spec.dtype).itemsize for spec in specs),
        elements=sum(spec.count for spec in specs),
        dtype=str(dtype or model.dtype).removeprefix("torch."),
        gpu=gpu.name,
        memory=gpu.memory,
        gpus=config.engine.tensor_parallel_size,
    )
