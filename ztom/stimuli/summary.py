"""What a file of stimuli is, in figures: for whoever wants to see that it was understood."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ztom.stimuli.files import StimuliFile
from ztom.stimuli.left_out import LeftOut
from ztom.stimuli.prompts import prompt_digest, prompt_text
from ztom.stimuli.records import Stimulus

_EXAMPLES = 3


@dataclass(frozen=True)
class Longest:
    """The longest of some texts.

    Attributes:
        length: Number of characters or tokens.
        id: Id of its stimulus.
    """

    length: int
    id: str


@dataclass(frozen=True)
class StimulusExample:
    """A stimulus, to be looked at.

    Attributes:
        id: Id of the stimulus.
        prompt: The prompt as text.
        expected: The expected output; None where there is none.
    """

    id: str
    prompt: str
    expected: str | None


@dataclass(frozen=True)
class StimuliSummary:
    """A file of stimuli in figures.

    Attributes:
        path: Path or address of the file.
        container: Kind of file, such as ``JSON Lines``.
        stimuli: Number of stimuli that were read.
        forms: Number of stimuli by their form.
        with_expected: Number of stimuli that have an expected output.
        longest_prompt: The longest prompt, in characters.
        longest_expected: The longest expected output, in characters.
        longest_tokens: The longest prompt and expected output together, in tokens; None without a
            tokenizer.
        duplicates: Number of stimuli whose prompt stands before in the file.
        contradictions: Number of prompts that occur with different expected outputs.
        examples: The first stimulus, the one in the middle, and the last.
        left_out: What was left out of the file.
    """

    path: str
    container: str
    stimuli: int
    forms: Mapping[str, int]
    with_expected: int
    longest_prompt: Longest
    longest_expected: Longest
    longest_tokens: Longest | None
    duplicates: int
    contradictions: int
    examples: tuple[StimulusExample, ...]
    left_out: tuple[LeftOut, ...]


def summarize(
    file: StimuliFile, *, count_tokens: Callable[[Stimulus], int] | None = None
) -> StimuliSummary:
    """The figures of a file.

    Args:
        file: File as it was read.
        count_tokens: Counts the tokens of a stimulus, prompt and expected output together.
    """
    stimuli = file.stimuli
    answers = defaultdict(set)
    for stimulus in stimuli:
        answers[prompt_digest(stimulus.prompt)].add(stimulus.expected)
    return StimuliSummary(
        path=file.path,
        container=file.container,
        stimuli=len(stimuli),
        forms=dict(Counter(file.forms).most_common()),
        with_expected=len(stimuli) - file.without_expected,
        longest_prompt=_longest(stimuli, lambda stimulus: len(prompt_text(stimulus.prompt))),
        longest_expected=_longest(stimuli, lambda stimulus: len(stimulus.expected)),
        longest_tokens=None if count_tokens is None else _longest(stimuli, count_tokens),
        duplicates=len(stimuli) - len(answers),
        contradictions=sum(len(expected) > 1 for expected in answers.values()),
        examples=tuple(map(_example, _spread(stimuli))),
        left_out=file.left_out,
    )


def shared_prompts(files: Sequence[StimuliFile]) -> dict[tuple[str, str], int]:
    """Number of prompts that two files have in common, for each pair that has some."""
    digests = [(file.path, {prompt_digest(s.prompt) for s in file.stimuli}) for file in files]
    shared = {
        (first, second): len(here & there)
        for i, (first, here) in enumerate(digests)
        for second, there in digests[i + 1 :]
    }
    return {pair: count for pair, count in shared.items() if count}


def _longest(stimuli: Sequence[Stimulus], length: Callable[[Stimulus], int]) -> Longest:
    best, number = max((length(stimulus), -i) for i, stimulus in enumerate(stimuli))
    return Longest(best, stimuli[-number].id)


def _spread(stimuli: Sequence[Stimulus]) -> list[Stimulus]:
    places = sorted({0, len(stimuli) // 2, len(stimuli) - 1})
    return [stimuli[i] for i in places][:_EXAMPLES]


def _example(stimulus: Stimulus) -> StimulusExample:
    return StimulusExample(stimulus.id, prompt_text(stimulus.prompt), stimulus.expected or None)
