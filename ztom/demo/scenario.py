"""What a chain is taught, checkpoint by checkpoint, and what its users then ask.

**The standard library.** A help desk's model is taught in order. The base learns a share of every
topic and the developers' tools; then one iteration after another adds the rest of a topic: text,
data, files, and network last. Learning a topic, the model forgets much of what came before. Users
go on asking about everything, mostly about the earlier topics, so what they ask differs from what
the last iteration saw: that is the gap a blend can close. Set apart honestly:

* every thing users ask about was taught in exactly one checkpoint, but never in the words that
  they use: each name has one phrasing, picked by its hash, that training leaves out;
* search and holdout are about different names, each name being a group of its own, and no answer
  is given twice: a factor that helps on the holdout helps on knowledge that the search did not
  see;
* membership comes from hashes of the names, fixed before anything is trained; nothing is chosen
  by what a model can answer.

**A folder of one's own.** Rows of a training file in order, cut into slices: a base, then
iterations. Search and holdout are files of the folder and are passed on as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ztom.demo.corpus import Entry
from ztom.demo.model import ModelSize
from ztom.demo.train import Pair, Stage, TrainSettings
from ztom.errors import ConfigError, StimuliError
from ztom.stimuli.files import read_stimuli
from ztom.stimuli.records import Stimulus

#: How users ask; ``{name}`` stands once in each. Short, so that two names make no near-duplicates
#: (which is checked whenever a chain is made).
TEMPLATES = (
    "What does {name} do?",
    "Explain {name}.",
    "Describe {name} briefly.",
    "What is {name} for?",
    "When would I use {name}?",
    "Tell me about {name}, please.",
)

#: Topics in the order of the iterations; what is left of the corpus goes into the base.
ITERATIONS = ("text", "data", "files", "network")


@dataclass(frozen=True, slots=True)
class Scenario:
    """A chain to be trained and the stimuli to search and prove with.

    Attributes:
        stages: The base first, then the iterations in training order.
        search: Stimuli that the search may look at.
        holdout: Stimuli that only the proof looks at.
        size: Size of the model.
        training: Settings that the stages have in common.
    """

    stages: tuple[Stage, ...]
    search: tuple[Stimulus, ...]
    holdout: tuple[Stimulus, ...]
    size: ModelSize
    training: TrainSettings


@dataclass(frozen=True, slots=True)
class StdlibPlan:
    """Options of the standard-library chain; the defaults are those of the demo.

    Attributes:
        per_topic: Entries per topic of an iteration: the shortest names, which people ask about.
        tools: Entries of the developers' tools, all taught to the base.
        general: Share of each topic that the base is taught; its iteration is taught the rest.
        base_epochs: Number of passes of the base over its pairs, which have five phrasings of each
            question.
        epochs: Number of passes of an iteration over its pairs.
        base_rate: Peak learning rate of the base.
        rate: Peak learning rate of an iteration.
        traffic: Share of the users' questions by the checkpoint that taught their subject.
        search_size: Stimuli to search with.
        holdout_size: Stimuli to prove with.
        size: Size of the model.
        training: Settings that the stages have in common.
    """

    per_topic: int = 400
    tools: int = 150
    general: float = 0.35
    base_epochs: int = 3
    epochs: int = 2
    base_rate: float = 1e-3
    rate: float = 5e-4
    traffic: Mapping[str, float] = field(
        default_factory=lambda: {
            "base": 0.2,
            "text": 0.28,
            "data": 0.24,
            "files": 0.2,
            "network": 0.08,
        }
    )
    search_size: int = 64
    holdout_size: int = 380
    size: ModelSize = ModelSize()
    training: TrainSettings = TrainSettings()


@dataclass(frozen=True, slots=True)
class ChatPlan:
    """Options of a chain from a folder; the defaults suit some thousand short dialogues.

    Attributes:
        iterations: Number of checkpoints after the base.
        base_share: Share of the training rows, from the first on, that the base is taught.
        base_epochs: Number of passes of the base over its rows.
        epochs: Number of passes of an iteration over its rows.
        base_rate: Peak learning rate of the base.
        rate: Peak learning rate of an iteration.
        size: Size of the model.
        training: Settings that the stages have in common.
    """

    iterations: int = 4
    base_share: float = 0.4
    base_epochs: int = 4
    epochs: int = 2
    base_rate: float = 1e-3
    rate: float = 3e-4
    size: ModelSize = ModelSize()
    training: TrainSettings = TrainSettings(max_tokens=256, batch_tokens=1024)


def stdlib_scenario(entries: Sequence[Entry], plan: StdlibPlan) -> Scenario:
    """The lessons and the questions, from the entries of `ztom.demo.corpus.stdlib_entries`.

    Raises:
        ConfigError: The plan asks for more than the entries give.
    """
    _check_traffic(plan)
    taught = _taught(entries, plan)
    stages = [Stage("00-base", _lessons(taught["base"]), plan.base_epochs, plan.base_rate)]
    stages += [
        Stage(f"{i:02d}-{topic}", _lessons(taught[topic]), plan.epochs, plan.rate)
        for i, topic in enumerate(ITERATIONS, start=1)
    ]
    questions = _asked(taught, plan)
    return Scenario(
        stages=tuple(stages),
        search=questions[: plan.search_size],
        holdout=questions[plan.search_size :],
        size=plan.size,
        training=plan.training,
    )


def chat_scenario(data_folder: Path, plan: ChatPlan) -> Scenario:
    """A chain over ``train.jsonl`` in order; ``search.jsonl`` and ``holdout.jsonl`` beside it.

    Raises:
        StimuliError: A file is missing or malformed, holds too few rows, or chat turns.
        ConfigError: The plan leaves the base or the iterations without rows.
    """
    if plan.iterations < 1 or not 0 < plan.base_share < 1:
        raise ConfigError(
            "iterations and base_share",
            got=f"{plan.iterations} and {plan.base_share}",
            expected="at least 1, and a share between 0 and 1",
        )
    rows = read_stimuli(data_folder / "train.jsonl")
    pairs = [_pair(row) for row in rows]
    cuts = _cuts(len(pairs), plan)
    slices = [tuple(pairs[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)]
    if not all(slices):
        raise StimuliError(
            f"{data_folder / 'train.jsonl'} is too short for the chain",
            got=f"{len(rows)} rows",
            expected=f"at least one for the base and each of {plan.iterations} iterations",
        )
    stages = [Stage("00-base", slices[0], plan.base_epochs, plan.base_rate)]
    stages += [
        Stage(f"{i:02d}-slice", part, plan.epochs, plan.rate)
        for i, part in enumerate(slices[1:], start=1)
    ]
    return Scenario(
        stages=tuple(stages),
        search=tuple(read_stimuli(data_folder / "search.jsonl")),
        holdout=tuple(read_stimuli(data_folder / "holdout.jsonl")),
        size=plan.size,
        training=plan.training,
    )


def fraction(key: str) -> float:
    """A number in [0, 1) that depends on ``key`` only: changes of the corpus move nobody."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def questions(name: str) -> tuple[str, ...]:
    """All phrasings of a question about ``name``: first the users', then those taught."""
    start = int(fraction(f"phrasing of {name}") * len(TEMPLATES))
    return tuple(t.format(name=name) for t in TEMPLATES[start:] + TEMPLATES[:start])


def _check_traffic(plan: StdlibPlan) -> None:
    shares = plan.traffic.values()
    if min(shares, default=0.0) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise ConfigError("traffic", got=dict(plan.traffic), expected="positive shares of 1")
    if plan.search_size < 1 or plan.holdout_size < 1:
        raise ConfigError(
            "search_size and holdout_size",
            got=f"{plan.search_size} and {plan.holdout_size}",
            expected="at least 1 each",
        )


def _taught(entries: Sequence[Entry], plan: StdlibPlan) -> dict[str, list[Entry]]:
    """Entries by the checkpoint that teaches them."""
    taught: dict[str, list[Entry]] = {"base": [], **{topic: [] for topic in ITERATIONS}}
    for topic in (*ITERATIONS, "tools"):
        limit = plan.tools if topic == "tools" else plan.per_topic
        shortest_first = sorted(
            (entry for entry in entries if entry.topic == topic),
            key=lambda entry: (len(entry.name), entry.name),
        )
        for entry in shortest_first[:limit]:
            to_base = topic == "tools" or fraction(f"general {entry.name}") < plan.general
            taught["base" if to_base else topic].append(entry)
    return taught


def _lessons(entries: Sequence[Entry]) -> tuple[Pair, ...]:
    return tuple(Pair(q, entry.answer) for entry in entries for q in questions(entry.name)[1:])


def _asked(taught: Mapping[str, Sequence[Entry]], plan: StdlibPlan) -> tuple[Stimulus, ...]:
    """The users' questions, in an order that mixes the topics."""
    chosen: list[Entry] = []
    total = plan.search_size + plan.holdout_size
    share_before = 0.0
    for source, share in plan.traffic.items():
        # Rounding the running sum, not the shares, makes the parts add up to the total.
        wanted = round((share_before + share) * total) - round(share_before * total)
        share_before += share
        available = taught.get(source, ())
        if wanted > len(available):
            raise ConfigError(
                f"traffic of {source!r}",
                got=f"{wanted} questions",
                expected=f"at most {len(available)}, the entries that it was taught",
                fix="Ask for fewer stimuli, or teach more entries per topic.",
            )
        chosen += sorted(available, key=lambda entry: fraction(f"traffic {entry.name}"))[:wanted]
    chosen.sort(key=lambda entry: fraction(f"order {entry.name}"))
    return tuple(
        Stimulus(id=e.name, prompt=questions(e.name)[0], expected=e.answer, group=e.name)
        for e in chosen
    )


def _pair(row: Stimulus) -> Pair:
    if not isinstance(row.prompt, str):
        raise StimuliError(
            f"training row {row.id} is not a question and an answer",
            got="chat turns or numbers",
            expected="a text prompt",
        )
    return Pair(row.prompt, row.expected)


def _cuts(rows: int, plan: ChatPlan) -> list[int]:
    """Where slices start and end: the base's share, then equal slices."""
    base = round(rows * plan.base_share)
    return [0] + [
        base + round((rows - base) * i / plan.iterations) for i in range(plan.iterations + 1)
    ]
