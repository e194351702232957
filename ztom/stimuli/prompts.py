"""Prompts as text: how they read, how they compare, how they are told apart.

Comparing is deliberately forgiving (case, width, white space), so that the same question typed
twice counts as one; nothing here changes what a model is given.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

from ztom.stimuli.records import Message, Prompt

# Chinese, Japanese and Korean are written without spaces: there each character counts as a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


def words(text: str) -> list[str]:
    """The words of ``text``, case and width folded, punctuation dropped.

    Text without any word (an emoji, a row of dashes) is taken character by character, so that it
    still equals only itself.
    """
    folded = fold(text)
    return _WORD.findall(folded) or list(folded.replace(" ", ""))


def fold(text: str) -> str:
    """``text`` in one case (casefold), one width (NFKC) and with single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def prompt_text(prompt: Prompt) -> str:
    """A prompt as one readable text: what reports show and user error functions are given.

    A single user turn is its content; several turns are ``role: content`` lines; a row of numbers
    is comma-separated.
    """
    if isinstance(prompt, str):
        return prompt
    turns = [part for part in prompt if isinstance(part, Message)]
    if not turns:
        return ", ".join(repr(part) for part in prompt)
    if len(turns) == 1 and turns[0].role == "user":
        return turns[0].content
    return "\n".join(f"{turn.role}: {_spoken(turn)}" for turn in turns)


def _spoken(turn: Message) -> str:
    """What a turn says, and what it calls."""
    return " ".join(part for part in (turn.content, turn.tool_calls) if part)


def asked_text(prompt: Prompt) -> str | None:
    """What tells this prompt from others: its turns without the system's; None for numbers.

    A system turn is usually the same for every stimulus and says nothing about which is which; nor
    do the tools that may be called.
    """
    if isinstance(prompt, str):
        return prompt
    turns = [part for part in prompt if isinstance(part, Message)]
    if not turns:
        return None
    questions = [turn for turn in turns if turn.role not in ("system", "tools")] or turns
    return "\n".join(_spoken(turn) for turn in questions)


def prompt_digest(prompt: Prompt) -> str:
    """SHA-256 of the folded prompt, in hex: equal for prompts that are the same question."""
    return hashlib.sha256(fold(prompt_text(prompt)).encode()).hexdigest()
