"""What the commands of ``ztom data`` do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ztom.cli.console import plain_console, print_document, print_error
from ztom.errors import ConfigError, ZtomError
from ztom.pages.formats import excerpt
from ztom.stimuli.files import StimuliFile, read_stimuli_file
from ztom.stimuli.records import Stimulus
from ztom.stimuli.summary import StimuliSummary, shared_prompts, summarize

_SHOWN_CHARACTERS = 160


def check_command(
    files: Sequence[str],
    *,
    expected_outputs: Path | None,
    labels: Sequence[str],
    model: Path | None,
    as_json: bool = False,
) -> None:
    """Show what files are understood as; those that can be read are shown whatever the others are.

    Raises:
        ConfigError: One file of expected outputs is given for several files.
        ZtomError: A file cannot be read.
    """
    if expected_outputs is not None and len(files) > 1:
        raise ConfigError(
            "expected outputs belong to one file of stimuli", got=f"{len(files)} files"
        )
    count_tokens = None if model is None else _token_counter(model)
    read, errors = [], []
    for name in files:
        try:
            read.append(
                read_stimuli_file(
                    name, expected_outputs=expected_outputs, labels=labels, need_expected=False
                )
            )
        except ZtomError as error:
            errors.append(error)
    summaries = [summarize(file, count_tokens=count_tokens) for file in read]
    if as_json:
        print_document(_document(read, summaries, errors))
    else:
        for summary in summaries:
            _print_summary(summary)
        for (first, second), count in shared_prompts(read).items():
            _print(f"{first} and {second} have {_counted(count, 'prompt')} in common")
    for problem in errors[:-1]:
        print_error(f"{type(problem).__name__}: {problem}")
    if errors:
        raise errors[-1]


def _token_counter(folder: Path) -> Callable[[Stimulus], int]:
    from ztom.engines.prompts import PromptEncoder

    encoder = PromptEncoder(folder)

    def count(stimulus: Stimulus) -> int:
        answer = encoder.continuation_ids(stimulus.expected) if stimulus.expected else []
        return len(encoder.prompt_ids(stimulus.prompt)) + len(answer)

    return count


def _document(
    read: Sequence[StimuliFile],
    summaries: Sequence[StimuliSummary],
    errors: Sequence[ZtomError],
) -> dict[str, object]:
    shared = shared_prompts(read).items()
    return {
        "files": summaries,
        "shared_prompts": [{"files": list(pair), "prompts": count} for pair, count in shared],
        "errors": [str(error) for error in errors],
    }


def _print_summary(summary: StimuliSummary) -> None:
    forms = ", ".join(f"{form} {number}" for form, number in summary.forms.items())
    count = _counted(summary.stimuli, "stimulus", "stimuli")
    _print(f"{summary.path}: {summary.container}, {count} ({forms})")
    _print_fact("expected outputs", f"{summary.with_expected} of {summary.stimuli}")
    prompt, expected = summary.longest_prompt, summary.longest_expected
    _print_fact("longest prompt", f"{_counted(prompt.length, 'character')} ({prompt.id})")
    if summary.with_expected:
        length = _counted(expected.length, "character")
        _print_fact("longest expected", f"{length} ({expected.id})")
    if (tokens := summary.longest_tokens) is not None:
        _print_fact("longest together", f"{_counted(tokens.length, 'token')} ({tokens.id})")
    _print_fact("duplicates", _duplicates(summary))
    lines = [f"{e.what}: {e.count}, first in {e.first}" for e in summary.left_out]
    for name, line in zip(["left out", *[""] * len(lines)], lines or ["nothing"], strict=False):
        _print_fact(name, line)
    for example in summary.examples:
        _print_fact(f"example {example.id}", _short(example.prompt))
        _print_fact("", f"-> {'(none)' if example.expected is None else _short(example.expected)}")


def _duplicates(summary: StimuliSummary) -> str:
    if not summary.duplicates:
        return "none"
    other = summary.contradictions
    more = f"; {_counted(other, 'prompt')} with different expected outputs" if other else ""
    return f"{_counted(summary.duplicates, 'stimulus', 'stimuli')} with an earlier prompt{more}"


def _short(text: str) -> str:
    return excerpt(" ".join(text.split()), limit=_SHOWN_CHARACTERS).text


def _counted(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _print_fact(name: str, text: str) -> None:
    _print(f"  {name:<18} {text}")


def _print(line: str) -> None:
    plain_console().print(line, soft_wrap=True)
