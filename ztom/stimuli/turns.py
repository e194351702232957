"""Turns of chats: OpenAI's ``{"role", "content"}`` and ShareGPT's ``{"from", "value"}``.

What a turn says is text. Text parts are put together, line by line; calls of tools and their
results are kept and given to the chat template. A conversation that holds an image, a sound or a
file cannot be asked of a text model: it is read as far as it goes, and says why it is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ztom.errors import StimuliError
from ztom.io.text import Place
from ztom.stimuli.json_values import parse_json
from ztom.stimuli.left_out import LeftOutCounter
from ztom.stimuli.records import Message

#: How each role is written, and the role that it is read as.
ROLES: Mapping[str, str] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
SHAREGPT_ROLES: Mapping[str, str] = {
    **ROLES,
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bard", "bing", "model", "chatbot"), "assistant"),
    **dict.fromkeys(("observation", "tool_response", "function_response"), "tool"),
    "function_call": "assistant",
}
#: A turn, and its weight as it was written.
_Row = tuple[Message, object]
_TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}


@dataclass(frozen=True, slots=True)
class Turns:
    """A conversation.

    Attributes:
        messages: The turns, in order.
        why_left_out: Why no text model can be asked this, as in ``an image_url part``; None where
            one can.
    """

    messages: tuple[Message, ...]
    why_left_out: str | None = None


def is_turn(value: object) -> bool:
    """Whether a value has the fields of a turn."""
    return isinstance(value, dict) and ({"role", "content"} <= set(value) or is_sharegpt(value))


def is_sharegpt(value: object) -> bool:
    """Whether a value is a turn in ShareGPT's form."""
    return isinstance(value, dict) and {"from", "value"} <= set(value)


def parse_turns(value: object, *, place: Place, counter: LeftOutCounter) -> Turns:
    """A conversation from a list of turns.

    Assistant's turns of weight 0 at the end are no answers to learn from: they are left out with
    what follows the last answer that is one.

    Raises:
        StimuliError: It is empty or something else, a role is unknown, or a turn has no text.
    """
    if not isinstance(value, list) or not value:
        raise place.error("messages are not usable", got=kind(value), expected="a list of turns")
    reader = _TurnReader(place, counter)
    messages = [reader.read(turn, number) for number, turn in enumerate(value)]
    rows = [(m, turn.get("weight")) for m, turn in zip(messages, value, strict=True)]
    if all(is_sharegpt(turn) for turn in value):
        rows = _from_first_question(rows, place, counter)
    why = reader.why_left_out
    last, weight = rows[-1] if rows else (None, None)
    if last is not None and last.role == "assistant" and weight == 0:
        rows = _to_last_answer(rows, place, counter)
        why = why or (None if rows else "no answer has a weight but 0")
    return Turns(tuple(message for message, _ in rows), why)


def tools_turn(value: object, *, place: Place) -> Message | None:
    """The turn that holds definitions of tools; None where there are none.

    Args:
        value: A list of definitions, or its JSON text.
        place: Place of the line.

    Raises:
        StimuliError: It is something else.
    """
    tools = _from_json_text(value, place) if isinstance(value, str) else value
    if tools in ([], "", {}, None):
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise place.error("tools are not usable", got=kind(tools), expected="a list of objects")
    full = [
        tool if "function" in tool else {"type": "function", "function": tool} for tool in tools
    ]
    return Message("tools", json.dumps(full, ensure_ascii=False, sort_keys=True))


def kind(value: object) -> str:
    """What ``value`` is, without saying what it holds."""
    if value is None:
        return "null"
    names = {bool: "true or false", str: "text", list: "a list", dict: "an object"}
    names |= {bytes: "bytes", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)


class _TurnReader:
    """Reads the turns of one conversation, and notices why it has to be left out."""

    def __init__(self, place: Place, counter: LeftOutCounter) -> None:
        self._place = place
        self._counter = counter
        self.why_left_out: str | None = None

    def read(self, turn: object, number: int) -> Message:
        where = f"messages[{number}]"
        if not isinstance(turn, dict):
            raise self._error(where, got=kind(turn), expected="an object with role and content")
        given = {key: value for key, value in turn.items() if value is not None}
        if is_sharegpt(given):
            return self._sharegpt(given, where)
        if "role" not in given:
            got = ", ".join(sorted(map(str, given)))[:100]
            raise self._error(where, got=got, expected="an object with role and content")
        role = self._role(given.pop("role"), ROLES, f"{where}.role")
        calls = self._calls(given, where) if role == "assistant" else ""
        content = given.pop("content", "" if calls else None)
        if content in (None, "") and isinstance(given.get("refusal"), str):
            content = given.pop("refusal")
        message = Message(role, self._text(content, f"{where}.content"), calls)
        if role == "tool":
            message = replace(
                message,
                tool_call_id=_text_or_empty(given.pop("tool_call_id", "")),
                name=_text_or_empty(given.pop("name", "")),
            )
        given.pop("weight", None)
        self._counter.add_fields(sorted(given), self._place, of=" of a turn")
        return message

    def _sharegpt(self, given: dict[str, object], where: str) -> Message:
        name, value = given.pop("from"), given.pop("value")
        role = self._role(name, SHAREGPT_ROLES, f"{where}.from")
        given.pop("weight", None)
        self._counter.add_fields(sorted(given), self._place, of=" of a turn")
        text = self._text(value, f"{where}.value")
        if name == "function_call":
            call = _from_json_text(text, self._place)
            return Message(role, "", self._calls({"function_call": call}, where))
        return Message(role, text)

    def _role(self, role: object, known: Mapping[str, str], where: str) -> str:
        if not isinstance(role, str) or role not in known:
            shown = role if isinstance(role, str) and len(role) <= 20 else kind(role)
            raise self._error(where, got=shown, expected=", ".join(known))
        return known[role]

    def _calls(self, given: dict[str, object], where: str) -> str:
        """The calls of a turn as JSON, arguments as objects; the fields are taken out of it."""
        calls = given.pop("tool_calls", None)
        single = given.pop("function_call", None)
        if calls in (None, []):
            calls = [{"type": "function", "function": single}] if single else []
        if not isinstance(calls, list):
            raise self._error(f"{where}.tool_calls", got=kind(calls), expected="a list of calls")
        read = [self._call(call, f"{where}.tool_calls") for call in calls]
        return json.dumps(read, ensure_ascii=False, sort_keys=True) if read else ""

    def _call(self, call: object, where: str) -> dict[str, object]:
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise self._error(where, got="no name", expected="calls with a function's name")
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            arguments = _from_json_text(arguments, self._place)
        read: dict[str, object] = {
            "type": "function",
            "function": {"name": function["name"], "arguments": arguments},
        }
        if isinstance(call, dict) and isinstance(call.get("id"), str):
            read["id"] = call["id"]
        return read

    def _text(self, content: object, where: str) -> str:
        if isinstance(content, str):
            return content
        if not isinstance(content, list) or not content:
            raise self._error(where, got=kind(content), expected="text, or a list of parts")
        texts = []
        for part in content:
            name = part.get("type") if isinstance(part, dict) else None
            if isinstance(part, str):
                texts.append(part)
            elif isinstance(part, dict) and name in _TEXT_PARTS:
                text = part.get(_TEXT_PARTS[name])
                if not isinstance(text, str):
                    raise self._error(where, got=kind(text), expected="a text part with its text")
                texts.append(text)
            elif isinstance(name, str) and name.isidentifier() and len(name) <= 40:
                self.why_left_out = self.why_left_out or f"a part of type {name}"
            else:
                raise self._error(where, got=kind(part), expected="parts that have a type")
        return "\n".join(texts)

    def _error(self, what: str, *, got: str, expected: str) -> StimuliError:
        return self._place.error(what, got=got, expected=expected)


def _from_first_question(rows: Sequence[_Row], place: Place, counter: LeftOutCounter) -> list[_Row]:
    """The turns without the assistant's before the first question, which conversations that were
    cut into pieces begin with.
    """
    first = next((i for i, (turn, _) in enumerate(rows) if turn.role == "user"), 0)
    kept = [row for row in rows[:first] if row[0].role != "assistant"]
    for _ in range(first - len(kept)):
        counter.add("answer before the first question", place)
    return [*kept, *rows[first:]]


def _to_last_answer(rows: Sequence[_Row], place: Place, counter: LeftOutCounter) -> list[_Row]:
    """The turns up to the last answer that has another weight than 0; none without such an one."""
    answers = [
        i for i, (turn, weight) in enumerate(rows) if turn.role == "assistant" and weight != 0
    ]
    if not answers:
        return []
    for _ in rows[answers[-1] + 1 :]:
        counter.add("turn after the last answer of another weight than 0", place)
    return list(rows[: answers[-1] + 1])


def _text_or_empty(value: object) -> str:
    return value if isinstance(value, str) else ""


def _from_json_text(text: str, place: Place) -> object:
    """The value that a text is in JSON, else the text itself."""
    try:
        return parse_json(text, place=place)
    except StimuliError:
        return text
