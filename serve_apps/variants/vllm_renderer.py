"""vLLM's renderer of chats, with the template itself rendered in another process.

vLLM renders a template in a thread: one that loops takes the interpreter's lock from everybody, for
as long as it likes, and the only thread from the chats behind it. Which template it is, what it is
given and what becomes of its text stay vLLM's.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any

from vllm.exceptions import VLLMValidationError
from vllm.renderers.chat_utils import parse_chat_messages_async
from vllm.renderers.hf import (
    HfRenderer,
    resolve_chat_template_content_format,
    safe_apply_chat_template,
)
from vllm.renderers.inputs.preprocess import parse_dec_only_prompt

from ztom.engines.chat_template import Conversation, rendered_async
from ztom.errors import PromptError

#: Arguments of a tokenizer's ``apply_chat_template`` that the template never sees.
_FOR_THE_TOKENIZER = frozenset(
    {"conversation", "chat_template", "tokenize", "continue_final_message", "return_dict"}
    | {"padding", "truncation", "max_length", "return_tensors", "tokenizer_kwargs"}
    | {"return_assistant_tokens_mask"}
)


def bounded(renderer: Any) -> Any:
    """The same renderer with bounded templates; others than those of Jinja have no such loops."""
    if type(renderer) is not HfRenderer:
        return renderer
    twin = copy.copy(renderer)
    twin.__class__ = _BoundedRenderer
    twin.recorder = _recorder(renderer.get_tokenizer())
    return twin


class _BoundedRenderer(HfRenderer):  # type: ignore[misc]  # vLLM is not typed
    """Renders text chats; everything else is vLLM's."""

    recorder: Any

    async def render_messages_async(self, messages: Any, params: Any) -> tuple[Any, Any]:
        """See vLLM; raises its error of a request that is wrong."""
        conversation, data, ids = await parse_chat_messages_async(
            messages,
            self.model_config,
            content_format=resolve_chat_template_content_format(
                chat_template=params.chat_template,
                tools=params.chat_template_kwargs.get("tools"),
                given_format=params.chat_template_content_format,
                tokenizer=self.get_tokenizer(),
                model_config=self.model_config,
            ),
            media_io_kwargs=params.media_io_kwargs,
            mm_processor_kwargs=params.mm_processor_kwargs,
        )
        if data is not None or ids is not None:
            raise VLLMValidationError("Only text content is supported.", parameter="messages")
        given = safe_apply_chat_template(
            self.model_config,
            self.recorder,
            conversation,
            **params.get_apply_chat_template_kwargs(),
        )
        try:
            text = await rendered_async(_conversation(self.recorder, given))
        except PromptError as error:
            raise VLLMValidationError(_sentence(error), parameter="messages") from None
        return conversation, parse_dec_only_prompt(text)


def _recorder(tokenizer: Any) -> Any:
    """A tokenizer that gives back what its template was to render."""
    twin = copy.copy(tokenizer)

    @functools.wraps(tokenizer.apply_chat_template)
    def given(**arguments: Any) -> dict[str, Any]:
        return arguments

    twin.apply_chat_template = given
    return twin


def _conversation(tokenizer: Any, given: Mapping[str, Any]) -> Conversation:
    """What transformers makes of these arguments."""
    defaults = {"tools": None, "documents": None, "add_generation_prompt": False}
    continues = given.get("continue_final_message", False)
    if continues and given.get("add_generation_prompt"):
        raise VLLMValidationError(
            "continue_final_message and add_generation_prompt exclude each other.",
            parameter="add_generation_prompt",
        )
    named = {key: value for key, value in given.items() if key not in _FOR_THE_TOKENIZER}
    variables = {**defaults, **tokenizer.special_tokens_map, **named}
    return Conversation(given["chat_template"], given["conversation"], variables, continues)


def _sentence(error: PromptError) -> str:
    return f"{error.what[0].upper()}{error.what[1:]}: {error.reason}"
