"""The real clients of object stores, against a server that fails on demand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from object_stores import ObjectStore, serve

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
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """The real gcsfs and s3fs, talking to a server of ours."""
    with serve({"m/b.bin": CONTENT, "m/a.json": b"{}", "m/sub/c": b"x"}) as served:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", served.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL", served.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.filesystem("gs").clear_instance_cache()
        fsspec.filesystem("s3").clear_instance_cache()
        yield served


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_real_clients_read_in_place_and_pin(
    scheme: str, store: ObjectStore, settings: Settings
) -> None:
    source = open_source(f"{scheme}://bucket/m", settings=settings)
    assert source.names() == ["a.json", "b.bin"]
    assert source.size("b.bin") == len(CONTENT)
    assert source.read("b.bin", 11, 300) == CONTENT[11:311]
    assert source.sha256("b.bin") == hashlib.sha256(CONTENT).hexdigest()
    assert source.generation("b.bin")
    store.replace("m/b.bin", CONTENT[::-1])
    for use in (source.read, source.generation, source.sha256):
        with pytest.raises(ContentChangedError):
            use("b.bin")


@pytest.mark.abuse(61)
@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_partial_answers_of_real_clients_are_read_again(
    scheme: str, store: ObjectStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_client.time, "sleep", lambda wait_s: None)
    source = open_source(f"{scheme}://bucket/m", settings=settings)
    store.short_reads = 2
    assert source.read("b.bin") == CONTENT
    store.short_reads = 100
    with pytest.raises(StorageError, match="cannot be read"):
        source.read("b.bin")


@pytest.mark.abuse(61)
@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_real_clients_recover_from_503(scheme: str, store: ObjectStore, settings: Settings) -> None:
    source = open_source(f"{scheme}://bucket/m", settings=settings)
    store.failures = [503]
    assert source.read("b.bin") == CONTENT
    assert store.failures == []
