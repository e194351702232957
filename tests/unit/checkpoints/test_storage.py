"""Local folders as sources: read in place, links checked, changes noticed."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import pytest

from ztom.checkpoints.storage import open_source
from ztom.errors import CheckpointError, ContentChangedError, ReferenceRefusedError, StorageError
from ztom.settings import Settings

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        allowed_roots=(str(tmp_path), "memory://", "gs://", "s3://"),
        cache_dir=tmp_path / "cache",
        storage_retries=3,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint"
    path.mkdir()
    (path / "b.bin").write_bytes(CONTENT)
    (path / "a.json").write_text("{}")
    return path


def test_local_folder_is_read_in_place(folder: Path, settings: Settings) -> None:
    (folder / ".hidden").write_text("x")
    (folder / "odd\nname").write_text("x")
    (folder / "sub").mkdir()
    source = open_source(f"file://{folder}", settings=settings)
    assert source.names() == ["a.json", "b.bin"]
    assert source.local_folder() == folder
    assert source.size("b.bin") == len(CONTENT)
    assert source.read("b.bin", 5, 7) == CONTENT[5:12]
    assert source.read("b.bin", len(CONTENT) - 3) == CONTENT[-3:]
    buffer = bytearray(10)
    source.read_into("b.bin", 100, memoryview(buffer))
    assert bytes(buffer) == CONTENT[100:110]
    assert source.sha256("b.bin") == hashlib.sha256(CONTENT).hexdigest()
    assert source.generation("b.bin") is None


def test_sources_survive_pickling(folder: Path, settings: Settings) -> None:
    source = pickle.loads(pickle.dumps(open_source(str(folder), settings=settings)))
    assert source.read("a.json") == b"{}"


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "..", ".", "", "sub/x", "a\0b"])
def test_names_that_are_paths_are_refused(name: str, folder: Path, settings: Settings) -> None:
    with pytest.raises(ReferenceRefusedError):
        open_source(str(folder), settings=settings).read(name)


@pytest.mark.abuse(38)
def test_link_that_leads_out_is_refused(folder: Path, tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "secret.json").write_text("{}")
    (folder / "c.json").symlink_to(tmp_path / "secret.json")
    source = open_source(str(folder), settings=settings)
    with pytest.raises(ReferenceRefusedError, match=r"c\.json is a link"):
        source.names()
    with pytest.raises(ReferenceRefusedError):
        source.read("c.json")


def test_links_within_the_folder_and_of_a_hub_cache_are_followed(
    tmp_path: Path, settings: Settings
) -> None:
    repo = tmp_path / "models--org--name"
    (repo / "blobs").mkdir(parents=True)
    (repo / "snapshots" / "abc").mkdir(parents=True)
    (repo / "blobs" / "0123").write_text("hub")
    (repo / "snapshots" / "abc" / "config.json").symlink_to("../../blobs/0123")
    (repo / "snapshots" / "abc" / "same.json").symlink_to("config.json")
    source = open_source(str(repo / "snapshots" / "abc"), settings=settings)
    assert source.names() == ["config.json", "same.json"]
    assert source.read("same.json") == b"hub"


def test_fifo_and_folder_are_not_files(folder: Path, settings: Settings) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "sub").mkdir()
    source = open_source(str(folder), settings=settings)
    assert source.names() == ["a.json", "b.bin"]
    for name in ("pipe", "sub"):
        with pytest.raises(CheckpointError, match="not a regular file"):
            source.read(name)


def test_missing_places_say_so(tmp_path: Path, settings: Settings) -> None:
    for reference in ("absent", "absent.tar", "absent.tar.gz"):
        with pytest.raises(StorageError, match="there is no"):
            open_source(str(tmp_path / reference), settings=settings)
    with pytest.raises(StorageError):
        open_source("memory://absent", settings=settings).names()


@pytest.mark.abuse(30)
def test_a_file_truncated_while_open_is_an_error_not_a_signal(
    folder: Path, settings: Settings
) -> None:
    source = open_source(str(folder), settings=settings)
    assert source.size("b.bin") == len(CONTENT)
    os.truncate(folder / "b.bin", 100)
    with pytest.raises(ContentChangedError, match=r"b\.bin changed"):
        source.read_into("b.bin", 0, memoryview(bytearray(len(CONTENT))))


@pytest.mark.abuse(39)
def test_a_file_that_was_replaced_is_noticed(folder: Path, settings: Settings) -> None:
    source = open_source(str(folder), settings=settings)
    source.sha256("b.bin")
    (folder / "new").write_bytes(CONTENT)
    os.replace(folder / "new", folder / "b.bin")
    for use in (source.sha256, source.size, source.read):
        with pytest.raises(ContentChangedError):
            use("b.bin")


def test_reading_past_the_end_is_an_error(folder: Path, settings: Settings) -> None:
    source = open_source(str(folder), settings=settings)
    with pytest.raises(StorageError, match="ends too early"):
        source.read("b.bin", 10, len(CONTENT))
    with pytest.raises(StorageError, match="ends too early"):
        source.read_into("b.bin", len(CONTENT) - 1, memoryview(bytearray(2)))
