"""Names of a model that was compiled or wrapped when it was saved: ``_orig_mod.``, ``module.``.

The prefix says how a run was carried out, not what a tensor is. Where every tensor has the same one
and all have a place in the model without it, it is taken away; anything else would be a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ztom.checkpoints.tensors import TensorSpec
from ztom.errors import CheckpointError

#: Parts of names that only torch.compile, FSDP and activation checkpointing add.
_INNER = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
#: Parts that a name may begin with: those, and that of (Distributed)DataParallel.
_WRAPPERS = _INNER | {"module"}


def unwrap(
    reference: str, config: Mapping[str, Any], tensors: Mapping[str, TensorSpec]
) -> tuple[Mapping[str, TensorSpec], str]:
    """The tensors under the model's names, and the prefix that was taken away.

    Args:
        reference: Names the checkpoint in errors.
        config: Content of ``config.json``.
        tensors: Place of each tensor by its name.

    Returns:
        The tensors as they are and an empty prefix, where no wrapper shows or nobody knows the
        model.

    Raises:
        CheckpointError: Wrappers show in some names only, or not all fit without them.
    """
    wrapped = [name for name in tensors if _is_wrapped(name)]
    if not wrapped:
        return tensors, ""
    from ztom.checkpoints.own_names import OwnNames, model_of

    model = model_of(config)
    if model is None:
        return tensors, ""
    own = OwnNames(model)
    if own.fits(tensors):
        return tensors, ""
    prefix = _common_prefix(tensors)
    stripped = {
        name.removeprefix(prefix): replace(spec, name=name.removeprefix(prefix))
        for name, spec in tensors.items()
    }
    if not prefix or not own.fits(stripped):
        raise CheckpointError(
            f"{reference} was saved from a model that was compiled or wrapped, and its tensors do "
            "not fit the model that config.json describes",
            got=f"{len(wrapped)} of {len(tensors)} names such as {wrapped[0]}",
            expected="one prefix before every name, and a place for each without it",
            fix="Save the model itself: accelerator.unwrap_model(model), model._orig_mod or "
            "model.module, then save_pretrained.",
        )
    return dict(sorted(stripped.items())), prefix


def without_wrappers(name: str) -> str:
    """A name without the parts that only wrappers add, at its beginning or between others."""
    parts = name.split(".")
    while len(parts) > 1 and parts[0] in _WRAPPERS:
        parts.pop(0)
    return ".".join(part for part in parts if part not in _INNER)


def _is_wrapped(name: str) -> bool:
    first, *parts = name.split(".")
    return first in _WRAPPERS or not _INNER.isdisjoint(parts)


def _common_prefix(names: Mapping[str, object]) -> str:
    prefix = ""
    while True:
        firsts = {name.removeprefix(prefix).split(".")[0] for name in names}
        if len(firsts) != 1 or not firsts <= _WRAPPERS:
            return prefix
        prefix += f"{firsts.pop()}."
