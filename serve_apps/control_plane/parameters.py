"""The names of a project's parameters: what analyses take, and what its metadata lists."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from serve_apps.control_plane.chains import ProjectChain, open_file_of_project
from serve_apps.control_plane.services import Services
from ztom.ledger.checkpoints import CheckpointRecord
from ztom.wire.projects import ParameterNames

if TYPE_CHECKING:
    from ztom.checkpoints.checkpoint import Checkpoint

#: PEFT's names: what it puts before a module's, and what its factors end in.
_PEFT_PREFIX = "base_model.model."
_PEFT_FACTORS = (".lora_A", ".lora_B")


def parameter_names(
    chain: ProjectChain, last: CheckpointRecord, services: Services
) -> ParameterNames:
    """Names of the weights, biases and layers of a chain's model.

    Of adapters these are the base model's, for there is where their changes are, and the adapters'
    own layers besides, as PEFT calls them (``model.layers.1.mlp.up_proj.lora_A.default``).

    Args:
        chain: Chain of the project.
        last: File of it whose parameters are named.
        services: Services of the process.

    Raises:
        CheckpointError: The file, or its base model, cannot be used.
        StorageError: It cannot be read.
    """
    from ztom.blending.changes import is_bias  # it imports torch

    checkpoint = open_file_of_project(last, services)
    model, own = checkpoint, list[str]()
    if checkpoint.kind == "adapter":
        own = sorted({_peft_layer(name) for name in checkpoint.tensors})
        model = _base(chain, services)
    names = [name for name, spec in model.tensors.items() if spec.dtype.is_floating_point]
    return ParameterNames(
        layers=(*_layers(names), *own),
        weights=tuple(name for name in names if not is_bias(name)),
        biases=tuple(name for name in names if is_bias(name)),
    )


def _base(chain: ProjectChain, services: Services) -> Checkpoint:
    from ztom.checkpoints.checkpoint import open_checkpoint  # it imports torch

    if chain.base is not None:
        return open_checkpoint(chain.base, settings=services.pointers)
    return open_file_of_project(chain.files[0], services)


def _layers(names: Iterable[str]) -> list[str]:
    """The modules that have these parameters, in the order of the names."""
    modules = (name.rpartition(".")[0] for name in names)
    return list(dict.fromkeys(module for module in modules if module))


def _peft_layer(name: str) -> str:
    """The module of an adapter's tensor, with the adapter's name that PEFT leaves out of files."""
    module = name.removeprefix(_PEFT_PREFIX).rpartition(".")[0]
    return f"{module}.default" if module.endswith(_PEFT_FACTORS) else module
