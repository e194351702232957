"""Suites as they are named on a command line or in a search: folders, or folders of folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ztom.errors import EvaluationError
from ztom.evaluation.suites.read import suite_folders
from ztom.evaluation.suites.suite import Suite
from ztom.io.places import is_store_address


@dataclass(frozen=True)
class FoundSuite:
    """A suite and where it lies.

    Attributes:
        suite: Suite as it was read.
        folder: Absolute path of the suite's folder.
        import_paths: Folders in which its functions are looked for: beside it first.
    """

    suite: Suite
    folder: Path
    import_paths: tuple[str, ...]


def read_suites(
    roots: Sequence[Path | str], *, read: Callable[[Path], Suite]
) -> tuple[FoundSuite, ...]:
    """Every suite in or below the folders.

    Args:
        roots: Folders to look in; those of a store are fetched.
        read: Function from a folder to its suite.

    Raises:
        EvaluationError: There is none, one cannot be read, or two have one name.
    """
    below = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    usual = [os.path.abspath(path) for path in (".", *filter(None, below))]
    folders = {folder.absolute(): folder for root in roots for folder in suite_folders(_here(root))}
    suites_read = tuple(
        FoundSuite(read(named), folder, (str(folder), *usual)) for folder, named in folders.items()
    )
    names = [suite.suite.config.name for suite in suites_read]
    if len(set(names)) != len(names):
        raise EvaluationError("two suites have one name", got=", ".join(sorted(names)))
    return suites_read


def _here(root: Path | str) -> Path:
    if not is_store_address(root):
        return Path(root)
    from ztom.io.store_fetch import here  # it imports fsspec

    return here(root)
