"""What Tune, the actors and the book-keeping take per trial, over the fake engine.

    python benchmarks/trial_overhead.py [--evaluations 50] [--sampler gp] [--stimuli 100]

Measured is the time from the end of the first trial to the end of the last one. Taken off are the
blending, generating and scoring of each trial and the sampler's own thinking, which is shown beside
it. The aim is 100 ms a trial or less on two cores.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tune_search.payload import SEARCH, DataSet, StudyInputs
from tune_search.session import ray_for_search
from tune_search.study import run_search
from ztom.scoring.build import build_error
from ztom.search.config_files import parse_config
from ztom.search.events import Event, TrialEnded
from ztom.search.outcome import PHASES, SearchOutcome
from ztom.search.space import SearchSpace
from ztom.stimuli.records import Stimulus
from ztom.testing.fake_engine import FakeEngine

FACTORS = 4


@dataclass
class Stopwatch:
    """Notes when trials end."""

    ends: list[float] = field(default_factory=list)

    def take(self, event: Event) -> None:
        """Called by the study."""
        if isinstance(event, TrialEnded):
            self.ends.append(time.perf_counter())


def measure(evaluations: int, sampler: str, stimuli: int) -> tuple[float, float, int]:
    """Seconds of overhead and of thinking per trial, and the number of trials."""
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        config = parse_config(
            {
                "chain": "unused",
                "stimuli": "unused",
                "error": "cross_entropy",
                "budget": {"evaluations": evaluations},
                "sampler": sampler,
                "output": str(Path(folder)),
            }
        )
        outcome = run_search(config, inputs=_work(stimuli), on_event=watch.take)
    later = len(watch.ends) - 1
    wall = watch.ends[-1] - watch.ends[0]
    thinking = outcome.seconds["sampler"]
    return (wall - _worked(outcome) - thinking) / later, thinking / later, len(watch.ends)


def _worked(outcome: SearchOutcome) -> float:
    """Seconds of the trials' own phases, all trials but the first."""
    return sum(t.outcome.seconds[phase] for t in outcome.trials[1:] for phase in PHASES)


def _work(count: int) -> StudyInputs:
    texts = [f"what is item number {i} of the list of things" for i in range(count)]
    stimuli = tuple(
        Stimulus(id=str(i), prompt=text, expected=text, group=str(i))
        for i, text in enumerate(texts)
    )
    names = tuple(f"step {i}" for i in range(FACTORS))
    return StudyInputs(
        space=SearchSpace(names, (-0.1,) * FACTORS, (0.1,) * FACTORS),
        data=(DataSet(SEARCH, stimuli, partial(build_error, "cross_entropy")),),
        engine=partial(FakeEngine, FACTORS, noise=0.01),
        chain_digest="fake",
    )


def main() -> None:
    """Print a line per sampler."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--evaluations", type=int, default=50)
    parser.add_argument("--samplers", default="random,gp")
    parser.add_argument("--stimuli", type=int, default=100)
    options = parser.parse_args()
    with ray_for_search(1):
        for sampler in options.samplers.split(","):
            overhead, thinking, trials = measure(options.evaluations, sampler, options.stimuli)
            print(
                f"{sampler:8} {trials} trials of {options.stimuli} stimuli: "
                f"overhead {1000 * overhead:.1f} ms a trial, sampler {1000 * thinking:.1f} ms",
                flush=True,
            )


if __name__ == "__main__":
    main()
