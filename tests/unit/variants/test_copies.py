"""A copy that is killed at any moment is whole, or is no variant; what is staged does not stay."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from ztom.errors import VariantError
from ztom.io.places import StoreAddress, parse_store_address
from ztom.io.store_files import StoreFiles
from ztom.settings import Settings
from ztom.variants import copies, node_cache
from ztom.variants.copies import copy_variant, remove_variant, staged_copy
from ztom.variants.manifest import MANIFEST, build_manifest, read_manifest, verify_manifest
from ztom.variants.node_cache import local_copy

STORAGE = parse_store_address("memory://bucket/storage")
WRITES = ("put_file", "pipe_file", "cp_file", "rm_file")


class KilledError(BaseException):
    """As a kill: nothing catches it."""


@pytest.fixture(autouse=True)
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    filesystem.rm("/", recursive=True)
    node_cache._held.clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "variant"
    folder.mkdir()
    for name in ("model-1.safetensors", "model-2.safetensors", "config.json"):
        (folder / name).write_bytes(name.encode() * 10)
    (folder / MANIFEST).write_bytes(build_manifest(folder).to_bytes())
    return folder


def killed_at(monkeypatch: pytest.MonkeyPatch, memory: Any, call: int) -> None:
    """Have the process die at its so many-th change of the store, before it takes effect."""
    left = [call]

    def dying(name: str) -> Any:
        real = getattr(type(memory), name)

        def write(self: Any, *arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise KilledError
            return real(self, *arguments, **options)

        return write

    for name in WRITES:
        monkeypatch.setattr(type(memory), name, dying(name))


@pytest.mark.parametrize("call", range(12))
def test_a_killed_copy_is_whole_or_nothing(
    call: int,
    folder: Path,
    tmp_path: Path,
    memory: fsspec.AbstractFileSystem,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Weights are staged, proved, published within the store, and another copy is removed."""
    settings = Settings(cache_dir=tmp_path / "cache")
    to, old = STORAGE / "to", STORAGE / "old"
    copy_variant(folder, old)
    with monkeypatch.context() as patch:
        killed_at(patch, memory, call)
        try:
            with staged_copy(folder, STORAGE) as staged:
                copy_variant(folder, to, staged=staged)
            remove_variant(old)
        except KilledError:
            pass
    for place in (to, old):
        try:
            manifest = read_manifest(place)
        except VariantError:
            continue
        assert verify_manifest(local_copy(place, settings=settings)) == manifest
    copy_variant(folder, to)  # what a killed one left is no obstacle
    assert read_manifest(to) == read_manifest(folder)


def test_what_is_staged_is_copied_within_the_store(
    folder: Path, memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []
    put = type(memory).put_file
    with staged_copy(folder, STORAGE) as staged:
        monkeypatch.setattr(
            type(memory),
            "put_file",
            lambda self, source, to, **options: sent.append(to) or put(self, source, to, **options),
        )
        copy_variant(folder, STORAGE / "to", staged=staged)
    assert sent == []
    assert {name.partition("/")[0] for name in StoreFiles(STORAGE).names()} == {"to"}


def test_what_killed_processes_staged_is_swept_after_a_week(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = StoreFiles(STORAGE / "staging")
    for name in ("20200101T000000-aa/w", "29990101T000000-bb/w", "notes/w"):
        shelf.write(name, b"x")
    with staged_copy(folder, STORAGE):
        pass
    assert shelf.names() == ["29990101T000000-bb/w", "notes/w"]


def test_on_a_shared_disk_weights_are_staged_beside_the_others(
    folder: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    with staged_copy(folder, disk) as staged:
        assert isinstance(staged.place, Path)
        assert staged.place.parent == disk / copies.STAGING
        assert build_manifest(staged.place) == staged.manifest
    assert list((disk / copies.STAGING).iterdir()) == []
    copy_variant(folder, disk / "v")
    copy_variant(folder, disk / "v")
    assert verify_manifest(disk / "v") == read_manifest(folder)
    with staged_copy(disk / "v", disk) as there:
        assert there.place == disk / "v"  # it is on the disk already


def test_an_address_is_never_replaced(folder: Path, tmp_path: Path) -> None:
    to: StoreAddress = STORAGE / "to"
    copy_variant(folder, to)
    (folder / "config.json").write_bytes(b"{}")
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).write_bytes(build_manifest(folder).to_bytes())
    with pytest.raises(VariantError, match="another variant stands at memory://bucket/storage/to"):
        copy_variant(folder, to)
