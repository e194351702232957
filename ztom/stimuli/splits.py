"""Splitting stimuli into a search set and a holdout, and checking that the two are apart.

Which side a stimulus is on depends on its group and the seed alone, so a split stays as it was when
stimuli are added, removed or reordered. Near-duplicates are prompts whose sets of word pairs have
a Jaccard similarity at or above a threshold. Candidates come from MinHash with locality-sensitive
hashing (Broder 1997; datasketch) and are confirmed with the exact similarity. Paraphrases in
other words are not found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ztom.errors import ConfigError, LeakageError, StimuliError
from ztom.stimuli.prompts import asked_text, prompt_digest, words
from ztom.stimuli.records import Message, Stimulus

if TYPE_CHECKING:
    from datasketch import MinHash

_PERMUTATIONS = 128
_SHOWN_IDS = 5


@dataclass(frozen=True)
class Leak:
    """A holdout stimulus that the search set knows already.

    Attributes:
        holdout_id: The stimulus in the holdout.
        search_id: The first one like it in the search set.
        kind: ``prompt``, ``group`` or ``near-duplicate``, the first that applies.
        similarity: Jaccard similarity of the prompts' word pairs for a near-duplicate, else 1.
    """

    holdout_id: str
    search_id: str
    kind: str
    similarity: float


def split(
    stimuli: Sequence[Stimulus], *, holdout_fraction: float, seed: int
) -> tuple[list[Stimulus], list[Stimulus]]:
    """Split into ``(search, holdout)``, whole groups at a time, both in the order given.

    Args:
        stimuli: Stimuli to split.
        holdout_fraction: Expected share of groups in the holdout, between 0 and 1; the actual share
            varies around it as coin tosses do.
        seed: Seed of the split; another one gives another split.

    Raises:
        ConfigError: The fraction is not between 0 and 1.
        StimuliError: One side would be empty.
    """
    if not 0.0 < holdout_fraction < 1.0:
        raise ConfigError("holdout_fraction", got=holdout_fraction, expected="between 0 and 1")
    sides: tuple[list[Stimulus], list[Stimulus]] = ([], [])
    for stimulus in stimuli:
        sides[_position(stimulus.group, seed) < holdout_fraction].append(stimulus)
    if not all(sides):
        groups = len({stimulus.group for stimulus in stimuli})
        raise StimuliError(
            "the split leaves one side empty",
            got=f"{len(sides[0])} for the search and {len(sides[1])} for the holdout, "
            f"from {groups} groups",
            fix="Give more stimuli, another fraction or seed, or a holdout file of your own.",
        )
    return sides


def _position(group: str, seed: int) -> float:
    """A number in [0, 1) that depends on nothing but the group and the seed."""
    digest = hashlib.blake2b(f"{seed}\0{group}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def check_disjoint(
    search: Sequence[Stimulus], holdout: Sequence[Stimulus], *, threshold: float = 0.8
) -> None:
    """Make sure that the holdout holds nothing the search has seen.

    Args:
        search: The stimuli of the search.
        holdout: The stimuli of the proof.
        threshold: Jaccard similarity of word pairs from which two prompts are near-duplicates.

    Raises:
        LeakageError: Groups, prompts or near-duplicates are shared; names counts and ids.
        ConfigError: The threshold is not in (0, 1].
    """
    leaks = find_leaks(search, holdout, threshold=threshold)
    if not leaks:
        return
    kinds = ", ".join(
        f"{sum(leak.kind == kind for leak in leaks)} by {kind}"
        for kind in ("prompt", "group", "near-duplicate")
        if any(leak.kind == kind for leak in leaks)
    )
    shown = ", ".join(f"{leak.holdout_id} ~ {leak.search_id}" for leak in leaks[:_SHOWN_IDS])
    more = "" if len(leaks) <= _SHOWN_IDS else f" and {len(leaks) - _SHOWN_IDS} more"
    raise LeakageError(
        f"{len(leaks)} of {len(holdout)} holdout stimuli are in the search set ({kinds})",
        got=f"holdout ~ search: {shown}{more}",
        expected="none",
        fix="Remove them from one side or give both the same group before splitting. Where all "
        "prompts share a long text, put it into a system turn: those are not compared.",
    )


def without_leaks(
    search: Sequence[Stimulus], holdout: Sequence[Stimulus], *, threshold: float = 0.8
) -> list[Stimulus]:
    """The search stimuli that the holdout does not know: what to search on when one file was split.

    The holdout stays as it is, so a proof is on the same stimuli whatever was dropped from the
    search.

    Raises:
        ConfigError: The threshold is not in (0, 1].
    """
    leaking = {leak.holdout_id for leak in find_leaks(holdout, search, threshold=threshold)}
    return [stimulus for stimulus in search if stimulus.id not in leaking]


def find_leaks(
    search: Sequence[Stimulus], holdout: Sequence[Stimulus], *, threshold: float = 0.8
) -> list[Leak]:
    """Every holdout stimulus that has a like in the search set, in the holdout's order.

    Raises:
        ConfigError: The threshold is not in (0, 1].
    """
    if not 0.0 < threshold <= 1.0:
        raise ConfigError("near-duplicate threshold", got=threshold, expected="in (0, 1]")
    by_group = {stimulus.group: stimulus.id for stimulus in reversed(search)}
    by_prompt = {prompt_digest(stimulus.prompt): stimulus.id for stimulus in reversed(search)}
    similar = _NearDuplicates(search, threshold=threshold)
    leaks = []
    for stimulus in holdout:
        digest = prompt_digest(stimulus.prompt)
        if digest in by_prompt:
            leaks.append(Leak(stimulus.id, by_prompt[digest], "prompt", 1.0))
        elif stimulus.group in by_group:
            leaks.append(Leak(stimulus.id, by_group[stimulus.group], "group", 1.0))
        elif match := similar.first_like(stimulus):
            leaks.append(Leak(stimulus.id, match[0], "near-duplicate", match[1]))
    return leaks


class _NearDuplicates:
    """An index of prompts that answers whether one like a given prompt is in it."""

    def __init__(self, stimuli: Sequence[Stimulus], *, threshold: float) -> None:
        # Here and not at the top: it imports most of scipy, and few processes compare prompts.
        from datasketch import MinHashLSH

        self._threshold = threshold
        self._ids: dict[frozenset[str], str] = {}
        for stimulus in stimuli:
            if pairs := word_pairs(stimulus):
                self._ids.setdefault(pairs, stimulus.id)
        self._pairs = list(self._ids)
        self._index = MinHashLSH(num_perm=_PERMUTATIONS, params=_bands(threshold))
        with self._index.insertion_session() as session:
            for i, sketch in enumerate(_sketches(self._pairs)):
                session.insert(i, sketch, check_duplication=False)

    def first_like(self, stimulus: Stimulus) -> tuple[str, float] | None:
        """Id and similarity of the first prompt at or above the threshold, or None."""
        pairs = word_pairs(stimulus)
        if not pairs:
            return None
        for candidate in sorted(self._index.query(_sketches([pairs])[0])):
            other = self._pairs[candidate]
            shared = len(pairs & other)
            similarity = shared / (len(pairs) + len(other) - shared)
            if similarity >= self._threshold:
                return self._ids[other], similarity
        return None


def word_pairs(stimulus: Stimulus) -> frozenset[str]:
    """Neighbouring words of what the stimulus asks; empty for rows of numbers.

    Pairs, not the longer shingles usual for documents: prompts are short, and one changed word in
    ten would break a third of all triples.
    """
    text = asked_text(stimulus.prompt)
    parts = [] if text is None else words(text)
    return frozenset(f"{a} {b}" for a, b in zip(parts, parts[1:], strict=False)) or frozenset(parts)


def _sketches(sets: Sequence[frozenset[str]]) -> list[MinHash]:
    from datasketch import MinHash

    data = [[item.encode() for item in sorted(items)] for items in sets]
    sketches: list[MinHash] = MinHash.bulk(data, num_perm=_PERMUTATIONS, seed=1)
    return sketches


def _bands(threshold: float) -> tuple[int, int]:
    """Bands and rows per band that miss a pair at the threshold once in a thousand at most.

    Two sets of similarity s meet in at least one of b bands of r rows with probability
    ``1 - (1 - s^r)^b``. The most rows that still meet the aim give the fewest false candidates.
    """
    for rows in range(16, 1, -1):
        bands = _PERMUTATIONS // rows
        if (1.0 - threshold**rows) ** bands <= 1e-3:
            return bands, rows
    return _PERMUTATIONS, 1


def data_digest(stimuli: Sequence[Stimulus]) -> str:
    """SHA-256, in hex, of what decides a result: prompts, expected outputs and groups, in order.

    Ids and metadata are names: they may change and the data stay the same.
    """
    digest = hashlib.sha256()
    for stimulus in stimuli:
        prompt = [
            [*part.fields().values()] if isinstance(part, Message) else part
            for part in stimulus.prompt
        ]
        content = stimulus.prompt if isinstance(stimulus.prompt, str) else prompt
        line = json.dumps([content, stimulus.expected, stimulus.group], separators=(",", ":"))
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


__all__ = [
    "Leak",
    "check_disjoint",
    "data_digest",
    "find_leaks",
    "split",
    "without_leaks",
    "word_pairs",
]
