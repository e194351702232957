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
        role: ``system``, ``user``, ``assistant`` or ``tool``; ``tools`` for a first turn that holds
            the definitions of what may be called.
        content: The text of the turn; for ``tools`` their JSON schemas, a list.
        tool_calls: The calls that an assistant's turn makes, a JSON list in OpenAI's form; empty
            for a turn without.
        tool_call_id: Id of the call that a tool's turn answers; empty where it has none.
        name: Name of the tool that a tool's turn comes from; empty where it has none.
    """

    role: str
    content: str
    tool_calls: str = ""
    tool_call_id: str = ""
    name: str = ""

    def fields(self) -> dict[str, str]:
        """The role, the content, and of the other fields those that are not empty."""
        more = {
            "tool_calls": self.tool_calls,
            "tool_call_id": self.tool_call_id,
            "name": self.name,
        }
        given = {key: value for key, value in more.items() if value}
        return {"role": self.role, "content": self.content, **given}


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
        metadata: The object ``metadata`` of the file's record; never interpreted.
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
