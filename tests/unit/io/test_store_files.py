"""Objects of a store: whole or not there, and addresses that are no paths."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from ztom.errors import ConfigError, NothingThereError, StorageError
from ztom.io.files import read_place, remove_place, write_document, write_whole
from ztom.io.places import StoreAddress, is_store_address, parse_place, parse_store_address
from ztom.io.store_files import StoreFiles, require_writable_store

ADDRESS = parse_store_address("memory://bucket/folder")


@pytest.fixture(autouse=True)
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    filesystem.rm("/", recursive=True)


@pytest.mark.parametrize("text", ["gs://b/a", "s3://b/a/c d", "memory://x", Path("gs://b/a")])
def test_an_address_is_itself_again(text: str | Path) -> None:
    place = parse_place(text)
    assert isinstance(place, StoreAddress)
    assert is_store_address(text)
    assert str(place) == str(text).replace(":/b", "://b")
    assert str(place.absolute() / "x/y.json") == f"{place}/x/y.json"
    assert (place / "x").name == "x"
    assert (place / "x").parent == place


@pytest.mark.parametrize("text", ["runs/a", "/tmp/x", "a:b", "../x"])
def test_a_path_stays_one(text: str) -> None:
    assert parse_place(text) == Path(text)
    assert not is_store_address(text)


@pytest.mark.parametrize(
    "text",
    [
        *("gs://", "gs://b/../x", "gs://b//x", "gs://b/x#1", "gs://b/%2e", "gs://b/x?y"),
        *("s3://b\\x", "s3://b/x\n", "s3://k:s/b/*", "file:///tmp/x", "abfs://b/x"),
    ],
)
def test_what_a_store_would_interpret_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_place(text)


def test_no_path_is_made_of_an_address_by_mistake() -> None:
    with pytest.raises(TypeError):
        os.fspath(ADDRESS)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        Path(ADDRESS)  # type: ignore[arg-type]


def test_documents_go_to_a_store_as_to_a_folder(tmp_path: Path) -> None:
    for folder in (ADDRESS, tmp_path / "folder"):
        place = write_document(folder / "a.json", "{}")
        assert read_place(place) == b"{}"
        write_whole(place, "[]")
        assert read_place(place) == b"[]"
        for _ in range(2):
            remove_place(place)
        with pytest.raises(FileNotFoundError):
            read_place(place)


def test_a_folder_of_a_store_is_listed_copied_and_cleared(tmp_path: Path) -> None:
    files = StoreFiles(ADDRESS)
    assert files.names() == files.folders() == []
    (tmp_path / "w").write_bytes(b"weights")
    files.put("a/w", tmp_path / "w")
    files.write("manifest.json", b"{}")
    other = StoreFiles(ADDRESS / "other")
    other.copy("w", files, "a/w")
    assert files.names() == ["a/w", "manifest.json", "other/w"]
    assert files.folders() == ["a", "other"]
    assert (other.read("w"), other.size("w"), other.exists("w")) == (b"weights", 7, True)
    with pytest.raises(NothingThereError, match=r"memory://bucket/folder/none cannot be read"):
        files.read("none")
    files.clear(first="manifest.json")
    assert files.names() == []
    assert not other.exists("w")


def test_what_says_that_a_folder_is_whole_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    files, removed = StoreFiles(ADDRESS), []
    for name in ("a", "manifest.json", "z"):
        files.write(name, b"x")
    monkeypatch.setattr(files, "remove", removed.append)
    files.clear(first="manifest.json")
    assert removed == ["manifest.json", "a", "z"]


def test_a_store_that_cannot_be_written_is_refused_before_work(
    monkeypatch: pytest.MonkeyPatch, memory: fsspec.AbstractFileSystem
) -> None:
    require_writable_store(ADDRESS, what="the output")
    assert StoreFiles(ADDRESS).names() == []

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("Forbidden: no such right")

    monkeypatch.setattr(type(memory), "pipe_file", refuse)
    with pytest.raises(StorageError, match=r"the output cannot be written: .*no such right"):
        require_writable_store(ADDRESS, what="the output")
