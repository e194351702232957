"""Safetensors files, read with a header parser that accepts nothing ambiguous.

The layout (https://github.com/huggingface/safetensors, "Format"): eight bytes, the little-endian
length N of the header; N bytes of JSON that map each tensor's name to dtype, shape and
data_offsets; then the data. The library's reader maps files, so a file that shrinks kills the
process, and it accepts duplicate keys and names that are paths. This one reads only headers, then
the bytes of the tensors that are asked for, straight into their buffers. It writes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from ztom.checkpoints.source import Source
from ztom.errors import TensorFileError
from ztom.io.json import DuplicateKeyError, parse_json
from ztom.settings import Settings

#: Safetensors dtype names that are read.
DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}

_PREFIX = 8
_MAX_DIMENSIONS = 32
_MAX_NAME = 512
_ENTRY_KEYS = frozenset({"dtype", "shape", "data_offsets"})
_CHUNK_ELEMENTS = 4 * 2**20


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Where one tensor lies.

    Attributes:
        name: Name of the tensor in the file.
        dtype: Dtype of the tensor as stored.
        shape: Shape of the tensor.
        file: Name of the file within its source.
        offset: Offset of its first byte from the start of the file, bytes.
        nbytes: Size of the tensor, bytes.
        parts: Tensors that it consists of, one after the other; none where it lies in one piece.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    file: str
    offset: int
    nbytes: int
    parts: tuple[TensorSpec, ...] = ()

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def read_header(source: Source, file: str, *, settings: Settings) -> dict[str, TensorSpec]:
    """Read and check the header of one safetensors file, without touching its data.

    Returns:
        One spec per tensor, sorted by name.

    Raises:
        TensorFileError: Anything but a well-formed, unambiguous file; names file and tensor.
    """
    size = source.size(file)
    if size < _PREFIX + 2:
        raise TensorFileError(
            f"{file} is truncated", got=f"{size} bytes", expected="a header length and a header"
        )
    prefix = source.read(file, 0, _PREFIX)
    length = int.from_bytes(prefix, "little")
    if length > settings.max_header_bytes or length > size - _PREFIX:
        raise _bad_length(
            file, prefix, length, limit=min(settings.max_header_bytes, size - _PREFIX)
        )
    raw = source.read(file, _PREFIX, length)
    entries = _parse(file, raw, settings.max_tensors_per_file)
    entries.pop("__metadata__", None)
    specs = [_spec(file, name, entry, _PREFIX + length) for name, entry in entries.items()]
    _check_layout(file, specs, start=_PREFIX + length, end=size)
    return {spec.name: spec for spec in sorted(specs, key=lambda spec: spec.name)}


def read_tensor(
    source: Source, spec: TensorSpec, *, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Read one tensor's bytes into a CPU tensor.

    Args:
        source: Source that holds the file.
        spec: Place of the tensor, from `read_header` of the same source.
        out: A contiguous CPU tensor of the same dtype and shape to read into; a new one otherwise.

    Raises:
        TensorFileError: ``out`` does not fit, or a BOOL holds bytes other than 0 and 1.
        ContentChangedError: The file changed since it was opened.
        StorageError: The store failed or gave fewer bytes than asked.
    """
    if out is None:
        out = torch.empty(spec.shape, dtype=spec.dtype)
    elif (
        out.dtype != spec.dtype
        or tuple(out.shape) != spec.shape
        or not out.is_contiguous()
        or out.device.type != "cpu"
    ):
        raise TensorFileError(
            f"{spec.file}: the buffer for {spec.name} does not fit",
            got=f"{out.dtype} {tuple(out.shape)} on {out.device}, contiguous {out.is_contiguous()}",
            expected=f"contiguous {spec.dtype} {spec.shape} on cpu",
        )
    if spec.parts:
        return out.copy_(read_slice(source, spec, 0, spec.count).reshape(spec.shape))
    if spec.nbytes:
        flat = out.detach().reshape(-1).view(torch.uint8)
        source.read_into(spec.file, spec.offset, flat.numpy().data)
        if spec.dtype == torch.bool and int(flat.max()) > 1:
            flat.zero_()
            raise TensorFileError(
                f"{spec.file}: {spec.name} is BOOL but holds other bytes than 0, 1"
            )
    return out


def read_slice(source: Source, spec: TensorSpec, start: int, end: int) -> torch.Tensor:
    """Read elements [start, end) of a tensor, flat; see `read_tensor`."""
    if spec.parts:
        out = torch.empty(end - start, dtype=spec.dtype)
        first = 0
        for part in spec.parts:
            begin, stop = max(start, first), min(end, first + part.count)
            if begin < stop:
                piece = read_slice(source, part, begin - first, stop - first)
                out[begin - start : stop - start] = piece
            first += part.count
        return out
    size = spec.dtype.itemsize
    part = replace(
        spec, shape=(end - start,), offset=spec.offset + start * size, nbytes=(end - start) * size
    )
    return read_tensor(source, part)


def check_finite(tensor: torch.Tensor, name: str) -> None:
    """Refuse NaN and infinity, reading the tensor in chunks so that memory stays flat.

    Raises:
        TensorFileError: Names the tensor and the first element that is not finite.
    """
    if not tensor.dtype.is_floating_point:
        return
    flat = tensor.detach().reshape(-1)
    for start in range(0, flat.numel(), _CHUNK_ELEMENTS):
        chunk = flat[start : start + _CHUNK_ELEMENTS]
        if chunk.dtype.itemsize == 1:
            chunk = chunk.float()
        # a NaN or infinity makes the sum so, in a small part of the time that a look at each value
        # takes; a sum can also overflow on its own, so look then
        if bool(torch.isfinite(chunk.sum(dtype=_sum_dtype(chunk)))):
            continue
        finite = torch.isfinite(chunk)
        if not bool(finite.all()):
            index = int((~finite).nonzero()[0, 0])
            raise TensorFileError(
                f"{name} holds values that are not finite",
                got=f"{float(chunk[index])} at flat index {start + index}",
                expected="finite numbers",
                fix="A checkpoint with NaN or infinity cannot be blended; take an earlier one.",
            )


def _sum_dtype(tensor: torch.Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _bad_length(file: str, prefix: bytes, length: int, *, limit: int) -> TensorFileError:
    if prefix[:2] == b"PK" or prefix[0] == 0x80:
        return TensorFileError(
            f"{file} is not a safetensors file",
            got="what looks like a pickle",
            expected="a safetensors header",
            fix="Pickles are never loaded; save the model again as safetensors.",
        )
    return TensorFileError(
        f"{file}: the header length is impossible", got=length, expected=f"at most {limit}"
    )


def _parse(file: str, raw: bytes, max_tensors: int) -> dict[str, Any]:
    # Counted before parsing: a million empty tensors cost gigabytes as Python objects. Every entry
    # opens one brace and has four commas (its own and those within); text in the metadata may hold
    # some more, and stays far below these bounds.
    if raw.count(b"{") > max_tensors + 64 or raw.count(b",") > 16 * max_tensors + 4096:
        raise TensorFileError(f"{file} has too many tensors", expected=f"at most {max_tensors}")
    if not raw.startswith(b"{"):
        raise TensorFileError(f"{file}: the header is not a JSON object", got=raw[:20])
    try:
        header = parse_json(raw, integers_only=True)
    except DuplicateKeyError as error:
        raise TensorFileError(
            f"{file}: tensor {_printable_name(error.key)} is defined twice",
            expected="each key once",
        ) from None
    except ValueError as error:
        raise TensorFileError(f"{file}: the header is not valid JSON", reason=str(error)) from None
    if not isinstance(header, dict):
        raise TensorFileError(f"{file}: the header is not a JSON object")
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise TensorFileError(f"{file}: __metadata__ must map text to text")
    return header


def _spec(file: str, name: str, entry: object, data_start: int) -> TensorSpec:
    where = f"{file}: tensor {_printable_name(name)}"
    if not name or len(name) > _MAX_NAME or not name.isprintable() or {"/", "\\"} & set(name):
        raise TensorFileError(f"{where} has a name that is not allowed", expected="plain text")
    if name in (".", ".."):
        raise TensorFileError(f"{where} has a name that is not allowed", expected="plain text")
    if not isinstance(entry, dict) or entry.keys() != _ENTRY_KEYS:
        raise TensorFileError(f"{where} is malformed", expected=", ".join(sorted(_ENTRY_KEYS)))
    dtype = DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise TensorFileError(
            f"{where} has an unknown dtype", got=entry["dtype"], expected=", ".join(DTYPES)
        )
    shape = _integers(entry["shape"], f"{where}: shape", at_most=_MAX_DIMENSIONS)
    offsets = _integers(entry["data_offsets"], f"{where}: data_offsets", at_most=2)
    if len(offsets) != 2 or offsets[1] < offsets[0]:
        raise TensorFileError(f"{where} has impossible offsets", got=list(offsets))
    # The second product leaves zeros out: torch computes strides from it and would overflow.
    if math.prod(max(size, 1) for size in shape) * dtype.itemsize >= 2**63:
        raise TensorFileError(f"{where} has an impossible shape", got=list(shape))
    nbytes = math.prod(shape) * dtype.itemsize
    if offsets[1] - offsets[0] != nbytes:
        raise TensorFileError(
            f"{where}: shape and offsets disagree",
            got=f"{offsets[1] - offsets[0]} bytes",
            expected=f"{nbytes} bytes for {entry['dtype']} {list(shape)}",
        )
    return TensorSpec(name, dtype, shape, file, data_start + offsets[0], nbytes)


def _integers(value: object, what: str, *, at_most: int) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > at_most:
        raise TensorFileError(f"{what} is malformed", expected=f"a list of at most {at_most}")
    for item in value:
        if type(item) is not int or not 0 <= item < 2**63:
            raise TensorFileError(f"{what} is malformed", got=item, expected="0 to 2^63 - 1")
    return tuple(value)


def _check_layout(file: str, specs: list[TensorSpec], *, start: int, end: int) -> None:
    position = start
    for spec in sorted(specs, key=lambda spec: (spec.offset, spec.nbytes, spec.name)):
        if spec.offset != position:
            kind = (
                "overlaps another tensor" if spec.offset < position else "leaves a hole before it"
            )
            raise TensorFileError(
                f"{file}: tensor {spec.name} {kind}",
                got=f"offset {spec.offset - start}",
                expected=f"offset {position - start}",
            )
        position += spec.nbytes
    if position != end:
        kind = "is truncated" if position > end else "has trailing bytes"
        raise TensorFileError(
            f"{file} {kind}",
            got=f"{end} bytes",
            expected=f"{position} bytes",
            fix="Fetch it again.",
        )


def _printable_name(name: str) -> str:
    """A name from the file, cut and escaped so that it cannot forge a line of a log."""
    return ascii(name if len(name) <= 80 else name[:77] + "...")
