"""Reading stimuli from files, as people have them.

**JSON**: a record a line (JSON Lines), or one list of all records. **CSV** (``.csv``, ``.tsv``): a
header with names of fields, or rows without one, which are numbers, or a prompt and perhaps its
expected output. **Parquet**: a record a row. **The Hub**: ``hf://datasets/org/name/file``.

`ztom.stimuli.forms` lists the forms of a record. What is not read is left out and counted: fields
that nobody knows, blank lines, and whole stimuli that no text model can be asked, such as those
with images. A line that cannot be meant is an error that names file and line, never the content.

**Two files**: `read_stimuli(..., expected_outputs=...)`, see `ztom.stimuli.expected_outputs`.

Without an ``id`` a stimulus is called after file and line, without a ``group`` its group is the
SHA-256 of its folded prompt: the same question twice never straddles a split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ztom.errors import StimuliError
from ztom.stimuli.expected_outputs import read_expected_outputs
from ztom.stimuli.forms import EXPECTED_FIELDS, StimulusDraft, parse_entry, without_answer
from ztom.stimuli.hub_files import local_file
from ztom.stimuli.left_out import LeftOut, LeftOutCounter, left_out_sentence
from ztom.stimuli.prompts import prompt_digest
from ztom.stimuli.records import Message, Prompt, Stimulus
from ztom.stimuli.sources import read_records


@dataclass(frozen=True)
class StimuliFile:
    """A file of stimuli as it was read.

    Attributes:
        path: Path or address, as it was given.
        container: Kind of file, such as ``JSON Lines`` or ``CSV (semicolons)``.
        stimuli: The stimuli, in the order of the file.
        forms: Number of stimuli by the form that they have.
        left_out: What was left out.
        without_expected: Number of stimuli that have no expected output, where that is allowed.
    """

    path: str
    container: str
    stimuli: tuple[Stimulus, ...]
    forms: Mapping[str, int]
    left_out: tuple[LeftOut, ...]
    without_expected: int = 0


def read_stimuli(
    path: Path | str, *, expected_outputs: Path | str | None = None, labels: Sequence[str] = ()
) -> list[Stimulus]:
    """Read stimuli with their expected outputs.

    Args:
        path: File, as the module describes.
        expected_outputs: The expected outputs, where they are a file of their own.
        labels: The class labels; expected outputs are then labels, by name or index.

    Raises:
        StimuliError: A file cannot be read or is malformed; names the file and the line, never the
            content.
    """
    return [*read_stimuli_file(path, expected_outputs=expected_outputs, labels=labels).stimuli]


def read_stimuli_file(
    path: Path | str,
    *,
    expected_outputs: Path | str | None = None,
    labels: Sequence[str] = (),
    need_expected: bool = True,
) -> StimuliFile:
    """Read stimuli, and say what was left out of their file.

    Args:
        path: File, as the module describes.
        expected_outputs: The expected outputs, where they are a file of their own.
        labels: The class labels; expected outputs are then labels, by name or index.
        need_expected: Whether a stimulus without an expected output is an error; otherwise its
            expected output is empty.

    Raises:
        StimuliError: See `read_stimuli`.
    """
    counter = LeftOutCounter()
    container, entries = _read_entries(path, labels, counter)
    entries = [without_answer(entry, labels) for entry in entries]
    if expected_outputs is None:
        entries = [_to_last_answer(entry, labels, counter) for entry in entries]
    else:
        entries = _with_expected(entries, expected_outputs, labels)
    kept = _kept(str(path), entries, counter)
    if need_expected:
        for entry in kept:
            if entry.expected is None:
                raise entry.place.error(
                    "there is no expected output",
                    expected=f"one of {', '.join(EXPECTED_FIELDS)}, or a last assistant turn",
                )
    return StimuliFile(
        path=str(path),
        container=container,
        stimuli=tuple(_stimulus(entry) for entry in kept),
        forms=Counter(entry.form for entry in kept),
        left_out=counter.entries,
        without_expected=sum(entry.expected is None for entry in kept),
    )


def read_prompts(path: Path | str) -> list[Prompt]:
    """Read prompts only, one for each record: expected outputs may be there and are left aside.

    A last turn of the assistant's is an expected output where there are turns before it.

    Raises:
        StimuliError: A file is not as it should be, see `read_stimuli`; or a record cannot be asked
            of a text model, which an answer would be missing for.
    """
    _, entries = _read_entries(path, (), LeftOutCounter())
    prompts = []
    for entry in entries:
        entry = without_answer(entry, ()) if entry.expected is None else entry
        if entry.why_left_out:
            raise entry.place.error("this cannot be asked of a text model", got=entry.why_left_out)
        prompts.append(entry.prompt)
    return prompts


def check_unique_ids(stimuli: Sequence[Stimulus] | Sequence[StimulusDraft]) -> None:
    """Refuse two stimuli with one id; to be called as well where several files are put together.

    Raises:
        StimuliError: An id occurs twice.
    """
    seen: set[str] = set()
    for stimulus in stimuli:
        if stimulus.id in seen:
            what = "an id occurs twice"
            if isinstance(stimulus, StimulusDraft):
                raise stimulus.place.error(what, got=stimulus.id)
            raise StimuliError(what, got=stimulus.id, fix="Make ids unique across files.")
        seen.add(stimulus.id)


def _read_entries(
    path: Path | str, labels: Sequence[str], counter: LeftOutCounter
) -> tuple[str, list[StimulusDraft]]:
    container, records = read_records(local_file(path), counter=counter)
    parse = partial(parse_entry, labels=labels, counter=counter)
    entries = [parse(value, place=place) for place, value in records]
    check_unique_ids(entries)
    return container, entries


def _with_expected(
    entries: Sequence[StimulusDraft], expected_outputs: Path | str, labels: Sequence[str]
) -> list[StimulusDraft]:
    """The entries with the expected outputs of a file of their own, one for each."""
    for entry in entries:
        if entry.expected is not None:
            raise entry.place.error(
                "the expected output is given twice",
                fix=f"Remove it here, or leave out {expected_outputs}.",
            )
    ids = [entry.id for entry in entries]
    answers = read_expected_outputs(local_file(expected_outputs), ids=ids, labels=labels)
    return [replace(entry, expected=answer) for entry, answer in zip(entries, answers, strict=True)]


def _to_last_answer(
    entry: StimulusDraft, labels: Sequence[str], counter: LeftOutCounter
) -> StimulusDraft:
    """A ShareGPT conversation that ends with a question, up to its last answer."""
    if entry.form != "ShareGPT" or entry.expected is not None or entry.why_left_out:
        return entry
    turns = tuple(part for part in entry.prompt if isinstance(part, Message))
    answers = [i for i, turn in enumerate(turns) if turn.role == "assistant" and i]
    if not answers:
        return replace(entry, why_left_out="no question with an answer")
    for _ in turns[answers[-1] + 1 :]:
        counter.add("turn after the last answer", entry.place)
    return without_answer(replace(entry, prompt=turns[: answers[-1] + 1]), labels)


def _kept(
    path: str, entries: Sequence[StimulusDraft], counter: LeftOutCounter
) -> list[StimulusDraft]:
    """The entries that a text model can be asked; the others are counted."""
    kept = []
    for entry in entries:
        if entry.why_left_out is None:
            kept.append(entry)
        else:
            counter.add(f"stimulus with {entry.why_left_out}", entry.place, is_stimulus=True)
    if not kept:
        raise StimuliError(
            f"{path}: nothing is left that a text model can be asked",
            got=left_out_sentence([entry for entry in counter.entries if entry.is_stimulus]),
        )
    return kept


def _stimulus(entry: StimulusDraft) -> Stimulus:
    return Stimulus(
        id=entry.id,
        prompt=entry.prompt,
        expected=entry.expected or "",
        group=prompt_digest(entry.prompt) if entry.group is None else entry.group,
        metadata=entry.metadata,
    )
