"""What travels to Ray's processes: a study's inputs, an engine's answers, a trial's report.

All of it is plain and picklable; making the inputs from a configuration is
`tune_search.preparation`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cluster.capacity import Device, NodeNeeds
from ztom.engines.protocol import DerivativeMode, Derivatives, Engine, GenerationConfig
from ztom.errors import ScoringError
from ztom.ledger import TrialOutcome
from ztom.scoring.differentiable import LossTerm
from ztom.scoring.protocol import ErrorFunction, Need
from ztom.search.baselines import ComparedModel
from ztom.search.space import SearchSpace
from ztom.statistics.scores import Scores
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
        losses: The error's terms as derivatives are taken of them; empty where none are taken.
    """

    name: str
    stimuli: tuple[Stimulus, ...]
    error: Callable[[], ErrorFunction]
    labels: tuple[str, ...] = ()
    losses: tuple[LossTerm, ...] = ()


@dataclass(frozen=True)
class GradientInputs:
    """How a search takes derivatives.

    Attributes:
        mode: Forward or reverse.
        engine: Factory of the engine that takes them where the study's own engine does not.
    """

    mode: DerivativeMode
    engine: Callable[[], Engine]


@dataclass(frozen=True)
class EnginePlace:
    """Where one engine is to run.

    Attributes:
        device: ``auto`` takes GPUs where the cluster has any, or could have.
        needs: What it asks of its node; the GPUs are those it takes where it takes any.
    """

    device: Device = "auto"
    needs: NodeNeeds = NodeNeeds()


@dataclass(frozen=True)
class StudyInputs:
    """Everything that a study needs besides its configuration.

    Attributes:
        space: The factors and their bounds.
        data: The search set first, then the guardrails.
        engine: Factory of the engine, called in the process that will hold it, and after a crash.
        generation: Settings of text generation.
        batch_size: Stimuli per call of the engine; None for all at once.
        place: What one engine asks of its node.
        chain_digest: sha256 of the chain's content.
        data_digests: sha256 of each data set, by its name.
        models: The chain's checkpoints alone and their average, to compare with.
        gradients: How derivatives are taken; None where the sampler takes none.
        name: Name of the study, under which Ray's dashboard shows its engines.
    """

    space: SearchSpace
    data: tuple[DataSet, ...]
    engine: Callable[[], Engine]
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    batch_size: int | None = None
    place: EnginePlace = field(default_factory=EnginePlace)
    chain_digest: str = ""
    data_digests: Mapping[str, str] = field(default_factory=dict)
    models: tuple[ComparedModel, ...] = ()
    gradients: GradientInputs | None = None
    name: str = "search"


@dataclass(frozen=True)
class Questions:
    """The part of the inputs that an engine actor needs; sent once, when the actor is made.

    Attributes:
        sets: Name, stimuli and class labels of each data set.
        generation: Settings of text generation.
        batch_size: Stimuli per call of the engine; None for all at once.
        losses: Terms of each data set's error, in the order of the sets.
        gradients: How derivatives are taken; None where none are.
    """

    sets: tuple[tuple[str, tuple[Stimulus, ...], tuple[str, ...]], ...]
    generation: GenerationConfig
    batch_size: int | None
    losses: tuple[tuple[LossTerm, ...], ...] = ()
    gradients: GradientInputs | None = None

    @classmethod
    def of(cls, inputs: StudyInputs) -> Questions:
        """The questions alone: the engine's process may lack what error functions import."""
        sets = tuple((data.name, data.stimuli, data.labels) for data in inputs.data)
        losses = tuple(data.losses for data in inputs.data)
        return cls(sets, inputs.generation, inputs.batch_size, losses, inputs.gradients)

    def part(self, places: Sequence[int], *, others: bool) -> Questions:
        """Some stimuli of the search set, in that order; with the other data sets, or without."""
        (name, stimuli, labels), *rest = self.sets
        some = (name, tuple(stimuli[place] for place in places), labels)
        return replace(self, sets=(some, *rest) if others else (some,))


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


@dataclass(frozen=True)
class Slopes:
    """What an engine gave back for one set of factors: errors and their derivatives.

    Attributes:
        sets: Error of each data set with its derivatives, by name.
        seconds: Seconds of ``generate``, blending and both passes together.
    """

    sets: Mapping[str, Derivatives]
    seconds: Mapping[str, float]


#: What the error functions of each data set need, by its name.
Needs = Mapping[str, frozenset[Need]]


@dataclass(frozen=True)
class TrialReport:
    """What a trial hands to the driver.

    Attributes:
        outcome: Errors, guardrails and seconds, as the ledger keeps them.
        outputs: One output per stimulus of the search set; empty unless reports are detailed.
        engine_lost: Whether there is no answer because the engine is gone, and others are there.
    """

    outcome: TrialOutcome
    outputs: tuple[Output, ...] = ()
    engine_lost: bool = False


def error_of(name: str, scores: Scores) -> float:
    """The error of a data set, checked once more: everything downstream trusts it.

    Raises:
        ScoringError: It is not a finite number.
    """
    values = np.asarray(scores.aggregate(), dtype=np.float64)
    if values.shape != (1,) or not math.isfinite(values[0]):
        raise ScoringError(f"the error of {name!r} is not a finite number", got=values.tolist())
    return float(values[0])
