"""Chains and prompts that peers are compared on, kept in a cache folder once they are made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from models import make_llama_chain

from ztom.demo.chains import make_stdlib_chain
from ztom.engines.prompts import PromptEncoder
from ztom.io.yaml import read_yaml
from ztom.stimuli.files import read_stimuli
from ztom.stimuli.records import Stimulus

#: Tokens that an answer has at most.
NEW_TOKENS = 32


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


def _millions(parameters: int) -> str:
    number = parameters / 1e6
    return f"{number:.1f}" if number < 10 else f"{number:.0f}"
