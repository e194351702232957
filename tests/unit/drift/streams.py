"""Made-up traffic: requests of a few topics, answered rightly or not, week by week."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from ztom.drift.observations import Observation

START = datetime(2026, 1, 5, tzinfo=UTC)
WEEK = timedelta(days=7)
_WIDTH = 16


def week(
    number: int,
    *,
    wrong: float = 0.1,
    topics: Sequence[str] = ("card", "loan", "transfer"),
    count: int = 120,
    labelled: int = 100,
    step: timedelta = WEEK,
    **fields: object,
) -> list[Observation]:
    """Requests of a window; the first ones are labelled."""
    rng = np.random.default_rng((7, number + 1000))
    start = START + number * step
    rows = []
    for place in range(count):
        topic = topics[rng.integers(len(topics))]
        labels = {"correct": bool(rng.uniform() >= wrong)} if place < labelled else {}
        text = f"{topic} {' '.join(map(str, rng.integers(1000, size=rng.integers(1, 6))))}"
        rows.append(
            Observation(time=start + step * place / count, text=text, **{**labels, **fields})
        )
    return rows


def embed(texts: Sequence[str]) -> np.ndarray:
    """Vectors by the first word, with a little of each text's own."""
    vectors = np.empty((len(texts), _WIDTH))
    for place, text in enumerate(texts):
        topic = np.random.default_rng(list(text.split()[0].encode())).standard_normal(_WIDTH)
        own = np.random.default_rng(list(text.encode())).standard_normal(_WIDTH)
        vectors[place] = topic + 0.5 * own
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
