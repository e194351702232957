"""Reading stimuli from files.

**JSON Lines** (any suffix but ``.csv``): each line an object with the prompt, as one of

* ``prompt``: text, or chat turns; ``text``: text
* ``messages``: chat turns, ``[{"role": ..., "content": ...}, ...]``
* ``input``: text or a row of numbers; ``features``: a row of numbers

the expected output as one of ``expected``, ``expected_output``, ``target``, ``response``,
``label``, ``category`` (where there is none, a last assistant turn is the expected output), and
optionally ``id``, ``group`` and ``metadata``. A line may also be just the list of turns.

**CSV**: a header with the same names (text fields only), or, beside a file of expected outputs,
rows of numbers without a header.

**Two files**: `read_stimuli(..., expected_outputs=...)`, see `ztom.stimuli.expected_outputs`.

Without an ``id`` a stimulus is called after file and line, without a ``group`` its group is the
SHA-256 of its folded prompt: the same question twice never straddles a split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ztom.errors import StimuliError
from ztom.io.text import Place
from ztom.stimuli.expected_outputs import read_expected_outputs
from ztom.stimuli.fields import (
    EXPECTED_FIELDS,
    PROMPT_FIELDS,
    parse_expected,
    parse_messages,
    parse_number,
    parse_prompt,
    the_one_field,
)
from ztom.stimuli.json_values import parse_json
from ztom.stimuli.prompts import prompt_digest
from ztom.stimuli.records import Message, Prompt, Stimulus
from ztom.stimuli.text_files import read_lines, read_rows

_OTHER_FIELDS = ("id", "group", "metadata")
_CSV_FIELDS = ("prompt", "text", "input", *EXPECTED_FIELDS, "id", "group")


@dataclass(frozen=True)
class _Entry:
    """A stimulus whose expected output may still be missing."""

    place: Place
    id: str
    prompt: Prompt
    expected: str | None
    group: str | None
    metadata: Mapping[str, object]


def read_stimuli(
    path: Path, *, expected_outputs: Path | None = None, labels: Sequence[str] = ()
) -> list[Stimulus]:
    """Read stimuli with their expected outputs.

    Args:
        path: JSON Lines or CSV, as the module describes.
        expected_outputs: The expected outputs, where they are a file of their own.
        labels: The class labels; expected outputs are then labels, by name or index.

    Raises:
        StimuliError: A file cannot be read or is malformed; names the file and the line, never the
            content.
    """
    entries = _read_entries(path, labels)
    if expected_outputs is None:
        answered = [_answer_from_turns(entry, labels) for entry in entries]
        return [_finished(entry, entry.expected) for entry in answered]
    for entry in entries:
        if entry.expected is not None:
            raise entry.place.error(
                "the expected output is given twice",
                fix=f"Remove it here, or leave out {expected_outputs}.",
            )
    ids = [entry.id for entry in entries]
    answers = read_expected_outputs(expected_outputs, ids=ids, labels=labels)
    return [_finished(entry, answer) for entry, answer in zip(entries, answers, strict=True)]


def read_prompts(path: Path) -> list[Prompt]:
    """Read prompts only; expected outputs may be there and are left aside.

    A last turn of the assistant's is an expected output where there are turns before it.

    Raises:
        StimuliError: A file is not as it should be; see `read_stimuli`.
    """
    return [
        _answer_from_turns(entry, ()).prompt if entry.expected is None else entry.prompt
        for entry in _read_entries(path, ())
    ]


def _read_entries(path: Path, labels: Sequence[str]) -> list[_Entry]:
    entries = (
        _entries_from_csv(path, labels=labels)
        if path.suffix.lower() == ".csv"
        else [_entry_from_line(line, labels, place=place) for place, line in read_lines(path)]
    )
    check_unique_ids(entries)
    return entries


def check_unique_ids(stimuli: Sequence[Stimulus] | Sequence[_Entry]) -> None:
    """Refuse two stimuli with one id; to be called as well where several files are put together.

    Raises:
        StimuliError: An id occurs twice.
    """
    seen: set[str] = set()
    for stimulus in stimuli:
        if stimulus.id in seen:
            what = "an id occurs twice"
            if isinstance(stimulus, _Entry):
                raise stimulus.place.error(what, got=stimulus.id)
            raise StimuliError(what, got=stimulus.id, fix="Make ids unique across files.")
        seen.add(stimulus.id)


def _finished(entry: _Entry, expected: str | None) -> Stimulus:
    if expected is None:
        raise entry.place.error(
            "there is no expected output",
            expected=f"one of {', '.join(EXPECTED_FIELDS)}, or a last assistant turn",
        )
    last = entry.prompt[-1]
    if isinstance(last, Message) and last.role == "assistant":
        raise entry.place.error(
            "the turns end with the assistant's, and there is an expected output besides",
            fix="Keep one of the two.",
        )
    return Stimulus(
        id=entry.id,
        prompt=entry.prompt,
        expected=expected,
        group=prompt_digest(entry.prompt) if entry.group is None else entry.group,
        metadata=entry.metadata,
    )


def _answer_from_turns(entry: _Entry, labels: Sequence[str]) -> _Entry:
    """Take a last assistant turn for the expected output where there is none."""
    if entry.expected is not None or isinstance(entry.prompt, str):
        return entry
    turns = tuple(part for part in entry.prompt if isinstance(part, Message))
    if not turns or turns[-1].role != "assistant":
        return entry
    if len(turns) == 1:
        raise entry.place.error("there is no prompt before the assistant's turn")
    answer = parse_expected(turns[-1].content, labels, field="the last turn", place=entry.place)
    return _Entry(entry.place, entry.id, turns[:-1], answer, entry.group, entry.metadata)


def _entry_from_line(line: str, labels: Sequence[str], *, place: Place) -> _Entry:
    value = parse_json(line, place=place)
    if isinstance(value, list):
        turns = parse_messages(value, place=place)
        return _Entry(place, _default_id(place), turns, None, None, {})
    if not isinstance(value, dict):
        raise place.error("the line is not usable", expected="an object, or a list of turns")
    return _entry_from_record(value, labels, place=place)


def _entry_from_record(
    record: Mapping[str, object], labels: Sequence[str], *, place: Place
) -> _Entry:
    known = (*PROMPT_FIELDS, *EXPECTED_FIELDS, *_OTHER_FIELDS)
    if unknown := sorted(set(record) - set(known)):
        raise place.error(
            "unknown field",
            got=unknown[0][:40],
            expected=f"one of {', '.join(known)}",
            fix="Put what else you want to keep into metadata.",
        )
    prompt_field = the_one_field(record, list(PROMPT_FIELDS), place=place)
    if prompt_field is None:
        raise place.error("there is no prompt", expected=f"one of {', '.join(PROMPT_FIELDS)}")
    expected_field = the_one_field(record, EXPECTED_FIELDS, place=place)
    metadata = record.get("metadata", {})
    if not isinstance(metadata, dict):
        raise place.error("metadata is not usable", expected="an object")
    return _Entry(
        place=place,
        id=_name(record, "id", place=place) or _default_id(place),
        prompt=parse_prompt(record[prompt_field], field=prompt_field, place=place),
        expected=None
        if expected_field is None
        else parse_expected(record[expected_field], labels, field=expected_field, place=place),
        group=_name(record, "group", place=place),
        metadata=metadata,
    )


def _entries_from_csv(path: Path, *, labels: Sequence[str]) -> list[_Entry]:
    rows = read_rows(path)
    numbers = [[parse_number(field) for field in row] for _, row in rows]
    if all(number is not None for number in numbers[0]):
        return [_entry_from_numbers(row, place=rows[i][0]) for i, row in enumerate(numbers)]
    place, names = rows[0]
    header = [name.strip().lower() for name in names]
    if len(set(header)) != len(header) or set(header) - set(_CSV_FIELDS):
        raise place.error(
            "the header is not usable",
            expected=f"different names out of {', '.join(_CSV_FIELDS)}",
        )
    if len(rows) == 1:
        raise place.error("there is a header and nothing else", expected="at least one row")
    return [
        _entry_from_record(dict(zip(header, row, strict=True)), labels, place=place)
        for place, row in rows[1:]
    ]


def _entry_from_numbers(row: Sequence[float | None], *, place: Place) -> _Entry:
    values = tuple(number for number in row if number is not None)
    if len(values) != len(row):
        raise place.error("a field is not a finite number", expected="numbers, as in the first row")
    return _Entry(place, _default_id(place), values, None, None, {})


def _name(record: Mapping[str, object], field: str, *, place: Place) -> str | None:
    """An id or group: text or an integer, None where the record has none."""
    if field not in record:
        return None
    value = record[field]
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise place.error(f"{field} is not usable", expected="text that is not empty")
    return str(value)


def _default_id(place: Place) -> str:
    return f"{place.path.stem}:{place.line}"
