"""Variants of stores on one machine: fetched once, whole, bounded, shared, not hashed again."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from ztom.errors import StorageError, VariantError
from ztom.io.places import StoreAddress, parse_store_address
from ztom.io.store_files import StoreFiles
from ztom.settings import Settings
from ztom.variants import manifest as manifests
from ztom.variants import node_cache
from ztom.variants.copies import copy_variant, staged_copy
from ztom.variants.manifest import MANIFEST, STAGED, Manifest, build_manifest, read_manifest
from ztom.variants.node_cache import NodeCache, local_copy
from ztom.variants.verified import verified_manifest


@pytest.fixture(autouse=True)
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    filesystem.rm("/", recursive=True)
    node_cache._held.clear()


def settings(tmp_path: Path, nbytes: int = 10_000) -> Settings:
    return Settings(cache_dir=tmp_path / "cache", node_cache_bytes=nbytes)


def variant(tmp_path: Path, name: str, weights: bytes, shared: bytes = b"tokenizer") -> Path:
    folder = tmp_path / name
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "1_Pooling" / "config.json").write_bytes(shared)
    (folder / MANIFEST).write_bytes(build_manifest(folder).to_bytes())
    return folder


def stored(tmp_path: Path, name: str, weights: bytes) -> StoreAddress:
    place = parse_store_address(f"memory://bucket/{name}")
    copy_variant(variant(tmp_path, name, weights), place)
    return place


def fetched(place: StoreAddress, tmp_path: Path, nbytes: int = 10_000) -> Path:
    return local_copy(place, settings=settings(tmp_path, nbytes))


def let_go(folder: Path) -> None:
    """As the end of the process that used it would."""
    node_cache._held.pop(folder).close()


def test_a_variant_is_fetched_once_and_not_hashed_again(
    tmp_path: Path, memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = stored(tmp_path, "a", b"weights")
    folder = fetched(place, tmp_path)
    assert manifests.verify_manifest(folder) == read_manifest(place)
    assert int((folder / MANIFEST).stat().st_mtime) == int(StoreFiles(place).modified_s(MANIFEST))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it is read again")

    monkeypatch.setattr(manifests, "file_digest", refuse)
    memory.rm("/bucket/a/model.safetensors")
    assert fetched(place, tmp_path) == folder
    assert verified_manifest(folder, settings=settings(tmp_path)) == read_manifest(place)


def test_a_file_that_two_variants_share_is_there_once(tmp_path: Path) -> None:
    first = fetched(stored(tmp_path, "a", b"1" * 100), tmp_path)
    second = fetched(stored(tmp_path, "b", b"2" * 100), tmp_path)
    name = "1_Pooling/config.json"
    assert os.path.samefile(first / name, second / name)
    assert NodeCache(settings(tmp_path)).nbytes == 200 + len(b"tokenizer")


def test_what_is_proved_costs_nothing_when_it_is_published(tmp_path: Path) -> None:
    folder = variant(tmp_path, "a", b"w" * 50)
    storage = parse_store_address("memory://bucket/storage")
    with staged_copy(folder, storage) as staged:
        assert isinstance(staged.place, StoreAddress)
        proved = local_copy(staged.place, settings=settings(tmp_path), name=STAGED)
        assert not (proved / MANIFEST).exists()
        copy_variant(folder, "memory://bucket/a", staged=staged)
    assert StoreFiles(storage).names() == []
    served = fetched(parse_store_address("memory://bucket/a"), tmp_path)
    assert os.path.samefile(proved / "model.safetensors", served / "model.safetensors")
    assert manifests.verify_manifest(served) == read_manifest(folder)  # with its papers


def test_the_longest_unused_makes_way_and_what_is_used_stays(tmp_path: Path) -> None:
    places = {name: stored(tmp_path, name, name.encode() * 100) for name in "abcd"}
    folders = {name: fetched(places[name], tmp_path, 320) for name in "abc"}
    for number, name in enumerate("abc"):
        lock = tmp_path / "cache/node/locks" / folders[name].name
        os.utime(lock, (number, number))
    let_go(folders["b"])
    let_go(folders["c"])
    folders["d"] = fetched(places["d"], tmp_path, 320)
    assert {name for name, folder in folders.items() if folder.exists()} == {"a", "c", "d"}
    assert NodeCache(settings(tmp_path, 320)).nbytes <= 320


def test_no_room_is_said_with_what_to_raise(tmp_path: Path) -> None:
    used = fetched(stored(tmp_path, "a", b"a" * 100), tmp_path, 150)
    with pytest.raises(StorageError, match="ZTOM_NODE_CACHE_BYTES"):
        fetched(stored(tmp_path, "b", b"b" * 100), tmp_path, 150)
    assert (used / "model.safetensors").read_bytes() == b"a" * 100


def test_what_is_not_its_manifests_content_is_never_there(
    tmp_path: Path, memory: fsspec.AbstractFileSystem
) -> None:
    place = stored(tmp_path, "a", b"weights")
    memory.pipe_file("/bucket/a/model.safetensors", b"WEIGHTS")
    with pytest.raises(VariantError, match=r"model.safetensors is not what the manifest says"):
        fetched(place, tmp_path)
    left = [p for p in (tmp_path / "cache/node/folders").rglob("*") if p.is_file()]
    assert left == []


def test_an_address_without_a_manifest_is_no_variant(
    tmp_path: Path, memory: fsspec.AbstractFileSystem
) -> None:
    place = stored(tmp_path, "a", b"weights")
    memory.rm(f"/bucket/a/{MANIFEST}")
    with pytest.raises(VariantError, match="is not a variant: got no readable manifest.json"):
        fetched(place, tmp_path)


def test_another_process_waits_while_one_fetches(tmp_path: Path) -> None:
    """The store is this process's own, so that the other can only take what is there by then."""
    place = stored(tmp_path, "a", b"weights")
    digest = read_manifest(place).digest
    folder = fetched(place, tmp_path)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    other = context.Process(target=_use, args=(place, read_manifest(place), tmp_path, answers))
    other.start()
    assert answers.get(timeout=20) == str(folder)
    other.join(20)
    assert folder.name == digest


def _use(place: StoreAddress, manifest: Manifest, tmp_path: Path, answers: object) -> None:
    node_cache._held.clear()
    answers.put(str(NodeCache(settings(tmp_path)).folder(place, manifest)))  # type: ignore[attr-defined]


def test_a_changed_file_of_a_folder_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = variant(tmp_path, "a", b"weights")
    reads = []
    digest = manifests.file_digest
    monkeypatch.setattr(manifests, "file_digest", lambda path: reads.append(path) or digest(path))
    for _ in range(3):
        verified_manifest(folder, settings=settings(tmp_path))
    assert len(reads) == 2
    (folder / "model.safetensors").write_bytes(b"WEIGHTS")
    with pytest.raises(VariantError, match=r"changed model.safetensors"):
        verified_manifest(folder, settings=settings(tmp_path))
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "extra").touch()
    with pytest.raises(VariantError, match="extra extra"):
        verified_manifest(folder, settings=settings(tmp_path))
