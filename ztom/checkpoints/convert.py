"""Pickled weights (``pytorch_model.bin``, ``adapter_model.bin``) as safetensors, in a new folder.

Nothing else of this package opens a pickle. Here each file is read by a process of its own
(`ztom.checkpoints.convert_worker`), with ``weights_only`` and limits on memory and time;
configuration, tokenizer and all other files that a blend would keep are copied as they are.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ztom.checkpoints.cache import publish_folder, staging_folder, write_new_file
from ztom.checkpoints.checkpoint import copy_file, open_folder
from ztom.checkpoints.hub_source import open_hub, wants_pickles
from ztom.checkpoints.kept_paths import leads_out, why_left_out
from ztom.checkpoints.layout import (
    ADAPTER,
    ADAPTER_CONFIG,
    INDEX,
    MAX_JSON_BYTES,
    SINGLE,
    read_json,
)
from ztom.checkpoints.reference import parse_reference
from ztom.checkpoints.source import Source
from ztom.checkpoints.storage import open_source
from ztom.errors import CheckpointError, ConfigError, StorageError
from ztom.io.hub_address import HUB
from ztom.io.json import read_json_object
from ztom.settings import Settings

_WORKER = Path(__file__).with_name("convert_worker.py")
_PICKLED_INDEX = "pytorch_model.bin.index.json"
_PICKLED = ("pytorch_model.bin", "pytorch_model-*-of-*.bin", "adapter_model.bin")
_NEW_NAMES = {"pytorch_model.bin": SINGLE, "adapter_model.bin": ADAPTER}
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
_BASE_MEMORY_BYTES = 4 * 2**30
#: Whole seconds of any conversion, and seconds per GiB on top.
_BASE_TIMEOUT_S, _TIMEOUT_S_PER_GIB = 120.0, 60.0


@dataclass(frozen=True, slots=True)
class Conversion:
    """What became of a folder.

    Attributes:
        folder: Folder that was written.
        converted: New file of each pickled one.
        kept: Paths of the files that were copied.
        left_out: Reason why each of the rest was not, by its path.
        tensors: Number of tensors.
    """

    folder: Path
    converted: Mapping[str, str]
    kept: tuple[str, ...]
    left_out: Mapping[str, str]
    tensors: int


def convert_checkpoint(reference: str, output: Path, *, settings: Settings) -> Conversion:
    """Write a checkpoint with pickled weights anew, as safetensors.

    Args:
        reference: Folder, archive or address of the checkpoint.
        output: Folder to be; nothing may stand there.
        settings: Allowed schemes and roots, limits, cache.

    Raises:
        CheckpointError: There are no pickled weights, they hold more than tensors, or what comes of
            them is no checkpoint.
        ConfigError: Something stands at the output.
        StorageError: The source cannot be read, or the disk refused.
    """
    if output.exists():
        raise ConfigError(f"{output} is there already", expected="the name of a new folder")
    source = _open(reference, settings)
    pickled = _pickled_files(source)
    with staging_folder(output.absolute().parent) as staging:
        fresh = staging / output.name
        fresh.mkdir(mode=0o755)
        tensors = {
            _new_name(name): _convert(source, name, fresh / _new_name(name), staging)
            for name in pickled
        }
        if _PICKLED_INDEX in source.paths():
            _write_index(source, tensors, fresh)
        kept, left_out = _copy_others(source, fresh, pickled)
        open_folder(fresh, settings=settings)  # or there is no new folder
        publish_folder(fresh, output.absolute())
    return Conversion(
        folder=output,
        converted={name: _new_name(name) for name in pickled},
        kept=kept,
        left_out=left_out,
        tensors=sum(len(names) for names in tensors.values()),
    )


def _open(reference: str, settings: Settings) -> Source:
    parsed = parse_reference(reference, settings=settings)
    if parsed.scheme == HUB:
        return open_hub(parsed.text, settings=settings, wanted=wants_pickles)
    return open_source(reference, settings=settings)


def _pickled_files(source: Source) -> list[str]:
    """Names of the weights to convert.

    Raises:
        CheckpointError: There are none, or safetensors already.
    """
    names = source.names()
    present = [name for name in names if name in (SINGLE, INDEX, ADAPTER)]
    pickled = [name for name in names if any(fnmatchcase(name, kind) for kind in _PICKLED)]
    if present or not pickled:
        raise CheckpointError(
            f"{source.reference} has nothing to convert",
            got=present[0] if present else ", ".join(names[:10]) or "no files",
            expected="pytorch_model.bin, its shards or adapter_model.bin, and no safetensors",
            fix="Use it as it is." if present else None,
        )
    return pickled


def _new_name(name: str) -> str:
    return _NEW_NAMES.get(name) or name.replace("pytorch_model", "model", 1).replace(
        ".bin", ".safetensors"
    )


def _convert(source: Source, name: str, target: Path, staging: Path) -> list[str]:
    """Convert one file in a process of its own; returns the names of its tensors."""
    nbytes = source.size(name)  # a link that leads out is refused here
    folder = source.local_folder()
    path = staging / f"copy-of-{name}" if folder is None else folder / name
    if folder is None:
        copy_file(source, name, path)
    reply = _run_worker(path, target, nbytes, what=f"{source.reference}: {name}")
    if folder is None:
        path.unlink()
    names = reply.get("names")
    if not isinstance(names, list):
        others = reply.get("others") or ()
        raise CheckpointError(
            f"{source.reference}: {name} cannot be converted",
            got=f"{', '.join(map(str, others))} beside tensors" if others else reply.get("error"),
            expected="a dictionary of tensors by their names",
            fix="If you trust it: load it with the program that wrote it, and save it from there.",
        )
    return [str(item) for item in names]


def _run_worker(path: Path, target: Path, nbytes: int, *, what: str) -> Mapping[str, Any]:
    memory = _BASE_MEMORY_BYTES + 4 * nbytes
    deadline_s = _BASE_TIMEOUT_S + _TIMEOUT_S_PER_GIB * nbytes / 2**30
    command = [sys.executable, "-I", str(_WORKER), str(path), str(target), str(memory)]
    environment = {key: os.environ[key] for key in _ENVIRONMENT if key in os.environ}
    try:
        done = subprocess.run(
            command,
            env=environment,
            cwd=target.parent,
            capture_output=True,
            timeout=deadline_s,
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CheckpointError(
            f"{what} took too long", got=f"{deadline_s:.0f} s", expected="a file of plain tensors"
        ) from error
    lines = done.stdout.decode(errors="replace").strip().splitlines()
    if done.returncode != 0 or not lines:
        tail = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise CheckpointError(
            f"{what} could not be read",
            got=f"status {done.returncode}{f', {tail[0]}' if tail else ''}",
            fix="The process that read it has ended; it may use 4 GiB and four times the file.",
        )
    return read_json_object(lines[-1].encode(), what=f"the answer on {what}", limit=MAX_JSON_BYTES)


def _write_index(source: Source, tensors: Mapping[str, Sequence[str]], folder: Path) -> None:
    """The index of the new shards, compared with that of the old ones."""
    weight_map = {name: file for file, names in tensors.items() for name in names}
    listed = read_json(source, _PICKLED_INDEX).get("weight_map")
    known = set(listed) if isinstance(listed, dict) else set()
    if known != set(weight_map):
        missing = sorted(known - set(weight_map))
        raise CheckpointError(
            f"{source.reference}: the shards are not those of {_PICKLED_INDEX}",
            got=f"{len(missing)} tensors missing, {len(set(weight_map) - known)} extra",
            expected=f"{len(known)} tensors" + (f", such as {missing[0]}" if missing else ""),
        )
    total = sum((folder / file).stat().st_size for file in tensors)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    write_new_file(folder / INDEX, [(json.dumps(index, indent=1) + "\n").encode()])


def _copy_others(
    source: Source, folder: Path, pickled: Sequence[str]
) -> tuple[tuple[str, ...], dict[str, str]]:
    kept: list[str] = []
    left_out: dict[str, str] = {}
    for path in source.paths():
        if path in pickled or path == _PICKLED_INDEX:
            continue
        named, reason = why_left_out(path)
        if reason is None or path == ADAPTER_CONFIG:
            if leads_out(source, path):
                left_out[path] = "a link that leads out of the folder"
                continue
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            copy_file(source, path, folder / path)
            kept.append(path)
        else:
            left_out[named] = reason
    if not kept:
        raise StorageError(f"{source.reference} holds nothing beside weights", got="no config.json")
    return tuple(kept), left_out
