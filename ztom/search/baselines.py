"""The models that a blend is compared with: every checkpoint of the chain alone, and their average.

Each is a blend as well. In a sequence W_0 ... W_n a factor of -1 from step k + 1 on leaves W_k, and
``alpha_i = -i / (n + 1)`` is the mean of all members, W_0 included; siblings and another latest
checkpoint have factors of their own, which `ztom.blending.changes.factors_for` solves for. So they
go through the engine as every trial does. Mostly they lie outside the bounds of the search: the
ledger keeps them as trials of a kind of their own, outside the budget, and only those inside the
bounds are told to the sampler, as start-up points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ztom.ledger import TrialKind, TrialRecord
from ztom.search.space import Factors, SearchSpace

if TYPE_CHECKING:
    from ztom.blending.chain import Chain

#: Name of the plain average.
AVERAGE = "average"
ModelKind = Literal["checkpoint", "trained", "average"]


@dataclass(frozen=True)
class ComparedModel:
    """A model to compare a blend with.

    Attributes:
        name: Name of the checkpoint in the chain, or `AVERAGE`.
        kind: Kind of model; the trained one is the checkpoint that factors of 0 give.
        factors: Scaling factors that give it, one per transition, or per transition and group.
        also: Names of other checkpoints of the chain that have the same weights.
    """

    name: str
    kind: ModelKind
    factors: Factors
    also: tuple[str, ...] = ()


def compared_models(chain: Chain, same: Sequence[int]) -> tuple[ComparedModel, ...]:
    """The checkpoints of a chain, base first, and their average; the same weights only once.

    Args:
        chain: Chain that was opened and checked.
        same: Position of the first member with the same weights, for each member; see
            `ztom.blending.steps.equal_members`.
    """
    from ztom.blending.changes import factors_for  # imports torch

    members = len(chain.members)
    models = []
    for position in dict.fromkeys(same):
        tags = [chain.tags[i] for i in range(members) if same[i] == position]
        is_trained = same[chain.latest] == position
        name = chain.tags[chain.latest] if is_trained else tags[0]
        tags.remove(name)
        alone = [float(i == (chain.latest if is_trained else position)) for i in range(members)]
        kind: ModelKind = "trained" if is_trained else "checkpoint"
        factors = chain.expand(factors_for(chain, alone))
        models.append(ComparedModel(name, kind, factors, tuple(tags)))
    mean = chain.expand(factors_for(chain, [1.0 / members] * members))
    return (*models, ComparedModel(AVERAGE, "average", mean))


def next_comparison(
    models: Sequence[ComparedModel], trials: Sequence[TrialRecord]
) -> ComparedModel | None:
    """The first model that was not evaluated yet; the trained one's trials are the baselines."""
    evaluated = {trial.factors for trial in trials if trial.kind is TrialKind.COMPARISON}
    return next((m for m in models if m.kind != "trained" and m.factors not in evaluated), None)


def is_part_of_search(space: SearchSpace, trial: TrialRecord) -> bool:
    """Whether sampler and surrogate may learn from a trial: all but comparisons out of bounds."""
    return trial.kind is not TrialKind.COMPARISON or space.contains(trial.factors)
