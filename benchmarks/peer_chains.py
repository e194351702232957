"""Chains and prompts that peers are compared on, kept in a cache folder once they are made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from models import make_llama_chain

from ztom.demo.chains import make_stdlib_chain
from ztom.demo.model import ModelSize
from ztom.demo.scenario import StdlibPlan
from ztom.demo.train import TrainSettings
from ztom.engines.prompts import PromptEncoder
from ztom.io.yaml import read_yaml
from ztom.stimuli.files import read_stimuli
from ztom.stimuli.records import Stimulus

#: Tokens that an answer has at most.
NEW_TOKENS = 32
#: About 79 M parameters, trained for a few minutes: what its steps do to an error is real, its
#: answers are not good.
LARGE_PLAN = StdlibPlan(
    per_topic=26,
    tools=6,
    base_epochs=1,
    epochs=1,
    base_rate=4e-4,
    rate=3e-4,
    search_size=34,
    holdout_size=6,
    size=ModelSize(vocabulary=4096, hidden=768, intermediate=3072, layers=8, heads=12),
    training=TrainSettings(batch_tokens=256),
)


@dataclass(frozen=True, slots=True)
class Workload:
    """What every peer is asked.

    Attributes:
        name: Name of the workload, for the table.
        chain_file: Chain file.
        checkpoints: Folders of the checkpoints, base first.
        stimuli: Prompts and expected answers.
        similarity: Whether the error has sentence similarity beside cross-entropy.
        spread: Largest scaling factor that is tried.
    """

    name: str
    chain_file: Path
    checkpoints: tuple[Path, ...]
    stimuli: tuple[Stimulus, ...]
    similarity: bool
    spread: float

    def write_task(self, path: Path, scratch: Path) -> Path:
        """The workload for processes that have no Z-TOM: tokens, texts and folders, as JSON.

        Args:
            path: File to write.
            scratch: Folder that a peer may write merged models into.
        """
        encoder = PromptEncoder(self.checkpoints[-1])
        task: dict[str, Any] = {
            "chain": str(self.chain_file),
            "checkpoints": [str(folder) for folder in self.checkpoints],
            "scratch": str(scratch),
            "new_tokens": NEW_TOKENS,
            "similarity": self.similarity,
            "stimuli": [
                {
                    "id": stimulus.id,
                    "prompt": stimulus.prompt,
                    "expected": stimulus.expected,
                    "prompt_ids": encoder.prompt_ids(stimulus.prompt),
                    "expected_ids": encoder.continuation_ids(stimulus.expected),
                }
                for stimulus in self.stimuli
            ],
        }
        path.write_text(json.dumps(task), encoding="utf-8")
        return path


def small(cache: Path, *, count: int = 64) -> Workload:
    """The demo's chain of 3.5 M parameters, trained by the demo's own code."""
    chain = make_stdlib_chain(cache / "demo-chain")
    stimuli = tuple(read_stimuli(chain.search_file))[:count]
    return Workload(
        f"{_millions(chain.parameters)} M, {len(stimuli)} prompts",
        chain.chain_file,
        chain.checkpoints,
        stimuli,
        similarity=True,
        spread=1.0,
    )


def large(cache: Path, *, count: int = 32) -> Workload:
    """A chain of 77 M parameters with random weights: for times only."""
    folder = cache / "random-77m"
    if not (folder / "chain.yaml").exists():  # it is written last
        make_llama_chain(
            folder, hidden=768, layers=7, vocabulary=14_000, members=5, dtype=torch.float32
        )
    words = "a few words to have a tokenizer for a benchmark"
    stimuli = tuple(Stimulus(str(i), f"{words} {i}", words, str(i)) for i in range(count))
    names = read_yaml(folder / "chain.yaml")["checkpoints"]
    return Workload(
        f"77 M, {count} prompts",
        folder / "chain.yaml",
        tuple(folder / str(name) for name in names),
        stimuli,
        similarity=False,
        spread=0.05,
    )


def trained(cache: Path, *, seed: int = 0, count: int = 32) -> Workload:
    """A trained chain of 79 M parameters, for whole searches.

    Args:
        cache: Folder that the chain is kept in.
        seed: Which of the stimuli are taken.
        count: How many.
    """
    chain = make_stdlib_chain(cache / "trained-79m", plan=LARGE_PLAN)
    order = torch.randperm(
        LARGE_PLAN.search_size, generator=torch.Generator().manual_seed(seed)
    ).tolist()
    everything = read_stimuli(chain.search_file)
    return Workload(
        f"{_millions(chain.parameters)} M, trained, {count} prompts",
        chain.chain_file,
        chain.checkpoints,
        tuple(everything[i] for i in order[:count]),
        similarity=False,
        spread=1.0,
    )


def _millions(parameters: int) -> str:
    number = parameters / 1e6
    return f"{number:.1f}" if number < 10 else f"{number:.0f}"
