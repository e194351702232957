"""Checkpoints that an engine needs as a local folder: copied whole, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
from toy_checkpoints import llama_tensors, write_checkpoint

from ztom.checkpoints.checkpoint import open_checkpoint
from ztom.checkpoints.fetch import fetch_folder
from ztom.checkpoints.source import Source
from ztom.errors import (
    ContentChangedError,
    StorageError,
)
from ztom.settings import Settings

SHARD = "model-00001-of-00002.safetensors"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache_dir=tmp_path / "cache", storage_retries=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint"


@pytest.fixture
def memory() -> Iterator[Callable[[Path], str]]:
    """Puts a folder into the memory store and gives its address."""
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()

    def put(folder: Path) -> str:
        for file in folder.iterdir():
            filesystem.pipe(f"/bucket/{folder.name}/{file.name}", file.read_bytes())
        return f"memory://bucket/{folder.name}"

    yield put
    filesystem.store.clear()


def test_a_local_folder_is_fetched_by_being_there(folder: Path, settings: Settings) -> None:
    write_checkpoint(folder)
    assert fetch_folder(open_checkpoint(str(folder), settings=settings), None, settings) == folder


def test_a_remote_checkpoint_is_fetched_once_and_mended(
    folder: Path, tmp_path: Path, settings: Settings, memory: Callable[[Path], str]
) -> None:
    write_checkpoint(folder, shards=2)
    checkpoint = open_checkpoint(memory(folder), settings=settings)
    copy = fetch_folder(checkpoint, None, settings)
    assert copy == tmp_path / "cache" / "checkpoints" / checkpoint.digest
    assert open_checkpoint(str(copy), settings=settings).digest == checkpoint.digest
    first = (copy / SHARD).stat().st_ino
    assert fetch_folder(checkpoint, None, settings) == copy
    assert (copy / SHARD).stat().st_ino == first
    (copy / SHARD).write_bytes(b"damaged")
    fetch_folder(checkpoint, None, settings)
    assert open_checkpoint(str(copy), settings=settings).digest == checkpoint.digest
    assert fetch_folder(checkpoint, tmp_path / "mine", settings).parent == tmp_path / "mine"
    assert [path.name for path in copy.parent.iterdir()] == [checkpoint.digest]


@pytest.mark.abuse(39)
def test_content_that_changes_while_it_is_fetched_is_not_kept(
    folder: Path, tmp_path: Path, settings: Settings, memory: Callable[[Path], str]
) -> None:
    write_checkpoint(folder)
    checkpoint = open_checkpoint(memory(folder), settings=settings)
    assert checkpoint.digest
    write_checkpoint(folder, llama_tensors(1))
    memory(folder)
    with pytest.raises(ContentChangedError):
        fetch_folder(checkpoint, None, settings)
    assert list((tmp_path / "cache" / "checkpoints").iterdir()) == []


class TornSource:
    """A source whose bytes are not those that it gave digests for."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return self._source.read(name, offset, length)[::-1]


@pytest.mark.abuse(39)
def test_a_copy_with_another_digest_is_not_kept(
    folder: Path, tmp_path: Path, settings: Settings, memory: Callable[[Path], str]
) -> None:
    write_checkpoint(folder)
    checkpoint = open_checkpoint(memory(folder), settings=settings)
    torn = replace(checkpoint, source=TornSource(checkpoint.source))
    with pytest.raises(ContentChangedError, match="while it was copied"):
        fetch_folder(torn, None, settings)
    assert list((tmp_path / "cache" / "checkpoints").iterdir()) == []


@pytest.mark.abuse(59)
def test_a_full_disk_leaves_nothing_behind(
    folder: Path,
    tmp_path: Path,
    settings: Settings,
    memory: Callable[[Path], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_checkpoint(folder)
    checkpoint = open_checkpoint(memory(folder), settings=settings)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(StorageError, match="No space left"):
            fetch_folder(checkpoint, None, settings)
    assert list((tmp_path / "cache" / "checkpoints").iterdir()) == []
    assert fetch_folder(checkpoint, None, settings).is_dir()
