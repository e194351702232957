"""Searches over the fake engine, in this process or, run as a script, in one that can be killed.

An engine here looks into a folder: while a file ``hold`` is there it does not answer, and makes a
file ``held``; while a file ``slow`` is there it takes a moment; it writes down every blend and the
process that it was made in.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tune_search.payload import SEARCH, DataSet, StudyInputs
from ztom.engines.protocol import BlendStats
from ztom.errors import ScoringError
from ztom.scoring.build import build_error
from ztom.scoring.protocol import ErrorFunction
from ztom.search.space import SearchSpace
from ztom.statistics.scores import Scores
from ztom.stimuli.records import Output, Stimulus
from ztom.testing.fake_engine import FakeEngine

if TYPE_CHECKING:
    from ztom.search.config import SearchConfig

OPTIMUM = (0.05, -0.04, 0.02)
_SLOW_S = 0.2


class WatchedEngine(FakeEngine):
    """A fake engine that can be held up and found."""

    def __init__(self, folder: Path, *, noise: float = 0.0) -> None:
        super().__init__(len(OPTIMUM), optimum=OPTIMUM, noise=noise)
        self._folder = folder
        (folder / "engine.pid").write_text(str(os.getpid()))

    def blend(self, factors: Sequence[float]) -> BlendStats:
        with (self._folder / "blends").open("a") as file:
            file.write(f"{list(factors)}\n")
        with (self._folder / "processes").open("a") as file:
            file.write(f"{os.getpid()}\n")
        while (self._folder / "hold").exists():
            (self._folder / "held").touch()
            time.sleep(0.01)
        if (self._folder / "slow").exists():
            time.sleep(_SLOW_S)
        return super().blend(factors)


class Brittle:
    """Wraps an error function: writes down its process, and refuses errors above a limit."""

    def __init__(self, folder: Path, limit: float) -> None:
        self._inner = build_error("cross_entropy")
        self._limit = limit
        (folder / "scorer.pid").write_text(str(os.getpid()))

    @property
    def name(self) -> str:
        return "brittle"

    @property
    def needs(self) -> frozenset:
        return self._inner.needs

    def score(self, stimuli: Sequence[Stimulus], outputs: Sequence[Output]) -> Scores:
        scores = self._inner.score(stimuli, outputs)
        if scores.aggregate()[0] > self._limit:
            raise ScoringError("the user's function gave NaN")
        return scores


class Deadly(Brittle):
    """Kills its process where the error is above the limit."""

    def score(self, stimuli: Sequence[Stimulus], outputs: Sequence[Output]) -> Scores:
        scores = self._inner.score(stimuli, outputs)
        if scores.aggregate()[0] > self._limit:
            os.kill(os.getpid(), signal.SIGKILL)
        return scores


def deadly(folder: Path, limit: float) -> ErrorFunction:
    return Deadly(folder, limit)


def brittle(folder: Path, limit: float) -> ErrorFunction:
    return Brittle(folder, limit)


def stimuli(count: int = 6) -> tuple[Stimulus, ...]:
    texts = [f"what is item number {i} of the list" for i in range(count)]
    return tuple(
        Stimulus(id=str(i), prompt=text, expected=text, group=str(i))
        for i, text in enumerate(texts)
    )


def make_inputs(
    folder: Path, *, limit: float = 1e9, noise: float = 0.0, guardrails: Sequence[str] = ()
) -> StudyInputs:
    """Three factors, six stimuli; trials whose error is above the limit fail."""
    sets = [DataSet(SEARCH, stimuli(), partial(brittle, folder, limit))]
    sets += [DataSet(name, stimuli(4), partial(build_error, "token_f1")) for name in guardrails]
    return StudyInputs(
        space=SearchSpace(("one", "two", "three"), (-0.1,) * 3, (0.1,) * 3),
        data=tuple(sets),
        engine=partial(WatchedEngine, folder, noise=noise),
        chain_digest="fake",
        data_digests={"search": "fake"},
    )


def make_config(folder: Path, evaluations: int, **more: object) -> SearchConfig:
    from ztom.search.config_files import parse_config  # not in every worker

    content = {
        "name": "fake",
        "chain": "unused.yaml",
        "stimuli": "unused.jsonl",
        "error": "cross_entropy",
        "output": str(folder / "out"),
        "budget": {"evaluations": evaluations, "tolerance": 0},
        "overlap_scoring": True,
        **more,
    }
    return parse_config(content)


def main() -> None:
    from tune_search.study import run_search

    folder, evaluations, resume = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "resume"
    config = make_config(folder, evaluations)
    outcome = run_search(config, resume=resume, inputs=make_inputs(folder))
    print(outcome.stop_reason, outcome.number_of_inferences, flush=True)


if __name__ == "__main__":
    main()
