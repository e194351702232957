"""Do two samples come from the same source? Permutation and chi-square tests.

**Vectors** (embeddings of texts): the maximum mean discrepancy of Gretton et al. (2012, "A kernel
two-sample test"), unbiased, with a Gaussian kernel whose width is the median distance. Its p-value
comes from permutations, so it holds for any vectors and sizes. It is computed in turns that stop as
soon as enough permutations were at least as far apart (Besag & Clifford 1991, "Sequential Monte
Carlo p-values"): unchanged data takes few, and a small p-value as many as it needs.

**Categories**: Pearson's chi-square of homogeneity; categories that are expected less than five
times are joined.

**Numbers** (tokens, seconds): Mann and Whitney (1947), one-sided: are they higher?
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ztom.errors import ConfigError

Floats = NDArray[np.float64]

#: Permutations of one turn; how many of them at least as far apart are enough to stop; and how many
#: there are at most, in units of one over the least p-value.
_TURN, _ENOUGH, _MOST = 200, 20, 4
_SAMPLED = 500  # vectors whose distances decide the kernel's width
_LEAST_EXPECTED = 5.0


def discrepancy(
    reference: Floats, window: Floats, *, seed: int | tuple[int, ...], least: float = 0.005
) -> float:
    """P-value of no difference between two sets of vectors.

    Args:
        reference: Vectors of unit length, shape (n, dimensions), n at least 2.
        window: Vectors of unit length, shape (m, dimensions), m at least 2.
        seed: Seed of the permutations.
        least: P-value that still has to be told from a smaller one: there are up to 4 / least
            permutations.

    Raises:
        ConfigError: There are fewer than two vectors, or their dimensions differ.
    """
    if min(len(reference), len(window)) < 2 or reference.shape[1] != window.shape[1]:
        raise ConfigError(
            "two sets of vectors cannot be compared",
            got=f"shapes {reference.shape} and {window.shape}",
            expected="at least two vectors each, of the same dimensions",
        )
    rng = np.random.default_rng(seed)
    kernel = _kernel(np.concatenate([reference, window]), rng)
    size, total = len(window), len(kernel)
    own = np.zeros((total, 1), dtype=np.float32)
    own[-size:] = 1.0
    observed = _distances(kernel, own, size)[0]
    done = higher = 0
    while higher < _ENOUGH and done * least < _MOST:
        places = rng.permuted(np.broadcast_to(np.arange(total), (_TURN, total)), axis=1)
        chosen = np.zeros((total, _TURN), dtype=np.float32)
        np.put_along_axis(chosen, places[:, :size].T, 1.0, axis=0)
        higher += int((_distances(kernel, chosen, size) >= observed).sum())
        done += _TURN
    return (1.0 + higher) / (1.0 + done)


def _kernel(vectors: Floats, rng: np.random.Generator) -> NDArray[np.float32]:
    """Gaussian kernel of all pairs, zero on the diagonal, shape (n + m, n + m)."""
    single = vectors.astype(np.float32)
    norms = (single**2).sum(axis=1)
    squares = np.maximum(np.add.outer(norms, norms) - 2.0 * single @ single.T, 0.0)
    some = rng.choice(len(single), min(len(single), _SAMPLED), replace=False)
    pairs = squares[np.ix_(some, some)][np.triu_indices(len(some), 1)]
    kernel: NDArray[np.float32] = np.exp(-squares / max(float(np.median(pairs)), 1e-12))
    np.fill_diagonal(kernel, 0.0)
    return kernel


def _distances(kernel: NDArray[np.float32], chosen: NDArray[np.float32], size: int) -> Floats:
    """Unbiased squared discrepancy of each column's choice from the rest, shape (columns,)."""
    rest, sums = len(kernel) - size, kernel @ chosen
    within = np.asarray((chosen * sums).sum(axis=0), dtype=np.float64)
    across = np.asarray(sums.sum(axis=0), dtype=np.float64) - within
    outside = float(kernel.sum(dtype=np.float64)) - within - 2.0 * across
    return np.asarray(
        within / (size * (size - 1))
        + outside / (rest * (rest - 1))
        - 2.0 * across / (size * rest)
    )  # fmt: skip


def homogeneity(reference: Mapping[Any, int], window: Mapping[Any, int]) -> float:
    """P-value of equal shares of categories.

    Args:
        reference: Number of rows of each category, at least one row.
        window: The same of the window.

    Raises:
        ConfigError: One of them has no rows.
    """
    if not (sum(reference.values()) and sum(window.values())):
        raise ConfigError(
            "shares of categories need rows",
            got=f"{sum(reference.values())} and {sum(window.values())}",
            expected="at least one row each",
        )
    table = _joined(reference, window)
    if table.shape[1] < 2:
        return 1.0
    from scipy.stats import chi2_contingency  # takes a moment

    return float(chi2_contingency(table, correction=False).pvalue)


def _joined(reference: Mapping[Any, int], window: Mapping[Any, int]) -> NDArray[np.int64]:
    """Counts, shape (2, categories), rare categories joined to one."""
    names: list[Hashable] = sorted({*reference, *window}, key=str)
    table = np.array([[counts.get(name, 0) for name in names] for counts in (reference, window)])
    expected = table.sum(axis=0) * table.sum(axis=1).min() / table.sum()
    common = table[:, expected >= _LEAST_EXPECTED]
    rare = table[:, expected < _LEAST_EXPECTED].sum(axis=1, keepdims=True)
    return np.concatenate([common, rare], axis=1) if rare.sum() else common


def higher(reference: Floats, window: Floats) -> float:
    """P-value of the window's numbers being no higher than the reference's.

    Args:
        reference: Numbers, shape (n,), n at least 1.
        window: Numbers, shape (m,), m at least 1.
    """
    from scipy.stats import mannwhitneyu  # takes a moment

    return float(mannwhitneyu(window, reference, alternative="greater", method="asymptotic").pvalue)
