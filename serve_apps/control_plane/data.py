"""Data sets that a call names: read from under the operator's roots, copied for the request.

A data set that was uploaded is named ``data:<sha256>.<suffix>``; it belongs to its project.

The copy is what the work is done on, so that a search which goes on after a crash has the same data
as before, and its digest is written down.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ztom.checkpoints.source import Source
from ztom.checkpoints.storage import open_file, open_source
from ztom.errors import EvaluationError, StimuliError
from ztom.evaluation.suites.lock import LOCK_FILE, load_locked
from ztom.evaluation.suites.read import ITEMS_FILE, MAX_ITEMS_BYTES, SETTINGS_FILE
from ztom.settings import Settings

UPLOADED = "data:"

_SUFFIXES = {".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt"}
_UPLOAD_NAME = re.compile(r"[0-9a-f]{64}\.[a-z]{2,7}")
_CHUNK = 8 * 2**20
#: The reader of stimuli has the same bound.
_MOST_BYTES = 2 * 2**30


@dataclass(frozen=True, slots=True)
class DataCopy:
    """A data set as copied.

    Attributes:
        path: File of the copy.
        digest: sha256 of the bytes.
        nbytes: Number of bytes.
    """

    path: Path
    digest: str
    nbytes: int


def copy_data(
    references: Sequence[str],
    folder: Path,
    name: str,
    *,
    settings: Settings,
    uploads: Path | None = None,
) -> DataCopy:
    """Copy one file, or several JSON Lines files one after the other.

    Args:
        references: Local paths, or addresses; each must lie under a root of the settings.
        folder: Folder of the copy.
        name: Name of the copy, without a suffix.
        settings: Settings with the allowed roots.
        uploads: Folder of the data sets that were uploaded to the project.

    Raises:
        ReferenceRefusedError: A reference is not allowed.
        StimuliError: They cannot be put together, or are too large.
        StorageError: One is not there, or the store failed.
    """
    suffixes = {PurePosixPath(reference).suffix.lower() for reference in references}
    if len(references) > 1 and suffixes - {".jsonl", ".ndjson"}:
        raise StimuliError(
            "several files can be put together as JSON Lines only",
            got=", ".join(sorted(suffixes)),
            expected=".jsonl",
        )
    path = copy_path(references, folder, name)
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as out:
        for reference in references:
            source, file = _open(reference, settings, uploads)
            length = source.size(file)
            if size + length > _MOST_BYTES:
                raise StimuliError(
                    f"{name}: the files are too large", expected=f"at most {_MOST_BYTES} bytes"
                )
            last = b""
            for offset in range(0, length, _CHUNK):
                last = source.read(file, offset, min(_CHUNK, length - offset))
                out.write(last)
                digest.update(last)
            size += length
            if len(references) > 1 and not last.endswith(b"\n"):
                out.write(b"\n")
                digest.update(b"\n")
                size += 1
        out.flush()
        os.fsync(out.fileno())
    return DataCopy(path, digest.hexdigest(), size)


def copy_path(references: Sequence[str], folder: Path, name: str) -> Path:
    """Where `copy_data` puts its copy."""
    return folder / f"{name}{data_suffix(references[0])}"


def copy_suite(reference: str, folder: Path, *, settings: Settings) -> Path:
    """Copy a locked suite, check the copy, and return its folder.

    Args:
        reference: A folder, or an address; it must lie under a root of the settings.
        folder: Folder of the copy to be.
        settings: Settings with the allowed roots.

    Raises:
        ReferenceRefusedError: The reference is not allowed.
        EvaluationError: It is no suite, or not as it was locked; or it names a function, which is
            code, and that runs from the command line only.
        StorageError: It is not there, or the store failed.
    """
    source = open_source(reference, settings=settings)
    names = source.names()
    folder.mkdir(parents=True)
    for name in (SETTINGS_FILE, ITEMS_FILE, LOCK_FILE):
        if name not in names or source.size(name) > MAX_ITEMS_BYTES:
            raise EvaluationError(
                f"{reference} is no locked suite",
                expected=f"a {name} of at most {MAX_ITEMS_BYTES} bytes",
            )
        (folder / name).write_bytes(source.read(name))
    suite = load_locked(folder)
    if suite.config.function is not None:
        raise EvaluationError(
            f"suite {suite.config.name} scores by a function of its own",
            got=suite.config.function,
            fix="Functions of one's own run from the command line, not over HTTP.",
        )
    return folder


def data_suffix(name: str) -> str:
    """The suffix that says how a data set is read; ``.txt`` for what is none of them."""
    suffix = PurePosixPath(name).suffix.lower()
    return suffix if suffix in _SUFFIXES else ".txt"


def _open(reference: str, settings: Settings, uploads: Path | None) -> tuple[Source, str]:
    if not reference.startswith(UPLOADED):
        return open_file(reference, settings=settings)
    name = reference.removeprefix(UPLOADED)
    if uploads is None or not _UPLOAD_NAME.fullmatch(name) or not (uploads / name).is_file():
        raise StimuliError("the project has no such data set", got=reference)
    own = Settings(allowed_roots=(str(uploads),))
    return open_file(str(uploads / name), settings=own)
