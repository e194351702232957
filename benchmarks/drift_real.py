"""24 weeks of real requests: banking77, whose intents appear one after the other.

53 of the 77 intents are known at launch, one more appears each week, and in week w a share of
0.01 w / accuracy of the requests is drawn from those that have appeared. All texts are split into
disjoint halves: one to train and to choose labels from, one to measure with, of which 100 a week,
drawn at random, feed the monitor. The model is a ridge regression on MiniLM's
embeddings; retraining takes every label there is.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ztom.data.labelling import select
from ztom.drift.config import MonitorConfig
from ztom.drift.monitor import Monitor, MonitorState, acted
from ztom.drift.observations import Observation, TrafficWindow
from ztom.scoring.embeddings import TextEmbedder

WEEKS, KNOWN, REQUESTS, REFERENCE, RANDOM = 24, 53, 1000, 1000, 100
_RIDGE = 0.3
_START = datetime(2026, 1, 5, tzinfo=UTC)
_WEEK = timedelta(days=7)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Corpus:
    """Texts of banking77.

    Attributes:
        texts: The texts.
        vectors: Embedding of each, shape (texts, 384).
        intents: Number of the intent of each, shape (texts,).
    """

    texts: tuple[str, ...]
    vectors: Floats
    intents: Ints


def read_corpus(folder: Path, cache: Path) -> Corpus:
    """The corpus, embedded once.

    Args:
        folder: Folder with ``train.csv`` and ``test.csv``.
        cache: File that the embeddings are kept in.
    """
    rows = []
    for name in ("train", "test"):
        with (folder / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            rows += [(row["text"], row["category"]) for row in csv.DictReader(file)]
    texts = tuple(text for text, _ in rows)
    if not cache.exists():
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.save(cache, TextEmbedder(kept=1).vectors(texts).astype(np.float32))
    vectors = np.load(cache).astype(np.float64)
    _, intents = np.unique([intent for _, intent in rows], return_inverse=True)
    return Corpus(texts, vectors, intents)


class Head:
    """A linear classifier of embeddings.

    Args:
        vectors: Embeddings, shape (texts, dimensions).
        intents: Intent of each, shape (texts,).
    """

    def __init__(self, vectors: Floats, intents: Ints) -> None:
        self._known, places, counts = np.unique(intents, return_inverse=True, return_counts=True)
        weight = (len(intents) / len(self._known) / counts)[places]
        target = np.eye(len(self._known))[places]
        self._middle = np.average(vectors, axis=0, weights=weight)
        self._offset = np.average(target, axis=0, weights=weight)
        centered = vectors - self._middle
        weighted = centered * weight[:, None]
        gram = weighted.T @ centered + _RIDGE * np.eye(vectors.shape[1])
        self._slope = np.linalg.solve(gram, weighted.T @ (target - self._offset))

    def answer(self, vectors: Floats) -> tuple[Ints, Floats]:
        """Intent of each text, and how far it lies above the next one: shapes (texts,)."""
        scores = (vectors - self._middle) @ self._slope + self._offset
        best = np.sort(scores, axis=1)
        return self._known[scores.argmax(axis=1)], best[:, -1] - best[:, -2]


@dataclass
class Stream:
    """Requests of each week, of one seed.

    Attributes:
        corpus: The corpus.
        seed: Seed of the order of intents, the halves and the draws.
    """

    corpus: Corpus
    seed: int
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        count = int(self.corpus.intents.max()) + 1
        order = self.rng.permutation(count)
        self._old, self._new = order[:KNOWN], order[KNOWN:]
        places = self.rng.permutation(len(self.corpus.intents))
        half = len(places) // 2
        self._halves = [
            {i: part[self.corpus.intents[part] == i] for i in range(count)}
            for part in (places[:half], places[half:])
        ]
        launch = np.concatenate([self._halves[0][i] for i in self._old])
        self.launch: Ints = launch
        head = Head(self.corpus.vectors[launch], self.corpus.intents[launch])
        measured = np.concatenate([self._halves[1][i] for i in self._old])
        self.head = head
        self.accuracy = self.measure(head, measured)

    def draw(self, week: int, count: int, *, half: int) -> Ints:
        """Requests of a week, from the half to label (0) or the one to measure (1)."""
        share = min(0.01 * week / self.accuracy, 1.0)
        fresh = int(self.rng.binomial(count, share)) if week else 0
        intents = np.concatenate(
            [
                self.rng.choice(self._new[: max(week, 1)], fresh),
                self.rng.choice(self._old, count - fresh),
            ]
        )
        return np.array([self.rng.choice(self._halves[half][i]) for i in intents])

    def measure(self, head: Head, places: Ints) -> float:
        """Share of right answers."""
        answers, _ = head.answer(self.corpus.vectors[places])
        return float((answers == self.corpus.intents[places]).mean())


def run(
    stream: Stream, *, calendar: tuple[int, ...] = (), by_signal: bool = False, chosen: int = 100
) -> tuple[Floats, int]:
    """Accuracy of each week, shape (weeks + 1,), and the number of times it was retrained.

    Args:
        stream: The requests.
        calendar: Weeks before which the model is retrained.
        by_signal: Whether it is retrained when the monitor alarms.
        chosen: Labels chosen a week, which are trained on.
    """
    corpus, head, labelled = stream.corpus, stream.head, [stream.launch]
    monitor, state = _monitor(stream, head, 0), MonitorState()
    accuracy, retrained, alarm = [], 0, False
    for week in range(WEEKS + 1):
        if alarm or week in calendar:
            places = np.concatenate(labelled)
            head = Head(corpus.vectors[places], corpus.intents[places])
            retrained += 1
            monitor, state = _monitor(stream, head, week), acted(state)
        accuracy.append(stream.measure(head, stream.draw(week, REQUESTS, half=1)))
        requests = stream.draw(week, REQUESTS, half=0)
        _, sure = head.answer(corpus.vectors[requests])
        seed = stream.seed * 1000 + week
        selection = select(sure, corpus.vectors[requests], random=0, chosen=chosen, seed=seed)
        labelled.append(requests[selection.chosen])
        drawn = stream.draw(week, RANDOM, half=1)  # the monitor's: never trained on
        look, state = monitor.look(state, _window(stream, head, week, drawn))
        alarm = by_signal and look.alarm is not None and week < WEEKS
    return np.array(accuracy), retrained


def _monitor(stream: Stream, head: Head, week: int) -> Monitor:
    """The labelled monitor, its reference drawn from the requests of the time of the release."""
    places = stream.draw(week, REFERENCE, half=1)
    config = MonitorConfig(start=_START, inputs=None, effort=None, disagreement=None)
    return Monitor(config, tuple(_observations(stream, head, week - 1, places)))


def _window(stream: Stream, head: Head, week: int, places: Ints) -> TrafficWindow:
    return TrafficWindow(
        number=week,
        start=_START + week * _WEEK,
        end=_START + (week + 1) * _WEEK,
        observations=tuple(_observations(stream, head, week, places)),
    )


def _observations(stream: Stream, head: Head, week: int, places: Ints) -> Iterator[Observation]:
    answers, _ = head.answer(stream.corpus.vectors[places])
    time = _START + week * _WEEK
    for place, answer in zip(places, answers, strict=True):
        yield Observation(
            time=time,
            text=stream.corpus.texts[place],
            correct=bool(answer == stream.corpus.intents[place]),
        )
