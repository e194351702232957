"""Does one split know another's rows? Near-duplicates, and passages of thirteen words.

Near-duplicates are those of `ztom.stimuli.splits`: equal after folding, or with similar sets of
word pairs. A passage of 13 words in a row that both have counts as well, the usual measure of
contamination (Brown et al. 2020, "Language Models are Few-Shot Learners", appendix C), so that a
question that quotes another's document is found. Words of an instruction that stands in many rows
are passed over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

from ztom.stimuli.prompts import asked_text, words
from ztom.stimuli.records import Stimulus
from ztom.stimuli.splits import find_leaks

_WORDS = 13
_COMMON = 0.01  # share of rows from which on a passage is an instruction
_FEW = 5


@dataclass(frozen=True)
class SplitLeak:
    """A row that another split knows.

    Attributes:
        row: Id of the row.
        known: Id of the row of the other split.
        kind: ``prompt``, ``group``, ``near-duplicate`` or ``passage``.
    """

    row: str
    known: str
    kind: str


def leaks_between(known: Sequence[Stimulus], rows: Sequence[Stimulus]) -> list[SplitLeak]:
    """Rows of one split that another knows, each once.

    Args:
        known: Rows of the other split.
        rows: Rows that are looked at.
    """
    leaks = [SplitLeak(leak.holdout_id, leak.search_id, leak.kind)
             for leak in find_leaks(known, rows)]  # fmt: skip
    seen = {leak.row for leak in leaks}
    rest = [row for row in rows if row.id not in seen]
    return leaks + _passages(known, rest)


def _passages(known: Sequence[Stimulus], rows: Sequence[Stimulus]) -> list[SplitLeak]:
    theirs = [_passages_of(row) for row in known]
    counts = Counter(passage for passages in theirs for passage in set(passages))
    most = max(_FEW, int(_COMMON * len(known)))
    common = {passage for passage, count in counts.items() if count > most}
    owner: dict[int, str] = {}
    for row, passages in zip(known, theirs, strict=True):
        for passage in _own(passages, common):
            owner.setdefault(passage, row.id)
    leaks = []
    for row in rows:
        shared = next((p for p in _own(_passages_of(row), common) if p in owner), None)
        if shared is not None:
            leaks.append(SplitLeak(row.id, owner[shared], "passage"))
    return leaks


def _own(passages: Sequence[int], common: Set[int]) -> Iterator[int]:
    """Passages that share no word with one that stands in many rows."""
    last = -_WORDS  # the nearest common passage to the left, and to the right
    places = [place for place, passage in enumerate(passages) if passage in common]
    for place, passage in enumerate(passages):
        while places and places[0] <= place:
            last = places.pop(0)
        if place - last >= _WORDS and (not places or places[0] - place >= _WORDS):
            yield passage


def _passages_of(row: Stimulus) -> list[int]:
    """Hash of every 13 words in a row, in order."""
    text = asked_text(row.prompt)
    parts = [] if text is None else words(text)
    return [hash(tuple(parts[i : i + _WORDS])) for i in range(len(parts) - _WORDS + 1)]
