"""New suites from the examples that come with the package.

Nothing is overwritten, and a folder that is there is whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ztom.checkpoints.cache import publish_folder, staging_folder, write_new_file
from ztom.errors import EvaluationError
from ztom.evaluation.suites.lock import lock_suite
from ztom.evaluation.suites.read import ITEMS_FILE, SETTINGS_FILE, load_suite
from ztom.evaluation.suites.suite import Name, Suite

_EXAMPLES = Path(__file__).parents[1] / "examples"


def example_names() -> tuple[str, ...]:
    """What `new_suite` can start from."""
    return tuple(sorted(path.parent.name for path in _EXAMPLES.glob(f"*/{SETTINGS_FILE}")))


def example_folder(example: str) -> Path:
    """Where an example lies.

    Raises:
        EvaluationError: There is no such example.
    """
    if example not in example_names():
        raise EvaluationError(
            "there is no such example", got=example, expected=", ".join(example_names())
        )
    return _EXAMPLES / example


def new_suite(name: str, folder: Path, *, example: str) -> Suite:
    """Make a suite from an example: its items, its settings with another name, version 0.1.0.

    It is not locked: it is there to be changed first.

    Args:
        name: Name of the new suite.
        folder: Folder of the suite to be; must not exist.
        example: Name of the example, one of `example_names`.

    Raises:
        EvaluationError: The name is not usable, the example unknown, or the folder exists.
        StorageError: The folder cannot be written.
    """
    source = example_folder(example)
    check_name(name)
    settings = (source / SETTINGS_FILE).read_text(encoding="utf-8")
    for key, value in (("name", f'"{name}"'), ("version", "0.1.0")):
        settings = re.sub(rf"(?m)^{key}: .*$", f"{key}: {value}", settings)
    items = (source / ITEMS_FILE).read_bytes()
    publish_suite(folder, {SETTINGS_FILE: settings.encode(), ITEMS_FILE: items}, lock=False)
    return load_suite(folder)


def check_name(name: str) -> None:
    """Refuse what cannot name a suite.

    Raises:
        EvaluationError: It cannot.
    """
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise EvaluationError(
            "the name is not usable",
            got=name,
            expected="lower-case letters, digits, dots, dashes and underscores, at most 64",
        ) from None


def publish_suite(folder: Path, files: Mapping[str, bytes], *, lock: bool) -> None:
    """Make a suite's folder, whole or not at all.

    Raises:
        EvaluationError: The folder exists, or the files are no suite that can be locked.
        StorageError: It cannot be written.
    """
    if folder.exists() or folder.is_symlink():
        raise EvaluationError(f"{folder} exists", fix="Take another name, or remove it first.")
    with staging_folder(folder.absolute().parent) as staging:
        whole = staging / folder.name
        whole.mkdir()
        for name, content in files.items():
            write_new_file(whole / name, [content])
        if lock:
            lock_suite(whole)
        publish_folder(whole, folder)
