"""Reading suites: a folder with ``suite.yaml`` (settings) and ``items.jsonl`` (an item a line).

Files are read strictly: UTF-8, or UTF-16 with its mark, no key twice, no field that nobody knows,
numbers that are finite, ids that are unique and printable, targets that fit the metric
(`ztom.evaluation.suites.targets`), a template that ends (`ztom.evaluation.suites.templates`). An
error names the file and the line, never the content: items may come from private traffic.

Whether a suite is what was agreed on is another question: `ztom.evaluation.suites.lock`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from ztom.errors import EvaluationError, StimuliError
from ztom.evaluation.metrics.checks import check_forms
from ztom.evaluation.suites.digests import item_digest, settings_digest, suite_digest
from ztom.evaluation.suites.own_code import code_digest
from ztom.evaluation.suites.suite import Item, Suite, SuiteConfig, Turn
from ztom.evaluation.suites.targets import check_targets
from ztom.evaluation.suites.templates import PromptTemplate
from ztom.io.problems import check_model
from ztom.io.text import Place
from ztom.io.yaml import parse_yaml
from ztom.stimuli.json_values import parse_json
from ztom.stimuli.text_files import read_lines, read_text

SETTINGS_FILE = "suite.yaml"
ITEMS_FILE = "items.jsonl"
MAX_SETTINGS_BYTES = 2**20
MAX_ITEMS_BYTES = 2**28
MAX_LINE_BYTES = 2**20
MAX_ITEMS = 100_000


def load_suite(folder: Path) -> Suite:
    """Read a suite.

    Raises:
        EvaluationError: A file is missing, unreadable or malformed; names file and line.
    """
    settings, items_file = folder / SETTINGS_FILE, folder / ITEMS_FILE
    with evaluation_errors():
        config = _read_settings(settings)
        placed = _read_items(items_file)
        items = tuple(item for _, item in placed)
        places = [place for place, _ in placed]
        check_targets(items, config, places=places, settings=Place(settings, 1))
        _check_prompts(items, config, places=places, settings=Place(settings, 1))
    digests = {item.id: item_digest(item) for item in items}
    code = code_digest(folder, config)
    digest = suite_digest(config.version, settings_digest(config), digests, code=code)
    return Suite(config=config, items=items, digest=digest, code=code)


def suite_folders(root: Path) -> tuple[Path, ...]:
    """Every folder with a ``suite.yaml``: ``root`` and those below it that are not hidden.

    Raises:
        EvaluationError: There is none.
    """
    folders = []
    for folder, below, files in os.walk(root):
        below[:] = [name for name in below if not name.startswith(".")]
        if SETTINGS_FILE in files:
            folders.append(Path(folder))
    if not folders:
        raise EvaluationError(
            f"there is no {SETTINGS_FILE} in {root} or below",
            fix="`ztom suite new NAME` makes a suite.",
        )
    return tuple(sorted(folders))


@contextmanager
def evaluation_errors() -> Iterator[None]:
    """What reading text finds wrong, as the error of this package."""
    try:
        yield
    except StimuliError as error:
        raise EvaluationError(
            error.what,
            got=error.got,
            expected=error.expected,
            fix=error.fix,
            reason=error.reason,
        ) from error


def require_size(path: Path, limit: int) -> None:
    """Refuse a file of more than ``limit`` bytes; one that is not there is its reader's concern.

    Raises:
        EvaluationError: It is larger.
    """
    try:
        size = path.stat().st_size
    except OSError:
        return
    if size > limit:
        raise EvaluationError(
            f"{path} is too large", got=f"{size} bytes", expected=f"at most {limit}"
        )


def _read_settings(path: Path) -> SuiteConfig:
    require_size(path, MAX_SETTINGS_BYTES)
    place = Place(path, 1)
    content = parse_yaml(read_text(path), source=path, kind=StimuliError)
    config = check_model(
        SuiteConfig, content, wrong=f"{path} is not a suite's settings", kind=EvaluationError
    )
    try:
        check_forms(config.checks)
    except EvaluationError as error:
        raise place.error(error.what, got=error.got, reason=error.reason) from None
    for text in (config.owner, *config.labels):
        if not text.isprintable():
            raise place.error("the owner or a label holds a character that cannot be printed")
    return config


def _read_items(path: Path) -> list[tuple[Place, Item]]:
    require_size(path, MAX_ITEMS_BYTES)
    lines = read_lines(path, on_blank=lambda place: None)
    if len(lines) > MAX_ITEMS:
        raise EvaluationError(
            f"{path} has too many items", got=len(lines), expected=f"at most {MAX_ITEMS}"
        )
    placed = [(place, _read_item(line, place=place)) for place, line in lines]
    seen: dict[str, Place] = {}
    for place, item in placed:
        first = seen.setdefault(item.id, place)
        if first is not place:
            raise place.error("an id occurs twice", got=f"{item.id}, as in line {first.line}")
    return placed


def _read_item(line: str, *, place: Place) -> Item:
    if len(line) > MAX_LINE_BYTES or len(line.encode()) > MAX_LINE_BYTES:
        raise place.error("the line is too long", expected=f"at most {MAX_LINE_BYTES} bytes")
    value = parse_json(line, place=place)
    wrong = f"{place.path}, line {place.line}: the line is not an item"
    item = check_model(Item, value, wrong=wrong, kind=StimuliError)
    _check_item(item, place=place)
    return item


def _check_item(item: Item, *, place: Place) -> None:
    for name in ("id", "slice", "cluster_id"):
        value = getattr(item, name)
        if value is not None and not (value.strip() and value.isprintable()):
            raise place.error(f"{name} is not usable", expected="printable text")
    if isinstance(item.input, tuple):
        _check_turns(item.input, place=place)
    elif not item.input.strip():
        raise place.error("input is empty")
    if item.source_ts is not None:
        try:
            datetime.fromisoformat(item.source_ts)
        except ValueError:
            raise place.error("source_ts is no time", expected="ISO 8601") from None


def _check_turns(turns: tuple[Turn, ...], *, place: Place) -> None:
    if not turns or turns[-1].role != "user" or not turns[-1].content.strip():
        raise place.error("the messages do not end with something that a user says")


def _check_prompts(
    items: tuple[Item, ...], config: SuiteConfig, *, places: list[Place], settings: Place
) -> None:
    """Make every prompt once: a template that fails does so now."""
    try:
        template = PromptTemplate(config.template)
    except EvaluationError as error:
        raise settings.error(
            error.what, got=error.got, expected=error.expected, reason=error.reason
        ) from None
    for place, item in zip(places, items, strict=True):
        try:
            template.render(item)
        except EvaluationError as error:
            raise place.error(error.what, got=error.got, reason=error.reason) from None
