"""Data sets, suites, results and verdicts of a store, where a path is taken."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from gate_repository import make_locked

from ztom.client.verdicts import read_verdict
from ztom.errors import ConfigError, NothingThereError, StorageError
from ztom.evaluation.suites.discover import read_suites
from ztom.evaluation.suites.lock import load_locked
from ztom.io import store_fetch
from ztom.io.places import parse_store_address
from ztom.io.store_fetch import here
from ztom.io.store_files import StoreFiles
from ztom.search.config_files import parse_config
from ztom.search.inputs import require_inputs
from ztom.settings import Settings
from ztom.stimuli.files import read_stimuli

BUCKET = "memory://team"


@pytest.fixture(autouse=True)
def store() -> Iterator[StoreFiles]:
    store_fetch._fetched.cache_clear()
    yield StoreFiles(parse_store_address(BUCKET))
    fsspec.filesystem("memory").rm("/", recursive=True)


def test_a_data_set_is_read_from_a_store(store: StoreFiles, tmp_path: Path) -> None:
    store.write("data/s.jsonl", b'{"prompt": "a b c", "expected": "d"}')
    [stimulus] = read_stimuli(f"{BUCKET}/data/s.jsonl")
    assert stimulus.expected == "d"
    content = {"chain": {"checkpoints": ["hf://a/b", "hf://a/c"]}, "error": "rouge_l"}
    there = parse_config({**content, "stimuli": f"{BUCKET}/data/s.jsonl"}, folder=tmp_path)
    assert there.stimuli == f"{BUCKET}/data/s.jsonl"
    require_inputs(there, settings=Settings())
    missing = parse_config({**content, "stimuli": f"{BUCKET}/data/no.jsonl"}, folder=tmp_path)
    with pytest.raises(NothingThereError, match=f"{BUCKET}/data/no.jsonl does not exist"):
        require_inputs(missing, settings=Settings())
    with pytest.raises(ConfigError, match="no address of a store"):
        parse_config({**content, "stimuli": f"{BUCKET}/../s.jsonl"}, folder=tmp_path)


def test_suites_are_read_from_a_store(store: StoreFiles, tmp_path: Path) -> None:
    folder = make_locked(tmp_path / "suites", "medical")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.put(f"suites/medical/{path.relative_to(folder)}", path)
    content = {"chain": "c.yaml", "stimuli": "s.txt", "error": "rouge_l"}
    config = parse_config({**content, "suites": [f"{BUCKET}/suites"]}, folder=tmp_path)
    for roots in (config.suites, [Path(f"{BUCKET}/suites")]):
        [suite] = read_suites(roots, read=load_locked)
        assert suite.suite.config.name == "medical"


def test_a_verdict_is_read_from_a_store(store: StoreFiles) -> None:
    store.write("verdict.json", json.dumps({"outcome": "pass"}).encode())
    assert read_verdict(Path(f"{BUCKET}/verdict.json")) == {"outcome": "pass"}
    with pytest.raises(ConfigError, match="cannot be read"):
        read_verdict(f"{BUCKET}/none.json")


def test_it_is_fetched_once_and_not_without_bound(
    store: StoreFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write("a/x", b"123")
    assert here(Path("local")) == Path("local")
    assert here(f"{BUCKET}/a") == here(f"{BUCKET}/a")
    with pytest.raises(NothingThereError):
        here(f"{BUCKET}/nothing")
    monkeypatch.setattr(store_fetch, "MAX_BYTES", 2)
    with pytest.raises(StorageError, match="holds too much"):
        here(f"{BUCKET}/a/x")
