"""What is asked of an engine, and the model that it is asked of: plain values on their way to it.

An engine runs in a process of its own, perhaps on another machine. So a question carries the bytes
of its stimuli, never a path of them, and they are read where the engine is: a file that takes for
ever to be read holds up that process, which can be ended.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from serve_apps.control_plane.work import ChainSpec, open_chain
from ztom.blending.groups import division_key
from ztom.errors import EngineError, StimuliError
from ztom.io.text import renamed
from ztom.stimuli.records import Message, Prompt

if TYPE_CHECKING:
    from ztom.engines.config import EngineConfig
    from ztom.engines.protocol import Engine, GenerationConfig

#: Text of a turn by role, as a model was asked; a row of numbers has none.
Turns = tuple[tuple[str, str], ...]
#: A text, or a classifier's row.
Given = str | tuple[float, ...]


@dataclass(frozen=True)
class EngineSpec:
    """A model that an engine is to hold.

    Attributes:
        chain: Chain of the model; one reference is one fixed model.
        engine: Options of the engine, see `ztom.engines.config.EngineConfig`.
        marks: What else tells its content from an earlier one at the same places.
    """

    chain: ChainSpec
    engine: Mapping[str, object]
    marks: tuple[str, ...] = ()

    @cached_property
    def key(self) -> str:
        """Equal for models that one engine can answer for."""
        allowed = [self.chain.allow_config_differences, self.chain.allow_tokenizer_differences]
        groups = division_key(self.chain.groups)
        content = [self.chain.references, dict(self.engine), self.marks, allowed, groups]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def config(self) -> EngineConfig:
        """Options of the engine, checked."""
        from ztom.engines.config import EngineConfig

        return EngineConfig.model_validate(self.engine)

    def open(self) -> Engine:
        """The engine, loaded.

        Raises:
            ZtomError: A checkpoint cannot be used, or the engine does not start.
        """
        from ztom.checkpoints.checkpoint import open_checkpoint
        from ztom.checkpoints.fetch import fetch_folder
        from ztom.engines.build import build_engine, build_single

        config = self.config
        if len(self.chain.references) > 1:
            return build_engine(config, open_chain(self.chain), settings=self.chain.settings)
        pin = self.chain.pins[0] if self.chain.pins else None
        only = open_checkpoint(self.chain.references[0], settings=self.chain.settings, sha256=pin)
        return build_single(config, fetch_folder(only, None, self.chain.settings))


class EngineQuestion(Protocol):
    """Something that an engine is asked, in its own process."""

    def answer(self, engine: Engine) -> Any:
        """Ask it.

        Raises:
            ZtomError: The question makes no sense, or the engine failed.
        """


@dataclass(frozen=True)
class StimulusFile:
    """Stimuli as a file.

    Attributes:
        name: Name under which errors speak of it.
        suffix: Suffix that says how it is read.
        content: Bytes of the file.
        names: Name of the file of each line, where every line came from a file of its own.
    """

    name: str
    suffix: str
    content: bytes = field(repr=False)
    names: tuple[str, ...] = ()

    def prompts(self) -> list[Prompt]:
        """The prompts in it.

        Raises:
            StimuliError: It is not as it should be; names the file as the caller does.
        """
        from ztom.stimuli.files import read_prompts

        with tempfile.TemporaryDirectory(prefix="ztom-stimuli-") as folder:
            path = Path(folder, f"stimuli{self.suffix}")
            path.write_bytes(self.content)
            try:
                return read_prompts(path)
            except StimuliError as error:
                raise renamed(error, path, self.name, self.names) from None


@dataclass(frozen=True)
class BlendReply:
    """What a model answered.

    Attributes:
        turns: Turns of each prompt, in the order of the stimuli.
        given: Answer to each stimulus, for each blend that was asked.
    """

    turns: tuple[Turns, ...]
    given: tuple[tuple[Given, ...], ...]


@dataclass(frozen=True)
class BlendAnswers:
    """Asks for the answers of blends to stimuli: texts, or a classifier's rows.

    Attributes:
        factor_sets: Scaling factors of each blend; none for a fixed model.
        stimuli: The stimuli.
        generation: Options of generating text, see `ztom.engines.protocol.GenerationConfig`.
        batch_size: Stimuli per call of the engine; None for all at once.
    """

    factor_sets: tuple[tuple[float, ...], ...]
    stimuli: StimulusFile
    generation: Mapping[str, object]
    batch_size: int | None = None

    def answer(self, engine: Engine) -> BlendReply:
        """See `EngineQuestion.answer`."""
        from ztom.engines.protocol import GenerationConfig

        prompts = self.stimuli.prompts()
        how = GenerationConfig.model_validate(self.generation)
        given = []
        for factors in self.factor_sets:
            if factors and _loaded(engine) != factors:
                engine.blend(factors)
            given.append(_given(engine, prompts, how, self.batch_size or len(prompts)))
        return BlendReply(tuple(_turns(prompt) for prompt in prompts), tuple(given))


def _loaded(engine: Engine) -> tuple[float, ...] | None:
    """The factors of the blend that is loaded; None where the last one failed."""
    try:
        return engine.factors
    except EngineError:
        return None


def _given(
    engine: Engine, prompts: Sequence[Prompt], how: GenerationConfig, size: int
) -> tuple[Given, ...]:
    from ztom.engines.protocol import Capability
    from ztom.stimuli.batches import batches

    answers: list[Given] = []
    for batch in batches(prompts, size):
        if Capability.GENERATE in engine.info.capabilities:
            answers += [completion.text for completion in engine.generate(batch, how)]
        else:
            answers += [tuple(row) for row in engine.values(batch).tolist()]
    return tuple(answers)


def _turns(prompt: Prompt) -> Turns:
    if isinstance(prompt, str):
        return (("user", prompt),)
    return tuple((part.role, part.content) for part in prompt if isinstance(part, Message))
