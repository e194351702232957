"""Prompts to token ids, the same way for every engine that has a tokenizer.

A chat template is applied where the tokenizer has one: chat turns as they are, plain text as one
user turn. Continuations are tokenised on their own and appended, so the same tokens are scored by
every engine. A search asks the same prompts again and again, so the latest ones' ids are kept: to
render a template takes a process of its own.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from ztom.engines.chat_template import Conversation, check_chat_template, rendered
from ztom.engines.config import ChatTemplate
from ztom.errors import CapabilityError, EngineError, PromptError
from ztom.stimuli.records import Message, Prompt

logger = logging.getLogger(__name__)

#: Prompts, and continuations, whose ids are kept.
_KEPT = 4096


class PromptEncoder:
    """Turns prompts and continuations into token ids.

    Args:
        folder: Folder that holds the tokenizer; its code is never run.
        chat_template: ``auto`` applies the template to plain text too when there is one, ``always``
            demands one, ``never`` gives plain text to the model as it is.
        template: Template in Jinja that is used instead of the tokenizer's.
    """

    def __init__(
        self, folder: Path, *, chat_template: ChatTemplate = "auto", template: str | None = None
    ) -> None:
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(
                str(folder), trust_remote_code=False, local_files_only=True
            )
        except Exception as error:  # transformers raises whatever its parsers raise
            raise EngineError(
                f"the tokenizer in {folder} cannot be loaded",
                reason=f"{type(error).__name__}: {error}",
            ) from error
        if template is not None:
            self.tokenizer.chat_template = template
        templates = getattr(self.tokenizer, "chat_template", None)
        has_template = bool(templates)
        if chat_template == "always" and not has_template:
            raise EngineError(
                f"the tokenizer in {folder} has no chat template",
                fix="Add chat_template.jinja to the checkpoint, or set chat_template: auto.",
            )
        # old tokenizers have several templates, by name
        for source in templates.values() if isinstance(templates, dict) else [templates]:
            if source:
                check_chat_template(source)
        self._has_template = has_template
        self._for_text = has_template and chat_template != "never"
        self._kept_prompt_ids = lru_cache(_KEPT)(self._prompt_ids)
        self._kept_text_ids = lru_cache(_KEPT)(self._text_ids)

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """The ids a model is given.

        Raises:
            CapabilityError: The prompt is a row of numbers.
            PromptError: It is a chat, and there is no chat template, or the template refuses it.
        """
        return list(self._kept_prompt_ids(prompt))

    def _prompt_ids(self, prompt: Prompt) -> tuple[int, ...]:
        if isinstance(prompt, str):
            if not self._for_text:
                return tuple(self._ids(prompt, special=True))
            prompt = (Message(role="user", content=prompt),)
        turns = [turn for turn in prompt if isinstance(turn, Message)]
        if len(turns) != len(prompt):
            raise CapabilityError("a row of numbers is no prompt for a language model")
        if not self._has_template:
            raise PromptError(
                "the stimuli are chats and the tokenizer has no chat template",
                fix="Give prompts as plain text, or add chat_template.jinja to the checkpoint.",
            )
        # special tokens are the template's
        return tuple(self._ids(self._rendered(turns), special=False))

    def _rendered(self, turns: Sequence[Message]) -> str:
        tools = [
            tool for turn in turns if turn.role == "tools" for tool in json.loads(turn.content)
        ]
        try:
            template: str = self.tokenizer.get_chat_template(None, tools or None)
            variables = {"tools": tools or None, "documents": None, "add_generation_prompt": True}
            return rendered(
                Conversation(
                    template,
                    [_template_turn(turn) for turn in turns if turn.role != "tools"],
                    {**self.tokenizer.special_tokens_map, **variables},
                )
            )
        except (PromptError, ValueError) as error:  # a template that there is not, by its name
            roles = ", ".join(turn.role for turn in turns)
            raise PromptError(
                "the chat template refuses a conversation",
                got=f"the turns {roles[:200]}: {getattr(error, 'reason', None) or error}"[:400],
                fix="Leave such conversations out of the stimuli, or mend the template.",
            ) from error

    def continuation_ids(self, text: str) -> list[int]:
        """The ids of an expected output, as they would follow a prompt.

        Raises:
            PromptError: The text has no tokens.
        """
        ids = self._kept_text_ids(text)
        if not ids:
            raise PromptError("an expected output is empty: it has no token to score")
        return list(ids)

    def _text_ids(self, text: str) -> tuple[int, ...]:
        return tuple(self._ids(text, special=False))

    def decode(self, ids: Sequence[int]) -> str:
        """Text without special tokens."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def _ids(self, text: str, *, special: bool) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=special)["input_ids"]
        return ids


def _template_turn(turn: Message) -> dict[str, Any]:
    """A turn as templates take it: calls as objects, and their arguments too."""
    fields: dict[str, Any] = dict(turn.fields())
    if turn.tool_calls:
        fields["tool_calls"] = json.loads(turn.tool_calls)
    return fields


def check_length(prompt: Sequence[int], continuation: Sequence[int], *, limit: int) -> None:
    """Refuse what does not fit, before an engine fails half-way through a batch.

    Raises:
        PromptError: Prompt and continuation are longer than the model's context.
    """
    length = len(prompt) + len(continuation)
    if length > limit:
        raise PromptError(
            "a stimulus does not fit into the model's context",
            got=f"{len(prompt)} prompt tokens and {len(continuation)} to follow",
            expected=f"at most {limit} together",
            fix="Shorten it, or raise max_model_len up to what the model was trained for.",
        )
