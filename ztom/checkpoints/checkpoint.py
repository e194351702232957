"""A checkpoint: the weights, the configuration and the tokenizer behind one reference.

`open_checkpoint` reads configuration and safetensors headers, checks that they fit together, and
leaves the weights where they are; `Checkpoint.read` fetches one tensor. Pickles are never loaded
and code in a checkpoint is never run. Whether several checkpoints fit each other is decided in
`ztom.blending.chain`.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from ztom.checkpoints.cache import write_new_file
from ztom.checkpoints.config_checks import check_full_config, has_tied_head
from ztom.checkpoints.layout import find_layout, read_config, read_tensors
from ztom.checkpoints.local import LocalSource
from ztom.checkpoints.quantised import refuse_packed, stated_method, without_stale
from ztom.checkpoints.source import Source
from ztom.checkpoints.storage import open_source
from ztom.checkpoints.tensors import TensorSpec, read_tensor
from ztom.checkpoints.tokenizer import tokenizer_digest
from ztom.checkpoints.wrappers import unwrap
from ztom.errors import CheckpointError, ContentChangedError
from ztom.settings import Settings

_DIGEST = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})")
_COPY_CHUNK = 8 * 2**20
_HASH_THREADS = 4


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint that was opened and checked; equal only to itself.

    Attributes:
        reference: Reference as it was written.
        source: Source of the checkpoint's files.
        kind: Whether it is a full model, or a PEFT adapter.
        config: Content of ``config.json``, or of ``adapter_config.json`` of an adapter.
        tensors: Place of each tensor by its name, sorted.
        weight_files: Names of the safetensors files, sorted.
        files: Names of the other files that belong to it (configuration, tokenizer), sorted.
        tied: Whether the output head is the embedding and has no tensor of its own.
        pin: The digest it must have, lower-case hex, if one was given.
        notes: What was passed over or put right when it was opened, a sentence each.
        mended: Whether names or configuration are not those of its files.
    """

    reference: str
    source: Source
    kind: Literal["full", "adapter"]
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorSpec]
    weight_files: tuple[str, ...]
    files: tuple[str, ...]
    tied: bool
    pin: str | None = None
    notes: tuple[str, ...] = ()
    mended: bool = False

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the lines ``name sha256`` of all used files, sorted by name, lower-case hex.

        The first use reads every byte of the checkpoint.
        """
        return digest_of(self._file_digests())

    @cached_property
    def tokenizer_digest(self) -> str | None:
        """Digest of what the tokenizer does (vocabulary, merges, ...); None without a tokenizer."""
        return tokenizer_digest(self.source, self.files)

    @property
    def dtype(self) -> torch.dtype | None:
        """The dtype of most of its floating-point weights; None when it has none."""
        sizes: Counter[torch.dtype] = Counter()
        for spec in self.tensors.values():
            if spec.dtype.is_floating_point:
                sizes[spec.dtype] += math.prod(spec.shape)
        return max(sizes, key=sizes.__getitem__, default=None)

    @property
    def used_files(self) -> tuple[str, ...]:
        """Names of all files that belong to the checkpoint, sorted."""
        return tuple(sorted({*self.files, *self.weight_files}))

    def read(self, name: str, out: torch.Tensor | None = None) -> torch.Tensor:
        """Read one tensor from its file, as stored.

        Args:
            name: A key of `tensors`.
            out: Tensor to read into; see `ztom.checkpoints.tensors.read_tensor`.

        Raises:
            CheckpointError: There is no such tensor, or ``out`` does not fit.
            ContentChangedError: The file changed since the checkpoint was opened.
            StorageError: The store failed.
        """
        spec = self.tensors.get(name)
        if spec is None:
            raise CheckpointError(f"{self.reference} has no tensor {ascii(name)}")
        return read_tensor(self.source, spec, out=out)

    def _file_digests(self) -> dict[str, str]:
        names = self.used_files
        # Hashing releases the interpreter lock, so shards are hashed side by side.
        with ThreadPoolExecutor(_HASH_THREADS) as pool:
            return dict(zip(names, pool.map(self.source.sha256, names), strict=True))

    def verify_pin(self) -> None:
        """Check that the content is what it was when opened, and what the pin says.

        Raises:
            ContentChangedError: It is not.
        """
        digest = digest_of(self._file_digests())
        expected = self.pin or self.digest
        if digest != expected:
            raise ContentChangedError(
                f"{self.reference} is not the content that was pinned",
                got=f"sha256 {digest}",
                expected=f"sha256 {expected}",
                fix="Restore that content, or pin the new digest on purpose.",
            )


def open_checkpoint(reference: str, *, settings: Settings, sha256: str | None = None) -> Checkpoint:
    """Open a checkpoint: read its configuration and headers, and check that they fit together.

    Args:
        reference: Reference of the checkpoint; see `ztom.checkpoints.storage.open_source`.
        settings: Allowed schemes and roots, limits, cache.
        sha256: The `Checkpoint.digest` that it must have; hex, with or without ``sha256:``.
            Checking it reads every byte.

    Raises:
        CheckpointError: It cannot be used; the subclasses say why.
        ContentChangedError: The digest is another one.
        StorageError: The store failed.
    """
    pin = _parse_pin(sha256)
    return _open(open_source(reference, settings=settings), settings, pin=pin)


def open_folder(folder: Path, *, settings: Settings) -> Checkpoint:
    """Open a folder that an engine is given: a copy in the cache, a blend that was just written.

    The roots limit what people may refer to, and that was checked when their reference was opened.
    A folder that came of it lies where it was put, whatever the roots are.

    Args:
        folder: The checkpoint's files.
        settings: Settings with the limits.

    Raises:
        CheckpointError: It cannot be used; the subclasses say why.
        StorageError: It cannot be read.
    """
    # links that lead out of the folder are refused all the same
    anywhere = settings.also_allowing(Path("/"))
    return _open(LocalSource(str(folder), folder.resolve(), settings=anywhere), settings)


def _open(source: Source, settings: Settings, *, pin: str | None = None) -> Checkpoint:
    layout = find_layout(source)
    config, notes = read_config(source, layout)
    tensors, more = read_tensors(source, layout, settings=settings)
    notes += more
    tied = mended = False
    if layout.kind == "full":
        refuse_packed(source.reference, config, tensors)
        if (method := stated_method(config)) is not None:
            config = without_stale(config)
            notes.append(
                f"{source.reference}: the quantization_config ({method or 'no method'}) in "
                "config.json is stale, the weights are plain ones; it is passed over"
            )
        tensors, prefix = unwrap(source.reference, config, tensors)
        if prefix:
            notes.append(f"{source.reference}: {prefix} is taken away before every tensor's name")
        mended = method is not None or bool(prefix)
        check_full_config(source.reference, config, tensors)
        tied = has_tied_head(config, tensors)
    checkpoint = Checkpoint(
        reference=source.reference,
        source=source,
        kind=layout.kind,
        config=config,
        tensors=tensors,
        weight_files=layout.weights,
        files=layout.files,
        tied=tied,
        pin=pin,
        notes=tuple(notes),
        mended=mended,
    )
    if pin is not None:
        checkpoint.verify_pin()
    return checkpoint


def digest_of(files: Mapping[str, str]) -> str:
    """SHA-256 over the lines ``name sha256`` of the files, sorted by name.

    Args:
        files: The digest of each file by its name.
    """
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _parse_pin(sha256: str | None) -> str | None:
    if sha256 is None:
        return None
    match = _DIGEST.fullmatch(sha256)
    if match is None:
        raise CheckpointError(
            "the pinned sha256 is malformed", got=sha256, expected="64 hex digits"
        )
    return match.group(1).lower()


def copy_file(source: Source, name: str, path: Path) -> str:
    """Copy one file and return the digest of what was written."""
    digest = hashlib.sha256()

    def chunks() -> Iterator[bytes]:
        size = source.size(name)
        for offset in range(0, size, _COPY_CHUNK):
            chunk = source.read(name, offset, min(_COPY_CHUNK, size - offset))
            digest.update(chunk)
            yield chunk

    write_new_file(path, chunks())
    return digest.hexdigest()
