"""What one scaling factor adds to a model: the derivative of a blend by that factor, as a plan.

A blend is affine in its factors, ``W(alpha) = W(0) + sum_i alpha_i D_i``, so ``D_i`` is the same
everywhere. Its plan is the difference of two plans, coefficient by coefficient: what both have
cancels exactly and nothing is rounded. Adapters' products stay products. Tensors that the factor
does not reach are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch

from ztom.blending.chain import Chain
from ztom.blending.plan import BlendPlan, DenseTerm, LowRankTerm, TensorPlan, plan_blend

_Place = tuple[int, str, tuple[int, int] | None]


def plan_step(chain: Chain, factor: int, *, zero: BlendPlan | None = None) -> dict[str, TensorPlan]:
    """The tensors that one factor changes, and what it adds to each per unit, in float32.

    Args:
        chain: Chain that was opened and checked.
        factor: Position of the factor.
        zero: Plan of the blend with all factors zero, in float32; made when None.

    Returns:
        Plans by the name of the tensor.
    """
    if zero is None:
        zero = plan_zero(chain)
    unit = [0.0] * len(zero.factors)
    unit[factor] = 1.0
    one = plan_blend(chain, unit, dtype=torch.float32)
    steps = (_difference(a, b) for a, b in zip(one.tensors, zero.tensors, strict=True))
    return {step.name: step for step in steps if step is not None}


def plan_zero(chain: Chain) -> BlendPlan:
    """The plan of the trained model in float32."""
    return plan_blend(chain, [0.0] * chain.factor_count, dtype=torch.float32)


def _difference(one: TensorPlan, zero: TensorPlan) -> TensorPlan | None:
    if not one.dtype.is_floating_point or (one.dense, one.low_rank) == (zero.dense, zero.low_rank):
        return None
    cuts = _cuts((*one.dense, *zero.dense))
    added, removed = _by_place(one.dense, cuts), _by_place(zero.dense, cuts)
    terms = [
        replace(term, coefficient=_coefficient(added, place) - _coefficient(removed, place))
        for place, term in (removed | added).items()
    ]
    low_rank = _low_rank(one.low_rank, zero.low_rank)
    if not low_rank and all(term.coefficient == 0.0 for term in terms):
        return None
    return TensorPlan(one.name, one.shape, torch.float32, tuple(_covering(terms)), low_rank)


def _covering(terms: Iterable[DenseTerm]) -> Iterator[DenseTerm]:
    """Terms that add something, and one for each range of rows in which none does.

    A plan's terms have to reach every row that any of them reaches.
    """
    by_rows: dict[tuple[int, int] | None, list[DenseTerm]] = {}
    for term in terms:
        by_rows.setdefault(term.rows, []).append(term)
    if all(term.coefficient == 0.0 for term in terms):
        return
    for group in by_rows.values():
        yield from [term for term in group if term.coefficient != 0.0] or group[:1]


def _cuts(terms: Iterable[DenseTerm]) -> tuple[int, ...]:
    """Rows at which some term begins or ends; none where all terms are of all rows."""
    return tuple(sorted({row for term in terms if term.rows is not None for row in term.rows}))


def _by_place(terms: Iterable[DenseTerm], cuts: tuple[int, ...]) -> dict[_Place, DenseTerm]:
    places: dict[_Place, DenseTerm] = {}
    for term in terms:
        for rows in _pieces(term.rows, cuts):
            places[term.member, term.spec.name, rows] = replace(term, rows=rows)
    return places


def _pieces(
    rows: tuple[int, int] | None, cuts: tuple[int, ...]
) -> Iterable[tuple[int, int] | None]:
    if not cuts:
        return (None,)
    first, last = (cuts[0], cuts[-1]) if rows is None else rows
    inside = [cut for cut in cuts if first <= cut <= last]
    return zip(inside, inside[1:], strict=False)


def _coefficient(terms: dict[_Place, DenseTerm], place: _Place) -> float:
    return terms[place].coefficient if place in terms else 0.0


def _low_rank(one: Iterable[LowRankTerm], zero: Iterable[LowRankTerm]) -> tuple[LowRankTerm, ...]:
    added, removed = {t.member: t for t in one}, {t.member: t for t in zero}
    terms = []
    for member, term in (removed | added).items():
        coefficient = added[member].coefficient if member in added else 0.0
        coefficient -= removed[member].coefficient if member in removed else 0.0
        if coefficient != 0.0:
            terms.append(replace(term, coefficient=coefficient))
    return tuple(terms)
