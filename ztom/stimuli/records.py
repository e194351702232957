"""The records that travel between rooms: stimuli in, outputs back.

Plain frozen dataclasses: they are pickled to Ray actors by the thousand. Reading files into them is
`ztom.stimuli.files`; splitting them is `ztom.stimuli.splits`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat.

    Attributes:
        role: ``system``, ``user`` or ``assistant``.
        content: The text of the turn.
    """

    role: str
    content: str


#: What a model is given: plain text, the turns of a chat, or a row of numbers for a plain module.
Prompt = str | tuple[Message, ...] | tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Stimulus:
    """One thing to ask a model, with what it should answer.

    Attributes:
        id: Unique within its file.
        prompt: Text, chat turns, or a row of numbers.
        expected: The expected output: reference text, or a class label.
        group: Stimuli of one group stay on one side of a split and are resampled together.
        metadata: Further fields of the file's record; never interpreted.
    """

    id: str
    prompt: Prompt
    expected: str
    group: str
    metadata: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Output:
    """What an engine gave back for one stimulus; only what was asked for is set.

    Attributes:
        text: The generated text.
        generated_tokens: Length of the generated text in tokens.
        token_log_probs: Natural-log probability of each token of the expected output,
            teacher-forced, shape (tokens of the expected output,).
        label_log_probs: Natural-log probability of each class label, in the order of the labels,
            shape (labels,): a classifier's log-softmax, or the summed token log-probabilities of
            each label's text after the prompt.
        values: The raw output row of a plain module or regressor, shape (outputs,).
    """

    text: str | None = None
    generated_tokens: int = 0
    token_log_probs: tuple[float, ...] | None = None
    label_log_probs: tuple[float, ...] | None = None
    values: tuple[float, ...] | None = None
