"""Exact derivatives of a blend's error by its scaling factors.

With ``W(alpha) = W(0) + sum_i alpha_i D_i`` the derivative by ``alpha_i`` is the directional
derivative of the error along ``D_i``.

*Forward mode* carries ``D_i`` along with the weights through one pass of the model per factor (dual
numbers): nothing is kept of the pass, so memory is the weights, one ``D_i`` and one batch. *Reverse
mode* takes the gradient by the weights of each batch (``G``), and ``<G, D_i>`` for every factor:
one pass, and one back, for all factors together, with the weights' size of memory for ``G`` and a
batch's activations kept. Weights are never changed, in neither of them.

Both are exact where the model is differentiable; where it is not (the choice of experts), they are
the derivatives of the piece that the blend lies on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from ztom.engines.losses import LossBatch, LossSet
from ztom.engines.protocol import DerivativeMode, Derivatives
from ztom.errors import CapabilityError, ZtomError

#: Makes ``D_i``, by the names that the model has for its tensors; those it leaves alone are absent.
Steps = Callable[[int], Mapping[str, torch.Tensor]]

Floats = NDArray[np.float64]


def differentiate(
    model: Any,
    steps: Steps,
    factors: int,
    sets: Sequence[Sequence[LossSet]],
    *,
    mode: DerivativeMode,
) -> list[Derivatives]:
    """The errors of the weights now loaded, and their derivatives.

    Args:
        model: The model, with the blend loaded.
        steps: What each factor adds to the weights per unit; called once a factor.
        factors: Number of factors.
        sets: The terms of each data set's error.
        mode: How derivatives are taken.

    Raises:
        CapabilityError: An operation of the model has no such derivative.
    """
    way = _forward if mode == "forward" else _reverse
    with _plain_operations(model), _refusing_by_name(mode):
        losses, gradients = way(model, steps, factors, sets)
    return [
        _with_error(terms, values, gradient)
        for terms, values, gradient in zip(sets, losses, gradients, strict=True)
    ]


def _with_error(
    terms: Sequence[LossSet], losses: Sequence[Floats], gradient: Floats
) -> Derivatives:
    """Add the terms up as weighted sums of error functions are.

    Args:
        terms: Terms of the error.
        losses: Losses of each term, each of shape (stimuli,).
        gradient: Derivative of the error, shape (factors,).
    """
    pairs = list(zip(terms, losses, strict=True))
    per_stimulus = np.sum([term.weight * values / term.sizes for term, values in pairs], axis=0)
    return Derivatives(
        error=float(sum(_share(term) * values.sum() for term, values in pairs)),
        per_stimulus=tuple(per_stimulus.tolist()),
        gradient=tuple(gradient.tolist()),
    )


def _share(term: LossSet) -> float:
    """What one unit of a stimulus' loss adds to the error."""
    return term.weight / float(term.sizes.sum())


def _forward(
    model: Any, steps: Steps, factors: int, sets: Sequence[Sequence[LossSet]]
) -> tuple[list[list[Floats]], list[Floats]]:
    losses = [[np.zeros(term.sizes.size) for term in terms] for terms in sets]
    gradients = [np.zeros(factors) for _ in sets]
    state = model.state_dict()
    for factor in range(factors):
        step = _once_each(model, steps(factor))
        with forward_ad.dual_level():
            duals = {n: _dual(state[n], tangent) for n, tangent in step.items()}
            for index, place, term, batch in _all_batches(sets):
                values, slope = _parts(_losses(model, duals, batch))
                losses[index][place][batch.rows] = values.double().cpu().numpy()
                if slope is not None:
                    gradients[index][factor] += _share(term) * float(slope.double().sum())
    return losses, gradients


def _reverse(
    model: Any, steps: Steps, factors: int, sets: Sequence[Sequence[LossSet]]
) -> tuple[list[list[Floats]], list[Floats]]:
    losses = [[np.zeros(term.sizes.size) for term in terms] for terms in sets]
    leaves = [_leaves(model) for _ in sets]
    for index, place, term, batch in _all_batches(sets):
        with torch.enable_grad():
            values = _losses(model, leaves[index], batch)
            (_share(term) * values.sum()).backward()  # type: ignore[no-untyped-call]
        losses[index][place][batch.rows] = values.detach().double().cpu().numpy()
    gradients = [np.zeros(factors) for _ in sets]
    for factor in range(factors):
        step = _once_each(model, steps(factor))
        for gradient, weights in zip(gradients, leaves, strict=True):
            gradient[factor] = sum(
                _product(weights[n].grad, tangent) for n, tangent in step.items()
            )
    return losses, gradients


def _dual(tensor: torch.Tensor, tangent: torch.Tensor) -> torch.Tensor:
    dual: torch.Tensor = forward_ad.make_dual(tensor, tangent)  # type: ignore[no-untyped-call]
    return dual


def _parts(dual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The value and its derivative; none where it does not depend on the factor."""
    value, tangent = forward_ad.unpack_dual(dual)  # type: ignore[no-untyped-call]
    return value, tangent


def _product(gradient: torch.Tensor | None, step: torch.Tensor) -> float:
    """``<G, D_i>`` of one tensor; no gradient reached what the error does not depend on."""
    return 0.0 if gradient is None else float((gradient * step).sum(dtype=torch.float64))


def _leaves(model: Any) -> dict[str, torch.Tensor]:
    """The weights as variables that gradients are added up on; the numbers are the model's own."""
    floats = {n: t for n, t in model.state_dict().items() if t.is_floating_point()}
    return {n: t.detach().requires_grad_() for n, t in _once_each(model, floats).items()}


def _losses(model: Any, weights: Mapping[str, torch.Tensor], batch: LossBatch) -> torch.Tensor:
    """The loss of each stimulus of a batch, shape (stimuli,)."""
    args, named = batch.inputs
    out = functional_call(model, dict(weights), args, dict(named))
    return batch.losses(getattr(out, "logits", out))


def _all_batches(
    sets: Sequence[Sequence[LossSet]],
) -> Iterator[tuple[int, int, LossSet, LossBatch]]:
    """Position of the data set and of the term in it, the term, and a batch of it."""
    for index, terms in enumerate(sets):
        for place, term in enumerate(terms):
            for batch in term.batches:
                yield index, place, term, batch


def _once_each(model: Any, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors by name, those that the model ties together once."""
    state = model.state_dict()
    kept: dict[tuple[int, tuple[int, ...]], str] = {}
    for name in tensors:
        kept.setdefault((state[name].data_ptr(), tuple(state[name].shape)), name)
    return {name: tensors[name] for name in kept.values()}


@contextmanager
def _plain_operations(model: Any) -> Iterator[None]:
    """Attention and experts as plain sums: the fused kernels have no forward derivatives."""
    fused = hasattr(model, "get_experts_implementation")
    before = model.get_experts_implementation() if fused else {}
    if fused:
        model.set_experts_implementation("eager")
    try:
        with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            yield
    finally:
        if fused:
            model.set_experts_implementation(before)


@contextmanager
def _refusing_by_name(mode: DerivativeMode) -> Iterator[None]:
    """What torch cannot differentiate, as an error that says what can be done."""
    try:
        yield
    except ZtomError:
        raise
    except (NotImplementedError, RuntimeError) as error:
        known = ("forward AD", "derivative for")
        if type(error) is RuntimeError and not any(words in str(error) for words in known):
            raise
        other = "Set sampler: {name: gradient, mode: reverse}, or use another sampler."
        raise CapabilityError(
            f"an operation of this model has no derivative in {mode} mode",
            got=str(error).partition("\n")[0],
            fix=other if mode == "forward" else "Use another sampler, such as gp.",
        ) from error
