"""Files of data sets on the Hugging Face Hub: ``hf://datasets/org/name[@revision]/file``.

They are fetched through huggingface_hub, with its cache, its token and its offline mode.
"""

from __future__ import annotations

import re
from pathlib import Path

from ztom.errors import StimuliError

SCHEME = "hf://"
_DATASETS = f"{SCHEME}datasets/"
_ADDRESS = re.compile(
    rf"{_DATASETS}(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/@]+))?(?:/(?P<name>[^@]+))?"
)
_SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")


def local_file(reference: Path | str) -> Path:
    """The file itself: a path as it is, a file of the Hub after it was fetched.

    Args:
        reference: Path, or address that begins with ``hf://datasets/``.

    Raises:
        StimuliError: It is another address, names no single file, or cannot be fetched.
    """
    text = str(reference)
    if not text.startswith(SCHEME):
        return Path(reference)
    if not text.startswith(_DATASETS):
        raise StimuliError(
            "an address of the Hub names no data set",
            got=text,
            expected=f"{_DATASETS}org/name/file",
        )
    return _fetch(text)


def _fetch(reference: str) -> Path:
    from huggingface_hub import hf_hub_download

    match = _ADDRESS.fullmatch(reference)
    if match is None:
        raise StimuliError(
            "an address of the Hub is malformed",
            got=reference,
            expected=f"{_DATASETS}org/name[@revision]/file",
        )
    repo, revision, name = match["repo"], match["revision"], match["name"] or ""
    try:
        if not name.endswith(_SUFFIXES):
            raise StimuliError(
                f"{reference} names no file of data",
                expected=f"one of its files, with a suffix out of {', '.join(_SUFFIXES)}",
                fix=_names_fix(repo, revision),
            )
        return Path(hf_hub_download(repo, name, repo_type="dataset", revision=revision))
    except StimuliError:
        raise
    except (OSError, ValueError) as error:  # the Hub's own errors are OSErrors
        raise StimuliError(
            f"{reference} cannot be fetched",
            got=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            fix="HF_TOKEN opens private data sets; HF_ENDPOINT names another Hub.",
        ) from error


def _names_fix(repo: str, revision: str | None) -> str:
    """The files that could have been meant, as advice."""
    from huggingface_hub import HfApi

    names = HfApi().list_repo_files(repo, repo_type="dataset", revision=revision)
    files = [name for name in names if name.endswith(_SUFFIXES)]
    return f"It has {', '.join(files[:10])}{', ...' if len(files) > 10 else ''}."
