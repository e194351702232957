"""What travels to Ray's processes: a study's inputs, an engine's answers, a trial's report.

All of it is plain and picklable; making the inputs from a configuration is
`tune_search.preparation`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ztom.engines.protocol import Engine, GenerationConfig
from ztom.ledger import TrialOutcome
from ztom.scoring.protocol import ErrorFunction, Need
from ztom.search.baselines import ComparedModel
from ztom.search.space import SearchSpace
from ztom.stimuli.records import Output, Stimulus

#: Name of the data set whose error is minimised; every other one is a guardrail's.
SEARCH = "search"


@dataclass(frozen=True)
class DataSet:
    """Stimuli with the error function that judges the answers.

    Attributes:
        name: `SEARCH`, or the guardrail's name.
        stimuli: Prompts with what is expected of them.
        error: Factory of the error function, called in the process that scores.
        labels: Class labels, where the error function needs them.
    """

    name: str
    stimuli: tuple[Stimulus, ...]
    error: Callable[[], ErrorFunction]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudyInputs:
    """Everything that a study needs besides its configuration.

    Attributes:
        space: The factors and their bounds.
        data: The search set first, then the guardrails.
        engine: Factory of the engine, called in the process that will hold it, and after a crash.
        generation: Settings of text generation.
        batch_size: Stimuli per call of the engine; None for all at once.
        gpus: Number of GPUs that one engine takes on a cluster that has any.
        chain_digest: sha256 of the chain's content.
        data_digests: sha256 of each data set, by its name.
        models: The chain's checkpoints alone and their average, to compare with.
    """

    space: SearchSpace
    data: tuple[DataSet, ...]
    engine: Callable[[], Engine]
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    batch_size: int | None = None
    gpus: int = 0
    chain_digest: str = ""
    data_digests: Mapping[str, str] = field(default_factory=dict)
    models: tuple[ComparedModel, ...] = ()


@dataclass(frozen=True)
class Questions:
    """The part of the inputs that an engine actor needs; sent once, when the actor is made.

    Attributes:
        sets: Name, stimuli and class labels of each data set.
        generation: Settings of text generation.
        batch_size: Stimuli per call of the engine; None for all at once.
    """

    sets: tuple[tuple[str, tuple[Stimulus, ...], tuple[str, ...]], ...]
    generation: GenerationConfig
    batch_size: int | None

    @classmethod
    def of(cls, inputs: StudyInputs) -> Questions:
        """The questions alone: the engine's process may lack what error functions import."""
        sets = tuple((data.name, data.stimuli, data.labels) for data in inputs.data)
        return cls(sets, inputs.generation, inputs.batch_size)


@dataclass(frozen=True)
class Answers:
    """What an engine gave back for one set of factors.

    Attributes:
        outputs: One output per stimulus, in order, by data set.
        seconds: Seconds of ``blend`` and ``generate``.
        process: Id of the engine's process.
    """

    outputs: Mapping[str, list[Output]]
    seconds: Mapping[str, float]
    process: int


#: What the error functions of each data set need, by its name.
Needs = Mapping[str, frozenset[Need]]


@dataclass(frozen=True)
class TrialReport:
    """What a trial hands to the driver.

    Attributes:
        outcome: Errors, guardrails and seconds, as the ledger keeps them.
        outputs: One output per stimulus of the search set; empty unless reports are detailed.
    """

    outcome: TrialOutcome
    outputs: tuple[Output, ...] = ()
