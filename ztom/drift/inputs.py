"""Whether requests are what they were.

Meanings are compared by their embeddings (`ztom.statistics.two_samples.discrepancy`); lengths,
forms, categories and languages by their counts; labels that the reference does not know by an
exact test of their share (Fisher). The chance of a false alarm is spent evenly over the windows of
the horizon, and within a window over the tests by Holm: all of them together alarm without reason
in at most ``alpha`` of the unchanged horizons.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ztom.drift.clusters import grown_clusters
from ztom.drift.config import InputsConfig
from ztom.drift.findings import Cluster, DriftFinding, Signal
from ztom.drift.observations import Observation
from ztom.drift.shape import form_of, language_of, length_bins
from ztom.statistics.proportions import holm
from ztom.statistics.two_samples import Floats, discrepancy, homogeneity

#: Gives texts vectors of unit length, shape (texts, dimensions).
Embed = Callable[[Sequence[str]], Floats]
#: Part of a window's alpha that the embeddings have to tell p-values apart below.
_RESOLVED = 0.25
_NAMED = 5  # labels that a sentence names


@dataclass(frozen=True)
class InputsMonitor:
    """The tests of requests.

    Attributes:
        config: Options of it.
        embed: Function that embeds texts; None leaves meanings out.
        horizon: Number of windows that alpha is for.
        seed: Seed of samples and permutations.
    """

    config: InputsConfig
    embed: Embed | None
    horizon: int
    seed: int

    def look(
        self, number: int, reference: Sequence[Observation], rows: Sequence[Observation]
    ) -> tuple[DriftFinding, ...]:
        """The findings of a window; none where there are too few requests.

        Args:
            number: Number of the window.
            reference: Observations to compare with.
            rows: Observations of the window.
        """
        if min(len(reference), len(rows)) < self.config.fewest:
            return ()
        before, now = (self._sample(part, number, which) for which, part in
                       enumerate((reference, rows)))  # fmt: skip
        alpha = self.config.alpha / self.horizon
        drafts = self._by_counts(before, now)
        meanings = self._meanings(before, now, number, alpha)
        drafts += [meanings] if meanings else []
        levels = holm([draft.p_value or 0.0 for draft in drafts])
        clusters: tuple[Cluster, ...] = ()
        if self.embed is not None and min(levels) <= alpha:
            clusters = self._moved(before, now, self.embed)
        return tuple(
            draft.model_copy(
                update={
                    "is_alarm": adjusted <= alpha,
                    "limit": alpha,
                    "clusters": clusters if draft.test == "meanings" else (),
                }
            )
            for draft, adjusted in zip(drafts, levels, strict=True)
        )

    def _sample(
        self, rows: Sequence[Observation], number: int, which: int
    ) -> tuple[Observation, ...]:
        """At most so many rows, in their order."""
        if len(rows) <= self.config.most:
            return tuple(rows)
        # a sample depends on the window alone, so that a replay draws the same
        key = zlib.crc32(f"{number} {which}".encode())
        rng = np.random.default_rng((self.seed, key))
        places = np.sort(rng.choice(len(rows), self.config.most, replace=False))
        return tuple(rows[place] for place in places)

    def _by_counts(
        self, before: Sequence[Observation], now: Sequence[Observation]
    ) -> list[DriftFinding]:
        texts = [row.text for row in before]
        kinds: dict[str, Callable[[str], str]] = {
            "lengths": length_bins(texts),
            "forms": form_of,
        }
        if self.config.languages:
            kinds["languages"] = language_of
        findings = [
            _compared(name, Counter(map(kind, texts)), Counter(kind(row.text) for row in now))
            for name, kind in kinds.items()
        ]
        categories = [
            Counter(row.category for row in rows if row.category is not None)
            for rows in (before, now)
        ]
        if all(categories):
            findings.append(_compared("categories", *categories))
        labels = _new_labels(before, now)
        return [*findings, labels] if labels else findings

    def _meanings(
        self,
        before: Sequence[Observation],
        now: Sequence[Observation],
        number: int,
        alpha: float,
    ) -> DriftFinding | None:
        if self.embed is None:
            return None
        vectors = [self.embed([row.text for row in rows]) for rows in (before, now)]
        # windows before the start have negative numbers
        seed = (self.seed, zlib.crc32(str(number).encode()))
        p_value = discrepancy(*vectors, seed=seed, least=alpha * _RESOLVED)
        return _draft("meanings", p_value, f"{len(now)} requests against {len(before)}")

    def _moved(
        self, before: Sequence[Observation], now: Sequence[Observation], embed: Embed
    ) -> tuple[Cluster, ...]:
        texts = [row.text for row in now]
        return grown_clusters(
            embed([row.text for row in before]),
            embed(texts),
            texts,
            examples=self.config.examples,
            seed=self.seed,
        )


def _new_labels(before: Sequence[Observation], now: Sequence[Observation]) -> DriftFinding | None:
    """Labels that the reference does not know; None without labels, or where they are free text."""
    known = Counter(row.expected for row in before if row.expected is not None)
    labels = Counter(row.expected for row in now if row.expected is not None)
    if not labels or 2 * len(known) > known.total():
        return None
    from scipy.stats import fisher_exact  # takes a moment

    new = Counter({label: count for label, count in labels.items() if label not in known})
    table = [[new.total(), labels.total() - new.total()], [0, known.total()]]
    names = "".join(f", {label} ({count})" for label, count in new.most_common(_NAMED))
    return _draft(
        "labels",
        float(fisher_exact(table, alternative="greater").pvalue),
        f"{new.total()} of {labels.total()} labels are new{names}",
    )


def _compared(name: str, before: Counter[str], now: Counter[str]) -> DriftFinding:
    totals = [sum(counts.values()) for counts in (before, now)]
    changes = {
        key: now[key] / totals[1] - before[key] / totals[0] for key in sorted({*before, *now})
    }
    most = max(changes, key=lambda key: abs(changes[key]))
    sentence = (
        f"most changed {most}: {before[most] / totals[0]:.1%} before, {now[most] / totals[1]:.1%}"
    )
    return _draft(name, homogeneity(before, now), sentence)


def _draft(test: str, p_value: float, sentence: str) -> DriftFinding:
    return DriftFinding(
        signal=Signal.INPUTS, test=test, is_alarm=False, sentence=sentence, p_value=p_value
    )
