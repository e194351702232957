"""The header parser: what it reads, and that nothing else gets through."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from safetensors import deserialize
from safetensors.torch import save
from toy_checkpoints import entry, tensor_file

from ztom.checkpoints.local import LocalSource
from ztom.checkpoints.tensors import DTYPES, check_finite, read_header, read_tensor
from ztom.errors import ContentChangedError, TensorFileError
from ztom.settings import Settings

FILE = "model.safetensors"


def source_of(folder: Path, content: bytes) -> LocalSource:
    (folder / FILE).write_bytes(content)
    return LocalSource(str(folder), folder, settings=Settings())


def parse(folder: Path, content: bytes, **limits: int) -> dict[str, object]:
    return dict(read_header(source_of(folder, content), FILE, settings=Settings(**limits)))


def two(a: dict[str, object], b: dict[str, object], size: int) -> bytes:
    return tensor_file({"a": a, "b": b}, b"\0" * size)


@pytest.mark.parametrize("name", sorted(DTYPES))
def test_every_dtype_reads_as_the_library_wrote_it(name: str, tmp_path: Path) -> None:
    dtype = DTYPES[name]
    raw = torch.arange(24, dtype=torch.uint8) % 2
    whole = raw.to(dtype) if dtype.itemsize > 1 or dtype == torch.bool else raw.view(dtype)
    tensors = {"x": whole.reshape(4, 6), "scalar": whole[0].clone(), "none": whole[:0].clone()}
    source = source_of(tmp_path, save(tensors, metadata={"format": "pt"}))
    specs = read_header(source, FILE, settings=Settings())
    assert list(specs) == ["none", "scalar", "x"]
    for key, expected in tensors.items():
        found = read_tensor(source, specs[key])
        assert found.dtype == dtype
        assert found.shape == expected.shape
        assert found.reshape(-1).view(torch.uint8).tolist() == (
            expected.reshape(-1).view(torch.uint8).tolist()
        )


def test_reading_into_a_buffer(tmp_path: Path) -> None:
    expected = torch.randn(3, 5)
    source = source_of(tmp_path, save({"x": expected}))
    spec = read_header(source, FILE, settings=Settings())["x"]
    out = torch.empty(3, 5)
    assert read_tensor(source, spec, out=out) is out
    assert torch.equal(out, expected)
    for wrong in (torch.empty(5, 3), torch.empty(3, 5).half(), torch.empty(5, 3).T):
        with pytest.raises(TensorFileError, match=r"buffer for x"):
            read_tensor(source, spec, out=wrong)


MALFORMED = {
    "empty-file": (b"", "truncated"),
    "only-a-length": (struct.pack("<Q", 2), "truncated"),
    "truncated-data": (tensor_file({"a": entry([2], 0, 8)}, b"\0" * 7), "truncated"),
    "trailing": (tensor_file({"a": entry([2], 0, 8)}, b"\0" * 9), "trailing"),
    "overlap": (two(entry([2], 0, 8), entry([2], 4, 12), 12), "tensor b overlaps"),
    "hole": (two(entry([2], 0, 8), entry([1], 12, 16), 16), "tensor b leaves a hole"),
    "hole-at-start": (tensor_file({"a": entry([1], 4, 8)}, b"\0" * 8), "leaves a hole"),
    "negative-offset": (tensor_file({"a": entry([2], -8, 0)}), "'a': data_offsets"),
    "reversed-offsets": (tensor_file({"a": entry([2], 8, 0)}, b"\0" * 8), "offsets"),
    "negative-shape": (tensor_file({"a": entry([-1, -2], 0, 8)}, b"\0" * 8), "'a': shape"),
    "shape-overflow": (tensor_file({"a": entry([2**62, 8], 0, 0)}), "'a' has an impossible"),
    "overflow-times-zero": (tensor_file({"a": entry([2**62, 8, 0], 0, 0)}), "impossible"),
    "huge-number": (tensor_file({"a": entry([10**30], 0, 4)}, b"\0" * 4), "'a': shape"),
    "endless-number": (
        tensor_file(b'{"a":{"dtype":"F32","shape":[' + b"9" * 9999 + b'],"data_offsets":[0,4]}}'),
        "not valid JSON",
    ),
    "many-dimensions": (tensor_file({"a": entry([1] * 99, 0, 4)}, b"\0" * 4), "'a': shape"),
    "shape-and-bytes": (tensor_file({"a": entry([3], 0, 8)}, b"\0" * 8), "'a': shape and"),
    "fraction": (tensor_file({"a": entry([2.0], 0, 8)}, b"\0" * 8), "not an integer"),  # type: ignore[list-item]
    "boolean": (tensor_file({"a": entry([True], 0, 4)}, b"\0" * 4), "'a': shape"),
    "infinite": (tensor_file(b'{"a":{"shape":[Infinity]}}'), "not an integer"),
    "bad-dtype": (
        tensor_file({"a": entry([2], 0, 8, "F33")}, b"\0" * 8),
        "'a' has an unknown",
    ),
    "dtype-list": (tensor_file({"a": {**entry([0], 0, 0), "dtype": []}}), "unknown dtype"),
    "missing-key": (tensor_file({"a": {"dtype": "F32", "shape": []}}), "'a' is malformed"),
    "extra-key": (tensor_file({"a": {**entry([0], 0, 0), "x": 1}}), "'a' is malformed"),
    "entry-not-an-object": (tensor_file({"a": [1]}), "'a' is malformed"),
    "length-2^63": (struct.pack("<Q", 2**63) + b"{}", "header length is impossible"),
    "length-2^64-1": (b"\xff" * 8 + b"{}", "header length is impossible"),
    "length-past-the-end": (struct.pack("<Q", 3) + b"{}", "header length is impossible"),
    "duplicate-key": (
        tensor_file(
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
            b'"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
            b"\0\0",
        ),
        "'a' is defined twice",
    ),
    "duplicate-key-escaped": (
        tensor_file(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"\\u0061":{}}'),
        "'a' is defined twice",
    ),
    "duplicate-field": (
        tensor_file(b'{"a":{"dtype":"U8","dtype":"I8","shape":[0],"data_offsets":[0,0]}}'),
        "defined twice",
    ),
    "same-range": (two(entry([2], 0, 8), entry([2], 0, 8), 8), "tensor b overlaps"),
    "path-and-newline": (tensor_file({"../x\n": entry([0], 0, 0)}), r"'../x\\n' has a name"),
    "path": (tensor_file({"a/b": entry([0], 0, 0)}), "'a/b' has a name"),
    "backslash": (tensor_file({"a\\b": entry([0], 0, 0)}), "has a name"),
    "dots": (tensor_file({"..": entry([0], 0, 0)}), "has a name"),
    "escape": (tensor_file({"\x1b[2J": entry([0], 0, 0)}), r"'\\x1b\[2J' has a name"),
    "bidirectional": (tensor_file({"a\u202e": entry([0], 0, 0)}), "has a name"),
    "surrogate": (tensor_file(b'{"\\ud800":{"dtype":"U8"}}'), "has a name"),
    "empty": (tensor_file({"": entry([0], 0, 0)}), "has a name"),
    "long": (tensor_file({"a" * 600: entry([0], 0, 0)}), "has a name"),
    "pickle": (b"\x80\x02}q\x00(X\x06\x00\x00\x00weightq\x01.", "looks like a pickle"),
    "zipped-pickle": (b"PK\x03\x04" + b"\0" * 60, "looks like a pickle"),
    "metadata-not-text": (tensor_file({"__metadata__": {"a": 1}}), "__metadata__"),
    "not-utf8": (tensor_file(b'{"\xff\xfe":1}'), "not valid JSON"),
    "not-an-object": (tensor_file(b"[1, 2]"), "not a JSON object"),
    "leading-space": (tensor_file(b" {}"), "not a JSON object"),
    "nested": (tensor_file(b'{"a":' + b"[" * 100_000), "nested too deeply"),
    "many lists": (tensor_file(b'{"a":' + b"[" * 250_000), "at most 200000 are taken"),
    "half-json": (tensor_file(b'{"a":{"dtype":'), "not valid JSON"),
}


@pytest.mark.abuse(11, 12, 14, 15, 25)
@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_file(case: str, tmp_path: Path) -> None:
    content, message = MALFORMED[case]
    with pytest.raises(TensorFileError, match=message) as caught:
        parse(tmp_path, content)
    assert FILE in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.abuse(12)
def test_header_over_the_limit_is_not_read(tmp_path: Path) -> None:
    content = tensor_file({"__metadata__": {"a": "x" * 5000}})
    assert parse(tmp_path, content, max_header_bytes=6000) == {}
    with pytest.raises(TensorFileError, match="header length"):
        parse(tmp_path, content, max_header_bytes=5000)


@pytest.mark.abuse(13)
def test_many_tensors_are_refused_before_parsing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = {f"t{i}": entry([0], 0, 0) for i in range(2000)}
    assert len(parse(tmp_path, tensor_file(header), max_tensors_per_file=2000)) == 2000

    def unreachable(*args: object, **kwargs: object) -> None:
        raise RuntimeError("parsed")

    monkeypatch.setattr("ztom.checkpoints.tensors.parse_json", unreachable)
    with pytest.raises(TensorFileError, match="too many tensors"):
        parse(tmp_path, tensor_file(header), max_tensors_per_file=1000)
    zeros = b'{"a":[' + b"0," * 30_000 + b"0]}"
    with pytest.raises(TensorFileError, match="too many tensors"):
        parse(tmp_path, tensor_file(zeros), max_tensors_per_file=1000)


@pytest.mark.abuse(16)
def test_nan_and_infinity_are_found_wherever_they_are() -> None:
    check_finite(torch.randn(3, 4), "x")
    check_finite(torch.tensor([1, 2]), "ints")
    check_finite(torch.empty(0), "nothing")
    check_finite(torch.full((8,), 3e38), "a sum that overflows")
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        for bad in (float("nan"), float("inf"), -float("inf")):
            tensor = torch.ones(4 * 2**20 + 10, dtype=dtype)
            tensor[-2] = bad
            with pytest.raises(TensorFileError, match="w holds values.*flat index 4194312"):
                check_finite(tensor, "w")
    small = torch.tensor([1.0, float("nan")]).to(torch.float8_e4m3fn)
    with pytest.raises(TensorFileError, match="w holds"):
        check_finite(small, "w")


def test_bool_bytes_other_than_0_and_1_are_refused(tmp_path: Path) -> None:
    source = source_of(tmp_path, tensor_file({"a": entry([2], 0, 2, "BOOL")}, b"\x01\x02"))
    spec = read_header(source, FILE, settings=Settings())["a"]
    with pytest.raises(TensorFileError, match="a is BOOL"):
        read_tensor(source, spec)


@pytest.mark.abuse(30)
def test_truncation_between_header_and_data_is_an_error(tmp_path: Path) -> None:
    source = source_of(tmp_path, save({"x": torch.zeros(1000)}))
    spec = read_header(source, FILE, settings=Settings())["x"]
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-1000])
    with pytest.raises(ContentChangedError):
        read_tensor(source, spec)


names = st.text(max_size=8) | st.sampled_from(["a", "b", "__metadata__", "../x"])
numbers = st.integers(-2, 20) | st.sampled_from([2**31, 2**62, 2**64, 1.5, True, None])
entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from([*DTYPES, "F4", 1, None]),
        "shape": st.lists(numbers, max_size=4) | numbers,
        "data_offsets": st.lists(numbers, max_size=3),
        "more": numbers,
    },
)
headers = st.dictionaries(names, entries | numbers | st.text(max_size=5), max_size=4)
json_bytes = headers.map(lambda header: json.dumps(header).encode())


@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=200)
    | st.builds(tensor_file, json_bytes | st.binary(max_size=60), st.binary(max_size=40))
)
@example(content=tensor_file({"a": entry([5], 0, 5, "U8")}, b"12345"))
@example(content=two(entry([0], 0, 0), entry([1], 0, 4), 4))
def test_any_bytes_are_a_sound_header_or_a_tensor_file_error(
    content: bytes, tmp_path: Path
) -> None:
    source = source_of(tmp_path, content)
    try:
        specs = read_header(source, FILE, settings=Settings())
    except TensorFileError:
        return
    library = {name: bytes(info["data"]) for name, info in deserialize(content)}
    ours = {spec.name: content[spec.offset : spec.offset + spec.nbytes] for spec in specs.values()}
    assert ours == library


@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 400), value=st.integers(0, 255))
def test_a_flipped_byte_never_escapes_as_another_error(
    position: int, value: int, tmp_path: Path
) -> None:
    content = bytearray(save({"a.weight": torch.ones(3, 4), "b.weight": torch.ones(5)}))
    content[position % len(content)] = value
    try:
        parse(tmp_path, bytes(content))
    except TensorFileError:
        return
