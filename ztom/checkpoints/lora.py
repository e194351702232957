"""PEFT LoRA adapters as factors over a base checkpoint.

An adapted weight is W + s B A with B [out, r], A [r, in] and s = alpha / r, or alpha / sqrt(r) for
rsLoRA (Hu et al. 2021, arXiv:2106.09685; Kalajdzievski 2023, arXiv:2312.03732). Everything of PEFT
that is not exactly this is refused by name. Nothing is merged here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ztom.checkpoints.checkpoint import Checkpoint
from ztom.checkpoints.config_checks import is_head, says_tied
from ztom.checkpoints.lora_config import merge_fix, rank_and_scale, refuse_unsupported
from ztom.checkpoints.tensors import TensorSpec
from ztom.checkpoints.wrappers import without_wrappers
from ztom.errors import AdapterUnsupportedError

_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight")
#: Families of transformers 5 whose blocks use Conv1D, which stores weights as (in, out), and the
#: names of those modules.
_CONV1D_FAMILIES = frozenset({"clvp", "decision_transformer", "gpt2", "imagegpt", "openai-gpt"})
_CONV1D_MODULES = frozenset({"c_attn", "c_proj", "c_fc", "q_attn"})


@dataclass(frozen=True, slots=True)
class LoraFactors:
    """The factors of one adapted weight.

    Attributes:
        a: Place of A, whose shape is (rank, in).
        b: Place of B, whose shape is (out, rank).
        scale: Number that B A is multiplied by.
        rank: Rank of the change, at least 1.
        transposed: Whether the base stores this weight as (in, out), so the change is (B A)
            transposed.
    """

    a: TensorSpec
    b: TensorSpec
    scale: float
    rank: int
    transposed: bool


@dataclass(frozen=True, eq=False)
class Adapter:
    """An adapter that fits its base.

    Attributes:
        checkpoint: The adapter's files.
        base: Model that it was trained on.
        factors: Factors by the name of the base's tensor, sorted.
    """

    checkpoint: Checkpoint
    base: Checkpoint
    factors: Mapping[str, LoraFactors]


def open_adapter(checkpoint: Checkpoint, base: Checkpoint) -> Adapter:
    """Interpret an adapter over its base.

    Args:
        checkpoint: Checkpoint of kind ``adapter``.
        base: Checkpoint of kind ``full``.

    Raises:
        AdapterUnsupportedError: It is more than plain LoRA on linear layers, or does not fit the
            base; names the feature or the tensors.
    """
    if checkpoint.kind != "adapter" or base.kind != "full":
        raise AdapterUnsupportedError(
            f"{checkpoint.reference} cannot be put over {base.reference}",
            got=f"{checkpoint.kind} over {base.kind}",
            expected="an adapter over a full model",
        )
    refuse_unsupported(checkpoint.reference, checkpoint.config)
    factors: dict[str, LoraFactors] = {}
    for module, sides in _pairs(checkpoint, base).items():
        weight = _base_weight(checkpoint.reference, module, base)
        if weight.name in factors:
            raise AdapterUnsupportedError(
                f"{checkpoint.reference}: two pairs of factors belong to {weight.name}"
            )
        transposed = _is_transposed(checkpoint, base, module, weight)
        factors[weight.name] = _fit(checkpoint, module, sides, weight, transposed=transposed)
    return Adapter(checkpoint, base, dict(sorted(factors.items())))


def _pairs(checkpoint: Checkpoint, base: Checkpoint) -> dict[str, dict[str, TensorSpec]]:
    """Factors A and B by the path of their module; anything else in the file is refused."""
    pairs: dict[str, dict[str, TensorSpec]] = {}
    for name, spec in checkpoint.tensors.items():
        match = _FACTOR.fullmatch(name.removeprefix(_PREFIX))
        if match is None or not spec.dtype.is_floating_point:
            if not _is_copy_of_base(checkpoint, base, name):
                raise _not_a_factor(checkpoint.reference, name, spec, base)
            continue
        sides = pairs.setdefault(_module_of(match["module"], base), {})
        if match["side"] in sides:
            raise AdapterUnsupportedError(f"{checkpoint.reference}: {name} stands twice")
        sides[match["side"]] = spec
    for module, sides in pairs.items():
        if len(sides) != 2:
            raise AdapterUnsupportedError(
                f"{checkpoint.reference}: {module} has only one of its two factors",
                got=f"lora_{next(iter(sides))}",
            )
    if not pairs:
        raise AdapterUnsupportedError(f"{checkpoint.reference} holds no LoRA factors")
    return pairs


def _module_of(module: str, base: Checkpoint) -> str:
    """The module's path in the base, without the names of wrappers that the base does not have."""
    if f"{module}.weight" in base.tensors:
        return module
    bare = without_wrappers(without_wrappers(module).removeprefix(_PREFIX))
    return module if _find_weight(bare, base) is None else bare


def _is_copy_of_base(checkpoint: Checkpoint, base: Checkpoint, name: str) -> bool:
    """Whether a whole tensor is the base's, unchanged: PEFT saves the head when it is adapted."""
    weight = _copied_weight(name, base)
    if weight is None or weight.shape != checkpoint.tensors[name].shape:
        return False
    copy, original = checkpoint.read(name), base.read(weight.name)
    if copy.dtype != original.dtype:
        copy, original = copy.double(), original.double()
    return torch.equal(copy, original)


def _copied_weight(name: str, base: Checkpoint) -> TensorSpec | None:
    """The base's tensor that a whole one of an adapter stands for."""
    if ".lora_" in name or not name.endswith(".weight"):
        return None
    module = name.removeprefix(_PREFIX).removesuffix(".weight").removesuffix(".base_layer")
    return _find_weight(module, base)


def _not_a_factor(
    reference: str, name: str, spec: TensorSpec, base: Checkpoint
) -> AdapterUnsupportedError:
    weight = _copied_weight(name, base)
    if weight is not None and weight.shape[:1] != spec.shape[:1]:
        return AdapterUnsupportedError(
            f"{reference}: {name} is whole, over a vocabulary of another size than the base's",
            got=f"{spec.shape[0]} rows, {weight.shape[0]} in {base.reference}",
            expected="an adapter over a base that has all its rows",
            fix=f"{merge_fix(reference)} Its new rows have no delta; where no tokenizer is beside "
            "the adapter, call resize_token_embeddings on the base before.",
        )
    return AdapterUnsupportedError(
        f"{reference}: {name} is {_describe(name)}",
        got=f"{spec.dtype} {list(spec.shape)}",
        expected="lora_A and lora_B of linear layers only",
        fix=merge_fix(reference),
    )


def _describe(name: str) -> str:
    for mark, kind in (
        ("lora_embedding_", "a factor of an embedding"),
        ("lora_magnitude_vector", "a DoRA magnitude"),
        ("lora_B.bias", "a bias of a factor (lora_bias)"),
        (".lora_", "no factor that is known"),
    ):
        if mark in name:
            return kind
    return "a whole tensor that is not the base's (modules_to_save, or another base)"


def _find_weight(module: str, base: Checkpoint) -> TensorSpec | None:
    """The base's tensor for a module: the same name, or without (or with) the model's prefix.

    A checkpoint saved from the bare model lacks the leading ``model.`` or ``transformer.`` that the
    adapted model's modules have.
    """
    name = f"{module}.weight"
    candidates = [name, f"model.{name}", f"transformer.{name}"]
    if "." in module:
        candidates.append(name.partition(".")[2])
    return next(
        (base.tensors[candidate] for candidate in candidates if candidate in base.tensors), None
    )


def _base_weight(reference: str, module: str, base: Checkpoint) -> TensorSpec:
    weight = _find_weight(module, base)
    if weight is not None and is_head(weight.name) and says_tied(base.config):
        raise AdapterUnsupportedError(
            f"{reference} adapts {module}, which the base stores but ties to its embedding",
            got="tie_word_embeddings: true in its config.json",
            expected="a head of its own",
            fix="Save the base with tie_word_embeddings: false: an engine would drop the change.",
        )
    if weight is not None:
        return weight
    tied = base.tied and module.endswith("lm_head")
    raise AdapterUnsupportedError(
        f"{reference} adapts {module}, which the base does not have",
        got="a head that is tied to the embedding" if tied else f"none in {base.reference}",
        expected="modules of the base",
        fix="Give the base that the adapter was trained on.",
    )


def _is_transposed(
    checkpoint: Checkpoint, base: Checkpoint, module: str, weight: TensorSpec
) -> bool:
    """Whether the base stores the weight as (in, out).

    PEFT decides by the module's class. From files: by family and module name where that is known,
    else by ``fan_in_fan_out``, which PEFT sets to what it found when it saves.
    """
    if base.config.get("model_type") in _CONV1D_FAMILIES:
        return module.rpartition(".")[2] in _CONV1D_MODULES
    if base.config.get("model_type"):
        return False
    return checkpoint.config.get("fan_in_fan_out") is True


def _fit(
    checkpoint: Checkpoint,
    module: str,
    sides: Mapping[str, TensorSpec],
    weight: TensorSpec,
    *,
    transposed: bool,
) -> LoraFactors:
    """Compare the factors with the configured rank and the base's shape."""
    a, b = sides["A"], sides["B"]
    rank, scale = rank_and_scale(checkpoint.reference, checkpoint.config, module)
    outputs_inputs = weight.shape[::-1] if transposed else weight.shape
    expected = (
        [(rank, outputs_inputs[1]), (outputs_inputs[0], rank)] if len(weight.shape) == 2 else []
    )
    if [a.shape, b.shape] != expected:
        raise AdapterUnsupportedError(
            f"{checkpoint.reference}: the factors of {module} do not fit {weight.name}",
            got=f"lora_A {list(a.shape)}, lora_B {list(b.shape)}",
            expected=f"rank {rank} over a base of shape {list(weight.shape)}"
            + (" stored as (in, out)" if transposed else ""),
        )
    return LoraFactors(a, b, scale, rank, transposed)
