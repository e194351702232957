"""The forms that a record of data may have, as people's files have them.

==================== =============================================================================
form                 fields
==================== =============================================================================
chat turns           ``messages`` or ``conversation``, or the record is the list of turns itself
ShareGPT             ``conversations`` with ``from`` and ``value``
instruction          ``instruction``, ``input`` or ``context``, ``output``; ``system``, ``history``
prompt               ``prompt``, ``text``, ``input``, ``question`` or ``query``, and the answer
numbers              ``features`` or ``input``, a row of numbers
preference pair      ``chosen`` as the answer; what was ``rejected`` is left out
==================== =============================================================================

The answer is one of `EXPECTED_FIELDS`; where there is none, a last assistant's turn is the answer.
A field that is null counts as absent, and a field that nobody knows is left out and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ztom.io.text import Place
from ztom.stimuli.fields import (
    CLASS_FIELDS,
    CONTEXT_FIELDS,
    EXPECTED_FIELDS,
    PLAIN_FIELDS,
    PROMPT_FIELDS,
    TEXT_FIELDS,
    TURN_FIELDS,
    parse_expected,
    parse_numbers,
    parse_text,
    the_one_field,
)
from ztom.stimuli.left_out import LeftOutCounter
from ztom.stimuli.records import Message, Prompt
from ztom.stimuli.turns import Turns, is_sharegpt, is_turn, kind, parse_turns, tools_turn

_NO_TURNS = "no turns"


@dataclass(frozen=True)
class StimulusDraft:
    """A stimulus as its record has it; its expected output may still be missing.

    Attributes:
        place: Place of the record in its file.
        id: Name of the stimulus.
        form: Name of the form, as the module lists them.
        prompt: What is asked; turns may still end with the assistant's.
        expected: The expected output, None where no field of its own has it.
        group: The group that the record names, None where it names none.
        metadata: The object ``metadata`` of the record.
        why_left_out: Why no text model can be asked this; None where one can.
    """

    place: Place
    id: str
    form: str
    prompt: Prompt
    expected: str | None = None
    group: str | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)
    why_left_out: str | None = None


def parse_entry(
    value: object, labels: Sequence[str], *, place: Place, counter: LeftOutCounter
) -> StimulusDraft:
    """A record of a file as an entry.

    Raises:
        StimuliError: It cannot be meant as any of the forms; names file and line.
    """
    if isinstance(value, list):
        turns = parse_turns(value, place=place, counter=counter)
        form = "ShareGPT" if all(map(is_sharegpt, value)) else "chat turns"
        return StimulusDraft(
            place, default_id(place), form, turns.messages, why_left_out=turns.why_left_out
        )
    if not isinstance(value, dict):
        raise place.error("the line is not usable", expected="an object, or a list of turns")
    return _RecordReader(value, labels, place, counter).entry()


def default_id(place: Place) -> str:
    """What a stimulus without an id is called: after its file and line."""
    return f"{place.path.stem}:{place.line}"


class _RecordReader:
    """Reads one record, and knows which of its fields it has used."""

    def __init__(
        self,
        record: Mapping[str, object],
        labels: Sequence[str],
        place: Place,
        counter: LeftOutCounter,
    ) -> None:
        self._record = record
        self._given = {key: value for key, value in record.items() if value is not None}
        self._unused = dict(self._given)
        self._labels = labels
        self._place = place
        self._counter = counter
        self._why_left_out: str | None = None

    def entry(self) -> StimulusDraft:
        form, prompt = self._prompt()
        expected, prompt = self._expected(prompt)
        if "rejected" in self._given and "chosen" in self._given:
            form = "preference pair"
        metadata = self._given.get("metadata")
        if isinstance(metadata, dict):
            self._unused.pop("metadata")
        entry = StimulusDraft(
            place=self._place,
            id=self._name("id") or default_id(self._place),
            form=form,
            prompt=prompt,
            expected=expected,
            group=self._name("group"),
            metadata=metadata if isinstance(metadata, dict) else {},
            why_left_out=self._why_left_out,
        )
        self._counter.add_fields(sorted(self._unused), self._place)
        return entry

    def _prompt(self) -> tuple[str, Prompt]:
        if turns_field := self._one(TURN_FIELDS):
            return self._conversation(turns_field)
        if self._one(("instruction",)):
            return "instruction", self._instruction()
        plain = self._one(PLAIN_FIELDS)
        if plain is None and isinstance(self._given.get("chosen"), list):
            turns = self._turns(self._given["chosen"])
            return "preference pair", turns.messages
        if plain is None:
            empty = [name for name in PROMPT_FIELDS if name in self._record]
            if empty:
                raise self._place.error(f"{empty[0]} is empty")
            raise self._place.error(
                "there is no prompt",
                got=f"the fields {', '.join(sorted(map(str, self._record)))[:200] or 'none'}",
                expected=f"one of {', '.join(PROMPT_FIELDS)}",
            )
        return self._plain(plain)

    def _conversation(self, name: str) -> tuple[str, Prompt]:
        value = self._given[name]
        if name != "messages" and value == []:
            self._why_left_out = _NO_TURNS
            return "ShareGPT", ()
        turns = self._turns(value)
        form = "ShareGPT" if isinstance(value, list) and all(map(is_sharegpt, value)) else ""
        first = next((turn.content for turn in turns.messages if turn.role == "user"), None)
        if self._unused.pop("prompt", first) not in (first, value):
            raise self._place.error(
                "the same thing is given twice", got=f"{name}, prompt", expected="one"
            )
        return form or "chat turns", self._with_system(turns.messages)

    def _plain(self, name: str) -> tuple[str, Prompt]:
        value = self._given[name]
        if name == "prompt" and isinstance(value, list) and value:
            return "chat turns", self._with_system(self._turns(value).messages)
        if name in ("input", "features"):
            numbers = parse_numbers(value)
            if numbers is not None:
                return "numbers", numbers
            if name == "features":
                raise self._place.error(
                    "features is not usable", got=kind(value), expected="numbers"
                )
        text = parse_text(value, field=name, place=self._place)
        if name == "question":
            text = self._with_context(text)
        prompt = self._with_system((Message("user", text),))
        form = "prompt and completion" if "completion" in self._given else "prompt"
        return form, text if len(prompt) == 1 else prompt

    def _instruction(self) -> Prompt:
        text = parse_text(self._given["instruction"], field="instruction", place=self._place)
        if "prompt" in self._given:
            raise self._place.error(
                "the same thing is given twice", got="instruction, prompt", expected="one"
            )
        text = self._with_context(text)
        prompt = self._with_system((*self._history(), Message("user", text)))
        return text if len(prompt) == 1 else prompt

    def _with_context(self, text: str) -> str:
        parts = [text]
        for name in CONTEXT_FIELDS:
            value = self._unused.pop(name, "")
            if not isinstance(value, str):
                raise self._place.error(f"{name} is not usable", got=kind(value), expected="text")
            if value.strip():
                parts.append(value)
        return "\n\n".join(parts)

    def _history(self) -> tuple[Message, ...]:
        """Earlier questions and answers, a list of pairs."""
        value = self._unused.pop("history", [])
        pairs = value if isinstance(value, list) else [value]
        turns = []
        for pair in pairs:
            if not isinstance(pair, list) or [type(text) for text in pair] != [str, str]:
                raise self._place.error(
                    "history is not usable", got=kind(pair), expected="pairs of texts"
                )
            turns += [Message("user", pair[0]), Message("assistant", pair[1])]
        return tuple(turns)

    def _with_system(self, turns: tuple[Message, ...]) -> tuple[Message, ...]:
        """The turns with the record's own system prompt and tools before them."""
        head = []
        definitions = self._unused.pop("tools", None) or self._unused.pop("functions", None)
        if tools := tools_turn(definitions, place=self._place):
            head.append(tools)
        system = self._unused.pop("system", "")
        if not isinstance(system, str):
            raise self._place.error("system is not usable", got=kind(system), expected="text")
        if system.strip() and not any(turn.role == "system" for turn in turns):
            head.append(Message("system", system))
        return (*head, *turns)

    def _expected(self, prompt: Prompt) -> tuple[str | None, Prompt]:
        tiers = (CLASS_FIELDS, TEXT_FIELDS) if self._labels else (TEXT_FIELDS, CLASS_FIELDS)
        name = None
        for tier in tiers:
            if name is None:
                name = the_one_field(self._given, tier, place=self._place)
                for used in tier if name else ():
                    self._unused.pop(used, None)
        if name is None:
            return None, prompt
        value = self._given[name]
        if isinstance(value, list) and value and all(map(is_turn, value)):
            if name == "chosen" and not any(key in self._given for key in PROMPT_FIELDS):
                return None, prompt  # it was read as the whole conversation
            return self._answer_in_turns(prompt, self._turns(value).messages, name)
        expected = parse_expected(value, self._labels, field=name, place=self._place)
        return expected, prompt

    def _answer_in_turns(
        self, prompt: Prompt, turns: tuple[Message, ...], name: str
    ) -> tuple[str, Prompt]:
        """An answer that is itself turns: what stands before the last one belongs to the prompt."""
        if not turns or turns[-1].role != "assistant":
            raise self._place.error(f"{name} does not end with the assistant's turn")
        *before, last = turns
        expected = parse_expected(last.content, self._labels, field=name, place=self._place)
        turns_before = (Message("user", prompt),) if isinstance(prompt, str) else prompt
        chats = tuple(part for part in turns_before if isinstance(part, Message))
        if not before:
            return expected, prompt
        if chats == turns or tuple(before[: len(chats)]) == chats or before[-1:] == [*chats[-1:]]:
            return expected, tuple(before)
        if name == "chosen":
            raise self._place.error("the prompt and chosen do not begin alike")
        return expected, (*chats, *before)

    def _turns(self, value: object) -> Turns:
        turns = parse_turns(value, place=self._place, counter=self._counter)
        self._why_left_out = self._why_left_out or turns.why_left_out
        return turns

    def _one(self, names: Sequence[str]) -> str | None:
        name = the_one_field(self._given, names, place=self._place)
        for used in names if name else ():
            self._unused.pop(used, None)
        return name

    def _name(self, name: str) -> str | None:
        """An id or group: text or an integer, None where the record has none."""
        if name not in self._given:
            return None
        value = self._unused.pop(name)
        if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
            raise self._place.error(f"{name} is not usable", expected="text that is not empty")
        return str(value)


def without_answer(entry: StimulusDraft, labels: Sequence[str]) -> StimulusDraft:
    """The entry with a last assistant's turn taken from the prompt: it is the expected output.

    Raises:
        StimuliError: There is no prompt before it, it has no text, or another expected output is
            given besides.
    """
    turns = tuple(part for part in entry.prompt if isinstance(part, Message))
    if entry.why_left_out or not turns or turns[-1].role != "assistant":
        return entry
    if all(turn.role == "tools" for turn in turns[:-1]):
        raise entry.place.error("there is no prompt before the assistant's turn")
    if turns[-1].tool_calls:
        return replace(entry, why_left_out="an answer that calls a tool")
    answer = parse_expected(turns[-1].content, labels, field="the last turn", place=entry.place)
    if entry.expected not in (None, answer):
        raise entry.place.error(
            "the turns end with the assistant's, and there is an expected output besides",
            fix="Keep one of the two.",
        )
    return replace(entry, prompt=turns[:-1], expected=answer)


__all__ = ["EXPECTED_FIELDS", "StimulusDraft", "default_id", "parse_entry", "without_answer"]
