"""Renders a chat template, in a process of its own (`ztom.engines.chat_template`).

The environment is the one that transformers gives to templates: a sandbox whose values cannot be
changed, loop controls, ``tojson`` that escapes nothing, ``raise_exception``, ``strftime_now`` and
the tag ``generation``.
"""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

#: Longest text, in characters, that a template may render.
MAX_CHARACTERS = 16 * 2**20
#: Stands at the end of the turn that is to be continued, until the text is cut there.
_MARK = "CONTINUE_FINAL_MESSAGE_TAG "

Rendered = tuple[str, str]


def render(
    template: str,
    messages: Sequence[dict[str, Any]],
    variables: Mapping[str, Any],
    continues: bool | str,
) -> Rendered:
    """The text of a conversation.

    Args:
        template: Template in Jinja.
        messages: Turns of the conversation.
        variables: What the template may name besides.
        continues: Whether the text ends within the last turn, which is to be continued; a text
            names the field of the turn, ``content`` otherwise.

    Returns:
        ``text`` and the text, or ``refused`` and why the template does not take the conversation.
    """
    turns = list(messages)
    field = continues if isinstance(continues, str) else "content"
    try:
        last = _mark_last(turns, field, template) if continues else ""
        text = _compiled(template).render(messages=turns, **variables)
        if continues:
            text = _cut(text, last)
    except MemoryError:
        raise
    except Exception as error:  # whatever the template does, it comes with the checkpoint
        return "refused", _reason(error)[:2_000]
    if len(text) > MAX_CHARACTERS:
        return "refused", f"it renders to more than {MAX_CHARACTERS} characters"
    return "text", text


def _mark_last(turns: list[dict[str, Any]], field: str, template: str) -> str:
    """Put the mark at the end of the last turn; returns the turn's text without it."""
    value = turns[-1].get(field)
    if value is None or field not in template:
        raise ValueError(f"the last message has no {field!r} that can be continued")
    if isinstance(value, str):
        turns[-1] = turns[-1] | {field: value + _MARK}
        return value
    parts = list(value)
    texts = [number for number, part in enumerate(parts) if "text" in part]
    if not texts:
        raise ValueError("the last message has no text that can be continued")
    last = parts[texts[-1]]
    parts[texts[-1]] = last | {"text": last["text"] + _MARK}
    turns[-1] = turns[-1] | {field: parts}
    return str(last["text"])


def _cut(text: str, last: str) -> str:
    """The text up to the mark; white space that the template took away is taken away here too."""
    if last.strip() not in text or _MARK.strip() not in text:
        raise ValueError("the template leaves out the message that is to be continued")
    end = text.rindex(_MARK.strip())
    kept = text[end : end + len(_MARK)] == _MARK
    return text[:end] if kept else text[:end].rstrip()


class _Generation(Extension):
    """The tag by which templates mark what the model says: its body is rendered as it is."""

    tags = {"generation"}  # jinja2 reads it from the class

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The statements between the tag and its end."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@functools.lru_cache(maxsize=32)
def _compiled(template: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _strftime_now
    return environment.from_string(template)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def _reason(error: BaseException) -> str:
    """What the template itself says, where it is the one that refuses."""
    if isinstance(error, TemplateError):
        return str(error)
    return f"{type(error).__name__}: {error}"
