"""Chat templates, rendered in processes that can be killed.

A template is a program that comes with a checkpoint: one that loops, perhaps on a certain word
only, or that fills the memory, would hang whoever renders it. Here each rendering has a limit on
computing time and memory, in a process of its own that stays for the next one; whoever asks for it
is refused when that is not enough, and nobody else waits.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_jsonable_python

from ztom.errors import CapabilityError, EngineError, PromptError
from ztom.io.bounded import BoundedPool, OverLimitError

#: Seconds of computing for one conversation.
CPU_S = 1.0
_MEMORY_BYTES = 2**30
_PROCESSES = 4
_RENDER = "ztom.engines.chat_render:render"


@dataclass(frozen=True)
class Conversation:
    """What a template is to render.

    Attributes:
        template: Template in Jinja.
        messages: Turns of the conversation.
        variables: What the template may name besides: tools, special tokens, options.
        continues: Whether the last turn is to be continued; a text names the turn's field.
    """

    template: str
    messages: Sequence[Mapping[str, Any]]
    variables: Mapping[str, Any] = field(default_factory=dict)
    continues: bool | str = False

    @property
    def arguments(self) -> tuple[object, ...]:
        """The same as values that go from process to process."""
        messages, variables = to_jsonable_python([list(self.messages), dict(self.variables)])
        return self.template, messages, variables, self.continues


class TemplateLimitError(PromptError):
    """A conversation needs more than a chat template may use."""


def rendered(conversation: Conversation, *, cpu_s: float = CPU_S) -> str:
    """The text of a conversation.

    Args:
        conversation: What is to be rendered.
        cpu_s: Seconds of computing that it may take.

    Raises:
        TemplateLimitError: The template did not come to an end, or needed too much memory.
        PromptError: The template refuses the conversation.
    """
    try:
        return _text(*_renderers().call(_RENDER, *conversation.arguments, cpu_s=cpu_s))
    except OverLimitError as error:
        raise _beyond(error) from None


async def rendered_async(conversation: Conversation, *, cpu_s: float = CPU_S) -> str:
    """`rendered`, without holding the event loop up."""
    try:
        return _text(*await _renderers().call_async(_RENDER, *conversation.arguments, cpu_s=cpu_s))
    except OverLimitError as error:
        raise _beyond(error) from None


def check_chat_template(template: str, *, cpu_s: float = CPU_S) -> None:
    """Refuse a template that does not end, or that fills the memory; its other mistakes pass.

    Args:
        template: Template in Jinja.
        cpu_s: Seconds of computing for a short conversation.

    Raises:
        EngineError: It needed more.
    """
    turn = {"role": "user", "content": "Hello"}
    variables = {"add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>"}
    try:
        rendered(Conversation(template, [turn], variables), cpu_s=cpu_s)
    except TemplateLimitError as error:
        raise _refused(error.reason or "") from error
    except PromptError:
        return


@functools.cache
def _renderers() -> BoundedPool:
    return BoundedPool(processes=_PROCESSES, memory_bytes=_MEMORY_BYTES)


def _text(kind: str, text: str) -> str:
    if kind == "refused":
        raise PromptError("the chat template refuses the messages", reason=text)
    return text


def _beyond(error: OverLimitError) -> TemplateLimitError:
    return TemplateLimitError("the chat template cannot render the messages", reason=error)


def _refused(reason: str) -> EngineError:
    return CapabilityError(
        "the chat template does not come to an end",
        reason=reason,
        fix="Take the template from the checkpoint that the tokenizer came with.",
    )
