"""How a GPU's memory is divided between an engine and the checkpoints it blends from.

Planned before the engine takes its share, so that what blends read fits beside it where it can:

    usable = 0.9 * memory                      (the rest: context, activations, the blend)
    weights + cache + pristine <= usable       -> device: the engine takes usable - pristine
    weights + cache            <= usable       -> host or file: the engine takes all of it
    weights + cache             > usable       -> refused, before anything is loaded

All numbers are those of one GPU: of a split model each holds its share of the weights and of what
blends read.
"""

from __future__ import annotations

from dataclasses import dataclass

from ztom.errors import EngineError

#: Share of a GPU's memory that can be planned with.
USABLE = 0.9
#: Least key-value cache, bytes.
LEAST_CACHE = 2**30
_GB = 10**9


@dataclass(frozen=True)
class DevicePlan:
    """The division of one GPU's memory.

    Attributes:
        holds_chain: Whether the checkpoints fit beside the engine.
        share: Share of the GPU's memory that the engine takes, weights and cache.
        cache: Bytes of it that are left for the key-value cache.
    """

    holds_chain: bool
    share: float
    cache: int


def plan_device(memory: int, *, weights: int, pristine: int) -> DevicePlan | None:
    """Divide a GPU's memory; None where the model does not fit at all.

    Args:
        memory: Bytes of the GPU.
        weights: Bytes of the model's weights on it, in the dtype that is deployed.
        pristine: Bytes of the checkpoints that blends read on it; 0 for one fixed model.
    """
    usable = int(USABLE * memory)
    beside = usable - pristine
    engine = beside if weights + LEAST_CACHE <= beside else usable
    if weights + LEAST_CACHE > engine:
        return None
    return DevicePlan(engine == beside, engine / memory, engine - weights)


def require_weights_fit(
    *, weights: int, elements: int, dtype: str, gpu: str, memory: int, gpus: int
) -> None:
    """Refuse a model that its GPUs cannot hold, with the arithmetic.

    Args:
        weights: Bytes of all weights in the dtype that is deployed.
        elements: Number of weights.
        dtype: Name of that dtype.
        gpu: Kind of GPU.
        memory: Bytes of one.
        gpus: Number of GPUs that the model is split over.

    Raises:
        EngineError: It does not fit.
    """
    if plan_device(memory, weights=-(-weights // gpus), pristine=0) is not None:
        return
    needed = (weights / gpus + LEAST_CACHE) / USABLE / memory
    raise EngineError(
        f"the model does not fit into {gpus} {gpu}",
        got=f"{elements / 1e9:.3g} billion weights in {dtype}: {weights / _GB:.3g} GB, of which "
        f"{gpus} x {memory / _GB:.3g} GB hold {USABLE * gpus * memory / _GB:.3g} GB with a cache "
        f"of {LEAST_CACHE / _GB:.2g} GB each",
        expected=f"about {needed:.2g} times the memory",
        fix="Take more or larger GPUs (tensor_parallel_size, accelerator_type), or a smaller "
        "model. Weights of 8 or 4 bits are neither searched nor served.",
    )
