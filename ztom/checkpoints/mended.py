"""A local folder for engines where a checkpoint's own files say something else than it means.

Engines read names and configuration from files. Where a checkpoint was opened with names without a
wrapper's prefix, or without a stale ``quantization_config``, it is copied into the cache with that
put right; the bytes of its weights are the same.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from ztom.checkpoints.cache import replaced_folder, write_new_file
from ztom.checkpoints.checkpoint import Checkpoint, copy_file, digest_of
from ztom.checkpoints.layout import CONFIG, INDEX
from ztom.checkpoints.local import LocalSource
from ztom.checkpoints.tensors import DTYPES, TensorSpec
from ztom.errors import StorageError
from ztom.settings import Settings

_CHUNK = 8 * 2**20
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
#: In a mended folder: the digest of each file. Hidden, so that it is no file of the checkpoint.
_WRITTEN = ".mended.json"


def mended_folder(checkpoint: Checkpoint, shelf: Path, settings: Settings) -> Path:
    """The folder with the names and the configuration that the checkpoint was opened with.

    Args:
        checkpoint: Full checkpoint that was opened.
        shelf: Folder of the copies.
        settings: Settings with the limits.

    Raises:
        StorageError: The store failed, or the disk is full.
    """
    target = shelf / f"{checkpoint.digest}-mended"
    if target.is_dir() and _is_whole(target, settings):
        return target
    with replaced_folder(target) as fresh:
        for name in checkpoint.files:
            if name == CONFIG:
                write_new_file(fresh / name, [_json(dict(checkpoint.config))])
            elif name == INDEX:
                files = {tensor: spec.file for tensor, spec in checkpoint.tensors.items()}
                write_new_file(fresh / name, [_json({"metadata": {}, "weight_map": files})])
            else:
                copy_file(checkpoint.source, name, fresh / name)
        for name in checkpoint.weight_files:
            write_new_file(fresh / name, _renamed_file(checkpoint, name))
        copy = LocalSource(str(fresh), fresh, settings=settings)
        digests = {name: copy.sha256(name) for name in copy.names()}
        write_new_file(fresh / _WRITTEN, [_json(digests)])
    return target


def _renamed_file(checkpoint: Checkpoint, file: str) -> Iterator[bytes]:
    """A safetensors file with another header over the same data."""
    specs = sorted(
        (spec for spec in checkpoint.tensors.values() if spec.file == file),
        key=lambda spec: (spec.offset, spec.nbytes),
    )
    size = checkpoint.source.size(file)
    start = specs[0].offset if specs else size
    header = json.dumps(
        {"__metadata__": {"format": "pt"}, **{s.name: _entry(s, start) for s in specs}}
    ).encode()
    header += b" " * (-len(header) % 8)
    yield struct.pack("<Q", len(header)) + header
    for offset in range(start, size, _CHUNK):
        yield checkpoint.source.read(file, offset, min(_CHUNK, size - offset))


def _entry(spec: TensorSpec, start: int) -> Mapping[str, object]:
    offset = spec.offset - start
    return {
        "dtype": _DTYPE_NAMES[spec.dtype],
        "shape": list(spec.shape),
        "data_offsets": [offset, offset + spec.nbytes],
    }


def _is_whole(folder: Path, settings: Settings) -> bool:
    copy = LocalSource(str(folder), folder, settings=settings)
    try:
        digests = json.loads((folder / _WRITTEN).read_bytes())
        now = {name: copy.sha256(name) for name in copy.names()}
    except (OSError, ValueError, StorageError):
        return False
    return digest_of(now) == digest_of(digests)


def _json(content: object) -> bytes:
    return (json.dumps(content, sort_keys=True, indent=1) + "\n").encode()
