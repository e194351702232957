"""A chain of seconds for examples and for trying things out.

The base is a Llama of some 90,000 parameters that is taught a few sentences. The first iteration is
a small random step away from it, the second a large one, which makes answers worse: a search that
lowers the cross-entropy takes most of the second step back. It shows how things are used, not what
they are worth; `ztom.demo.chains` trains every step of a chain.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from ztom.demo.model import ModelSize, build_model, save_checkpoint, train_tokenizer
from ztom.demo.train import Pair, Stage, TrainSettings, encode, train_stage

#: Heads of 32, the smallest that vLLM's CPU build knows.
_SIZE = ModelSize(vocabulary=400, hidden=64, intermediate=96, layers=2, heads=2, max_positions=256)
_SETTINGS = TrainSettings(max_tokens=64, threads=1)
#: Name of each checkpoint, and the size of the step to it, relative to the weights' spread.
_STEPS = (("base", 0.0), ("first", 0.1), ("second", 0.8))
_SUBJECTS = ("a list", "a dictionary", "a set", "a tuple", "a string", "a file", "a module")
_QUESTIONS = (
    ("How do I copy {}?", "Take copy.copy of {}."),
    ("How do I print {}?", "Call print with {}."),
    ("How do I compare {}?", "Write == between {} and another."),
    ("How long is {}?", "Call len with {}."),
)


@dataclass(frozen=True)
class ToyChain:
    """A toy chain on disk, and stimuli for it.

    Attributes:
        folder: Folder that holds everything below.
        chain_file: File of the chain, YAML.
        checkpoints: Folder of each checkpoint, the base first.
        search_file: Stimuli to search with.
        holdout_file: Stimuli to prove with, about other subjects.
    """

    folder: Path
    chain_file: Path
    checkpoints: tuple[Path, ...]
    search_file: Path
    holdout_file: Path


def make_toy_chain(folder: Path, *, seed: int = 0) -> ToyChain:
    """Write a chain of three checkpoints with its stimuli; files that are there are replaced.

    Args:
        folder: Folder of the chain; made when missing.
        seed: Seed of all weights.
    """
    pairs = [Pair(row["prompt"], row["expected"]) for row in _rows(_SUBJECTS)]
    tokenizer = train_tokenizer([f"{pair.prompt} {pair.answer}" for pair in pairs], _SIZE)
    model = build_model(tokenizer, _SIZE, seed=seed)
    examples = encode(tokenizer, pairs, max_tokens=_SETTINGS.max_tokens)
    train_stage(model, examples, Stage("base", tuple(pairs), 12, 2e-2), settings=_SETTINGS)
    generator = torch.Generator().manual_seed(seed)
    checkpoints = []
    for name, step in _STEPS:
        with torch.no_grad():
            for parameter in model.parameters():
                spread = parameter.std() if parameter.ndim > 1 else 0.0
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(noise * spread * step)
        save_checkpoint(model, tokenizer, folder / name)
        checkpoints.append(folder / name)
    names = {"checkpoints": [name for name, _ in _STEPS]}
    (folder / "chain.yaml").write_text(yaml.safe_dump(names), encoding="utf-8")
    return ToyChain(
        folder=folder,
        chain_file=folder / "chain.yaml",
        checkpoints=tuple(checkpoints),
        search_file=_write(folder / "search.jsonl", _rows(_SUBJECTS[:3])),
        holdout_file=_write(folder / "holdout.jsonl", _rows(_SUBJECTS[3:])),
    )


def _rows(subjects: Sequence[str]) -> list[dict[str, str]]:
    return [
        {"prompt": question.format(subject), "expected": answer.format(subject)}
        for subject in subjects
        for question, answer in _QUESTIONS
    ]


def _write(path: Path, rows: Sequence[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
