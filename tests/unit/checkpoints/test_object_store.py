"""Checkpoints in object stores: what is retried, and for how long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from ztom.checkpoints.storage import open_source
from ztom.errors import ContentChangedError, StorageError
from ztom.io import store_client
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
def memory() -> Iterator[MemoryFileSystem]:
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    yield filesystem
    filesystem.store.clear()


def test_memory_store_is_read_and_pinned(memory: MemoryFileSystem, settings: Settings) -> None:
    memory.pipe("/bucket/m/b.bin", CONTENT)
    memory.pipe("/bucket/m/sub/c.bin", b"nested")
    source = open_source("memory://bucket/m/", settings=settings)
    assert source.names() == ["b.bin"]
    assert source.read("b.bin", 3, 4) == CONTENT[3:7]
    assert source.local_folder() is None
    first = source.generation("b.bin")
    assert first is not None
    memory.pipe("/bucket/m/b.bin", CONTENT[::-1])
    for use in (source.read, source.generation, source.sha256):
        with pytest.raises(ContentChangedError, match=r"b\.bin changed in the store"):
            use("b.bin")


class FlakyMemory(MemoryFileSystem):
    """A store whose next calls fail as ``failures`` says; an int shortens the bytes by as many."""

    cachable = False
    failures: list[Exception | int] = []

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **kwargs: object
    ):
        failure = self.failures.pop(0) if self.failures else 0
        if isinstance(failure, Exception):
            raise failure
        data = super().cat_file(path, start=start, end=end, **kwargs)
        return data[: len(data) - failure]


class HttpStatusError(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"status {code}")
        self.code = code


@pytest.fixture
def flaky(
    memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[list[Exception | int], list[float]]]:
    """A registered store of failures, and the waits between the attempts."""
    failures: list[Exception | int] = []
    waits: list[float] = []
    monkeypatch.setattr(FlakyMemory, "failures", failures)
    monkeypatch.setattr(store_client.time, "sleep", waits.append)
    memory.pipe("/bucket/m/b.bin", CONTENT)
    fsspec.register_implementation("memory", FlakyMemory, clobber=True)
    yield failures, waits
    fsspec.register_implementation("memory", MemoryFileSystem, clobber=True)


@pytest.mark.abuse(61)
@pytest.mark.parametrize(
    "failure",
    [HttpStatusError(503), HttpStatusError(429), ConnectionResetError(), TimeoutError(), 7],
    ids=["503", "429", "reset", "timeout", "partial"],
)
def test_a_failure_that_passes_is_retried(
    failure: Exception | int,
    flaky: tuple[list[Exception | int], list[float]],
    settings: Settings,
) -> None:
    failures, waits = flaky
    failures[:] = [failure, failure]
    assert open_source("memory://bucket/m", settings=settings).read("b.bin") == CONTENT
    assert len(waits) == 2


@pytest.mark.abuse(61)
@pytest.mark.parametrize("failure", [HttpStatusError(503), 1], ids=["503", "partial"])
def test_retries_are_bounded(
    failure: Exception | int,
    flaky: tuple[list[Exception | int], list[float]],
    settings: Settings,
) -> None:
    failures, waits = flaky
    failures[:] = [failure] * 100
    with pytest.raises(StorageError, match=r"b\.bin cannot be read.*4 attempt"):
        open_source("memory://bucket/m", settings=settings).read("b.bin")
    assert len(waits) == settings.storage_retries
    assert all(0 < wait_s <= 8 for wait_s in waits)


@pytest.mark.parametrize("failure", [HttpStatusError(403), PermissionError("no"), KeyError("bug")])
def test_a_failure_that_stays_is_not_retried(
    failure: Exception,
    flaky: tuple[list[Exception | int], list[float]],
    settings: Settings,
) -> None:
    failures, waits = flaky
    failures[:] = [failure]
    with pytest.raises(StorageError):
        open_source("memory://bucket/m", settings=settings).read("b.bin")
    assert waits == []
