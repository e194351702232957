"""Measures the quantities that a suite is judged by, from item results.

Independent items that are right or wrong are counted, and their bounds need no resampling
(`ztom.statistics.proportions`); clusters and other metrics are resampled
(`ztom.statistics.resampling`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ztom.evaluation.gate.align import (
    WITH_PARTS,
    Aligned,
    Ints,
    Side,
    effective_clusters,
    scores,
    sums,
)
from ztom.statistics.proportions import (
    Floats,
    PairedDifference,
    Proportion,
    Quantity,
    mcnemar,
    sign_flip,
)
from ztom.statistics.resampling import ClassParts, difference, metric, resample, share
from ztom.statistics.scores import MacroF1Scores, Scores


@dataclass(frozen=True)
class ChampionComparison:
    """Candidate against champion.

    Attributes:
        champion: Metric of the champion.
        difference: Candidate minus champion.
        worse: Items on which the candidate has the lower value.
        better: Items on which it has the higher value.
        harm_p: P-value of the test whose rejection shows harm; see `ztom.statistics.proportions`.
        same_model: Whether the candidate is the champion: whatever differs is chance.
    """

    champion: Quantity
    difference: Quantity
    worse: int
    better: int
    harm_p: float
    same_model: bool


@dataclass(frozen=True)
class Measured:
    """What was measured on a suite whose items all have a value.

    Attributes:
        n: Number of items.
        clusters: Number of independent clusters of items.
        counted: Whether items are independent, and right or wrong: nothing was resampled then.
        candidate: The candidate's metric.
        base: The base's; None where that has items without a value.
        compared: Comparison with the champion; None without one.
    """

    n: int
    clusters: int
    counted: bool
    candidate: Quantity
    base: Quantity | None = None
    compared: ChampionComparison | None = None


def measure(aligned: Aligned, *, seed: int) -> Measured:
    """Measure a suite.

    Args:
        aligned: Results of the suite, at least one item; candidate and champion have a value for
            each.
        seed: Seed of every resampling and sign flip.
    """
    cluster_of = aligned.cluster_of
    sides = {"candidate": aligned.candidate}
    if aligned.champion is not None:
        sides["champion"] = aligned.champion
    quantities = _quantities(aligned, cluster_of, sides=sides, seed=seed)
    if aligned.base is not None and not aligned.base.unscored:
        # On its own: what it did must not change how the others are measured.
        quantities |= _quantities(aligned, cluster_of, sides={"base": aligned.base}, seed=seed)
    return Measured(
        n=cluster_of.size,
        clusters=int(cluster_of.max()) + 1,
        counted=_can_be_counted(aligned, cluster_of, list(sides.values())),
        candidate=quantities["candidate"],
        base=quantities.get("base"),
        compared=_compared(aligned, quantities, cluster_of, seed=seed),
    )


def changed(candidate: Floats, champion: Floats) -> tuple[int, int]:
    """Numbers of items on which the candidate's value is lower, and on which it is higher."""
    return int(np.sum(candidate < champion)), int(np.sum(candidate > champion))


def _is_binary(values: Floats) -> bool:
    return bool(np.all((values == 0.0) | (values == 1.0)))


def _can_be_counted(aligned: Aligned, cluster_of: Ints, sides: list[Side]) -> bool:
    return (
        aligned.suite.config.metric not in WITH_PARTS
        and int(cluster_of.max()) + 1 == cluster_of.size
        and all(_is_binary(side.values) for side in sides)
    )


def _quantities(
    aligned: Aligned, cluster_of: Ints, *, sides: dict[str, Side], seed: int
) -> dict[str, Quantity]:
    if _can_be_counted(aligned, cluster_of, list(sides.values())):
        return _counted(sides)
    return _resampled(aligned, cluster_of, sides=sides, seed=seed)


def _counted(sides: dict[str, Side]) -> dict[str, Quantity]:
    values = {who: side.values for who, side in sides.items()}
    quantities: dict[str, Quantity] = {
        who: Proportion(right=int(passed.sum()), n=passed.size) for who, passed in values.items()
    }
    if "champion" in values:
        worse, better = changed(values["candidate"], values["champion"])
        quantities["difference"] = PairedDifference(worse, better, values["candidate"].size)
    return quantities


def _resampled(
    aligned: Aligned, cluster_of: Ints, *, sides: dict[str, Side], seed: int
) -> dict[str, Quantity]:
    models = [scores(aligned.suite.config, side.results, cluster_of) for side in sides.values()]
    clusters = int(cluster_of.max()) + 1
    by_item = isinstance(models[0], MacroF1Scores)
    draws = resample(models, cluster_of if by_item else np.arange(clusters), seed=seed)
    n = cluster_of.size
    effective = effective_clusters(cluster_of)
    is_mean = aligned.suite.config.metric not in WITH_PARTS

    def least(values: Floats) -> float:
        return float(values.var()) / n if is_mean else 0.0

    quantities = {
        who: share(
            float(metric(model)[0]),
            drawn,
            _classes(model, clusters=effective),
            clusters=effective,
            n=n,
            least=least(side.values),
        )
        for (who, side), model, drawn in zip(sides.items(), models, draws, strict=True)
    }
    if "champion" in quantities:
        changes = sides["candidate"].values - sides["champion"].values
        quantities["difference"] = difference(
            quantities["candidate"], quantities["champion"], changes, least=least(changes)
        )
    return dict(quantities)


def _classes(model: Scores, *, clusters: int) -> ClassParts:
    """What the metric is the sum of; classes share the clusters by their items."""
    if not isinstance(model, MacroF1Scores):
        return ClassParts.one(float(metric(model)[0]), clusters)
    items = np.bincount(model.expected, minlength=model.classes)
    parts, most = model.by_class()
    # What no item belongs to is predicted only, and adds nothing that could be lost.
    there = np.flatnonzero(items)
    return ClassParts(parts[there], most, clusters * items[there] / items.sum())


def _compared(
    aligned: Aligned, quantities: dict[str, Quantity], cluster_of: Ints, *, seed: int
) -> ChampionComparison | None:
    if aligned.champion is None:
        return None
    ours, theirs = aligned.candidate.values, aligned.champion.values
    worse, better = changed(ours, theirs)
    if int(cluster_of.max()) + 1 == ours.size and _is_binary(ours) and _is_binary(theirs):
        harm_p = mcnemar(worse, better)
    else:
        harm_p = sign_flip(sums(cluster_of, ours - theirs), seed=seed)
    return ChampionComparison(
        champion=quantities["champion"],
        difference=quantities["difference"],
        worse=worse,
        better=better,
        harm_p=harm_p,
        same_model=aligned.champion.model.digest == aligned.candidate.model.digest,
    )
