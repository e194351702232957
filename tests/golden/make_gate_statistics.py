"""Writes gate_statistics.json: what SciPy, statsmodels, scikit-learn and rouge-score say about the
gate's statistics and metrics.

    python tests/golden/make_gate_statistics.py

Run it again only when a case is added; the test reads the file and needs neither statsmodels nor
the libraries' present versions.
"""

import json
import math
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rouge_score.rouge_scorer import RougeScorer
from scipy import optimize, stats
from sklearn.metrics import f1_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import normal_sample_size_one_tail
from statsmodels.stats.proportion import proportion_confint

FILE = Path(__file__).with_name("gate_statistics.json")
LIBRARIES = ("scipy", "statsmodels", "scikit-learn", "rouge-score")
TAIL = 0.05


def proportions():
    for right, n in (
        (0, 1),
        (0, 30),
        (30, 30),
        (1, 40),
        (68, 100),
        (70, 100),
        (972, 1000),
        (9.5, 11.25),
    ):
        for alpha in (0.05, 0.01, 0.2):
            low, high = proportion_confint(right, n, alpha=2 * alpha, method="beta")
            yield {
                "right": right,
                "n": n,
                "alpha": alpha,
                "low": 0.0 if right == 0 else float(low),
                "high": 1.0 if right == n else float(high),
                "p_below_0.7": float(stats.beta.cdf(0.3, n - right, right + 1))
                if isinstance(right, float)
                else float(stats.binomtest(right, n, 0.7, "less").pvalue),
            }


def mcnemars():
    for losses, gains in ((0, 0), (5, 0), (0, 5), (7, 9), (9, 7), (65, 35), (500, 430)):
        changed = losses + gains
        p = stats.binomtest(losses, changed, 0.5, "greater").pvalue if changed else 1.0
        both = mcnemar([[0, losses], [gains, 0]], exact=True).pvalue if changed else 1.0
        yield {"losses": losses, "gains": gains, "p": float(p), "two_sided": float(both)}


def most_likely_losses(losses, gains, n, difference):
    """Share of losses that is most likely if gains - losses is ``difference``, found by search."""
    low, high = max(0.0, -difference), (1.0 - difference) / 2.0

    def unlikely(q):
        chances = np.array([q, q + difference, 1.0 - 2.0 * q - difference])
        counts = np.array([losses, gains, n - losses - gains])
        return -float(np.sum(counts * np.log(np.maximum(chances, 1e-300))))

    found = optimize.minimize_scalar(
        unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-14}
    )
    return found.x


def p_above(losses, gains, n, difference):
    """P-value of the test that gains - losses is a larger share than ``difference``."""
    q = most_likely_losses(losses, gains, n, difference)
    spread = math.sqrt(n * (2 * q + difference - difference**2))
    z = (gains - losses - n * difference - 0.5) / spread
    net = gains - losses
    if difference > 0:
        least = stats.binom.sf(net - 1, n, difference) if net > 0 else 1.0
    else:
        least = stats.binom.cdf(-net, n, -difference) if net <= 0 else 0.0
    return float(max(stats.norm.sf(z), least))


def lowest(losses, gains, n):
    """Where that test turns."""
    value = (gains - losses) / n
    return optimize.brentq(
        lambda d: p_above(losses, gains, n, d) - TAIL, value - 0.3, value - 1e-4, xtol=1e-9
    )


def paired():
    for losses, gains, n in ((0, 3, 50), (3, 1, 80), (15, 12, 200), (65, 35, 1000), (40, 90, 700)):
        bounds = [lowest(losses, gains, n), -lowest(gains, losses, n)]
        for difference in (-0.1, -0.02, 0.03):
            yield {
                "losses": losses,
                "gains": gains,
                "n": n,
                "bounds": bounds,
                "difference": difference,
                "p_above": p_above(losses, gains, n, difference),
            }


def holms():
    for p_values in ([0.04], [0.01, 0.04, 0.03], [0.5, 0.001, 0.02, 0.02, 0.9, 0.0], [0.6, 0.7]):
        adjusted = multipletests(p_values, method="holm")[1]
        yield {"p_values": p_values, "adjusted": [float(p) for p in adjusted]}


def sign_flips():
    rng = np.random.default_rng(0)
    for differences in (
        rng.integers(-3, 3, 10).astype(float),
        rng.integers(-4, 2, 11).astype(float),
        np.round(rng.normal(-0.2, 0.5, 10), 3),
    ):
        found = stats.permutation_test(
            (differences, np.zeros_like(differences)),
            lambda a, b, axis: np.sum(a - b, axis=axis),
            permutation_type="samples",
            alternative="less",
            n_resamples=np.inf,
            vectorized=True,
        )
        yield {"differences": differences.tolist(), "p": float(found.pvalue)}


def sample_sizes():
    for gap, spread, null, alpha in (
        (0.03, 0.315, 0.316, 0.05),
        (-0.02, 0.466, 0.458, 0.05),
        (0.1, 0.3, 0.4, 0.01),
    ):
        n = normal_sample_size_one_tail(gap, 0.8, alpha, std_null=null, std_alternative=spread)
        yield {"gap": gap, "spread": spread, "null": null, "alpha": alpha, "n": math.ceil(n)}


def paired_sample_sizes():
    """Connor's spreads, of one item."""
    for difference, discordance, margin, alpha in (
        (0.0, 0.1, 0.03, 0.05),
        (-0.03, 0.11, 0.0, 0.05),
        (0.01, 0.3, 0.02, 0.01),
    ):
        n = normal_sample_size_one_tail(
            difference + margin,
            0.8,
            alpha,
            std_null=math.sqrt(discordance - margin**2),
            std_alternative=math.sqrt(discordance - difference**2),
        )
        yield {
            "difference": difference,
            "discordance": discordance,
            "margin": margin,
            "alpha": alpha,
            "n": math.ceil(n),
        }


def rouges():
    scorer = RougeScorer(["rougeL"])
    for target, answer in (
        ("The cat sat down.", "the cat lay down"),
        ("a b c d e f", "f e d c b a"),
        ("a b a b", "b a b a b"),
        ("The notice period is 30 days.", "Thirty days: the notice-period (of 30 days) is fixed."),
        ("yes", ""),
    ):
        found = scorer.score(target, answer)["rougeL"].fmeasure
        yield {"target": target, "answer": answer, "value": float(found)}


def unseen(sizes):
    """Share of clusters, all of them seen to be right, that is right at least."""
    clusters = math.floor(sum(sizes) ** 2 / sum(size**2 for size in sizes))
    return float(proportion_confint(clusters, clusters, alpha=2 * TAIL, method="beta")[0])


def ratio(found, whole, axis=-1):
    return np.sum(found, axis=axis) / np.sum(whole, axis=axis)


def bounds(data, statistic, *, clusters, vectorized=True):
    """Percentile bounds at tails that are expanded for the number of clusters."""
    t = stats.t.ppf(1 - TAIL, clusters - 1)
    tail = stats.norm.cdf(-math.sqrt(clusters / (clusters - 1)) * t)
    found = stats.bootstrap(
        data,
        statistic,
        paired=True,
        method="percentile",
        n_resamples=20_000,
        confidence_level=1 - 2 * tail,
        vectorized=vectorized,
        rng=np.random.default_rng(5),
    )
    return [float(edge) for edge in found.confidence_interval]


def bootstraps():
    rng = np.random.default_rng(1)
    size = rng.integers(1, 6, 60).astype(float)
    champion = rng.binomial(size.astype(int), 0.8).astype(float)
    candidate = np.clip(champion - (rng.random(60) < 0.2), 0, None)

    def difference(ours, theirs, sizes, axis=-1):
        return ratio(ours, sizes, axis) - ratio(theirs, sizes, axis)

    yield {
        "what": "clusters of right and wrong items",
        "seen": unseen(size),
        "size": size.astype(int).tolist(),
        "champion": champion.astype(int).tolist(),
        "candidate": candidate.astype(int).tolist(),
        "candidate_bounds": bounds((candidate, size), ratio, clusters=60),
        "difference_bounds": bounds((candidate, champion, size), difference, clusters=60),
    }
    whole = rng.integers(1, 9, 80).astype(float)
    found = rng.binomial(whole.astype(int), 0.7).astype(float)
    yield {
        "what": "spans",
        "seen": unseen([1] * 80),
        "parts": np.stack([found, whole], axis=1).tolist(),
        "candidate_bounds": bounds((found, whole), ratio, clusters=80),
    }
    expected = rng.integers(0, 3, 90)
    predicted = np.where(rng.random(90) < 0.75, expected, rng.integers(0, 3, 90))

    def macro_f1(true, found):
        return f1_score(true, found, average="macro")

    yield {
        "what": "classes",
        "seen": unseen([1] * 90),
        "parts": np.stack([expected, predicted], axis=1).tolist(),
        "value": float(macro_f1(expected, predicted)),
        "candidate_bounds": bounds((expected, predicted), macro_f1, clusters=90, vectorized=False),
    }


def main():
    content = {
        "made_with": {name: version(name) for name in LIBRARIES},
        "proportions": list(proportions()),
        "mcnemar": list(mcnemars()),
        "paired": list(paired()),
        "holm": list(holms()),
        "sign_flips": list(sign_flips()),
        "sample_sizes": list(sample_sizes()),
        "paired_sample_sizes": list(paired_sample_sizes()),
        "rouge_l": list(rouges()),
        "bootstraps": list(bootstraps()),
    }
    FILE.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
