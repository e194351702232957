"""The Hugging Face Hub as a place of checkpoints and data, against a stand-in of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_client import go_offline, use_hub
from hub_server import TOKEN, Hub, hub_server
from toy_checkpoints import llama_tensors, write_checkpoint
from toy_variant import write_blend

from ztom.blending.chain import load_chain, pinned
from ztom.blending.chain_file import ChainConfig, Member
from ztom.checkpoints.checkpoint import open_checkpoint
from ztom.checkpoints.storage import open_file
from ztom.errors import CheckpointError, ReferenceRefusedError, StorageError
from ztom.io import hub as hub_module
from ztom.io.hub import fetch_hub_file
from ztom.settings import Settings

SETTINGS = Settings()


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    with hub_server() as hub:
        yield hub


@pytest.fixture
def hub(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    server.repos.clear()
    server.requests.clear()
    use_hub(monkeypatch, server, tmp_path / "hub")
    return server


def add_model(hub: Hub, folder: Path, name: str = "acme/base", seed: int = 0, **flags: bool) -> str:
    write_checkpoint(folder, llama_tensors(seed))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "LICENSE").write_text("free")
    (folder / "pytorch_model.bin").write_bytes(b"never fetched")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    return hub.add_folder(name, folder, **flags)


def test_a_model_is_fetched_and_pinned_by_commit(hub: Hub, tmp_path: Path) -> None:
    commit = add_model(hub, tmp_path / "base")
    opened = open_checkpoint("hf://acme/base", settings=SETTINGS)
    assert opened.reference == f"hf://acme/base@{commit}"
    assert opened.digest == open_checkpoint(str(tmp_path / "base"), settings=SETTINGS).digest
    hub.add("acme/base", {"config.json": b"{}"})  # the branch moves on, what is pinned does not
    again = open_checkpoint(opened.reference, settings=SETTINGS)
    assert again.digest == opened.digest
    assert not any("pytorch_model.bin" in request for request in hub.requests)


def test_what_was_not_fetched_is_named_like_what_is_left_out(hub: Hub, tmp_path: Path) -> None:
    add_model(hub, tmp_path / "base")
    opened = open_checkpoint("hf://acme/base", settings=SETTINGS)
    from ztom.checkpoints.other_files import find_other_files

    others = find_other_files(opened, max_bytes=10**9)
    assert others.kept == ("1_Pooling/config.json", "LICENSE")
    assert others.left_out == {".gitattributes": "hidden", "pytorch_model.bin": "a pickle"}


@pytest.mark.parametrize("written", ["acme/base", "acme/base@main", "hf://acme/base@main"])
def test_a_bare_name_means_the_hub_where_there_is_no_such_path(
    written: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = add_model(hub, tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    opened = open_checkpoint(written, settings=SETTINGS)
    assert opened.reference == f"hf://acme/base@{commit}"
    write_checkpoint(tmp_path / "acme" / "base", llama_tensors(5))
    assert open_checkpoint("acme/base", settings=SETTINGS).reference == "acme/base"


def test_a_folder_of_a_repository(hub: Hub, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "repo" / "step-2")
    commit = hub.add_folder("acme/runs", tmp_path / "repo")
    opened = open_checkpoint("hf://acme/runs@main/step-2", settings=SETTINGS)
    assert opened.reference == f"hf://acme/runs@{commit}/step-2"
    with pytest.raises(StorageError, match="no folder step-3.*It has step-2"):
        open_checkpoint("hf://acme/runs/step-3", settings=SETTINGS)


def test_a_chain_on_the_hub_has_short_tags_and_blends_like_local_ones(
    hub: Hub, tmp_path: Path
) -> None:
    for seed, name in enumerate(("base", "week-1")):
        add_model(hub, tmp_path / name, f"acme/{name}", seed)
    remote = ChainConfig(
        checkpoints=(Member(reference="hf://acme/base"), Member(reference="hf://acme/week-1@main"))
    )
    local = ChainConfig(
        checkpoints=tuple(Member(reference=str(tmp_path / n)) for n in ("base", "week-1"))
    )
    chain = load_chain(remote, settings=SETTINGS)
    assert chain.tags == ("base", "week-1")
    assert chain.digest == load_chain(local, settings=SETTINGS).digest
    assert load_chain(local, settings=SETTINGS).places == ("base", "week-1")
    hub.add("acme/week-1", {"config.json": b"{}"})  # another process opens what was opened here
    again = load_chain(pinned(remote, chain), settings=SETTINGS)
    assert (again.digest, again.places) == (chain.digest, chain.places)
    card = (write_blend(chain, (0.5,), tmp_path / "v") / "README.md").read_text()
    assert all(place in card for place in chain.places)


def test_a_file_of_a_data_set(hub: Hub, tmp_path: Path) -> None:
    commit = hub.add("acme/tickets", {"data/train.jsonl": b'{"prompt": "a"}\n'}, kind="datasets")
    file = fetch_hub_file("hf://datasets/acme/tickets@main/data/train.jsonl")
    assert file.path.read_bytes() == b'{"prompt": "a"}\n'
    assert str(file.address) == f"hf://datasets/acme/tickets@{commit}/data/train.jsonl"
    source, name = open_file("hf://datasets/acme/tickets/data/train.jsonl", settings=SETTINGS)
    assert source.read(name) == b'{"prompt": "a"}\n'
    with pytest.raises(StorageError, match=r"no file data/trian.jsonl.*It has data/train.jsonl"):
        fetch_hub_file("hf://datasets/acme/tickets/data/trian.jsonl")
    with pytest.raises(CheckpointError, match="is a data set"):
        open_checkpoint("hf://datasets/acme/tickets", settings=SETTINGS)


def test_offline_what_is_in_the_cache_is_used(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = add_model(hub, tmp_path / "base")
    hub.add("acme/tickets", {"a.jsonl": b"{}"}, kind="datasets")
    online = open_checkpoint("hf://acme/base", settings=SETTINGS)
    fetch_hub_file("hf://datasets/acme/tickets/a.jsonl")
    go_offline(monkeypatch)
    offline = open_checkpoint("hf://acme/base", settings=SETTINGS)
    assert (offline.reference, offline.digest) == (f"hf://acme/base@{commit}", online.digest)
    assert fetch_hub_file("hf://datasets/acme/tickets/a.jsonl").path.read_bytes() == b"{}"
    with pytest.raises(StorageError, match="HF_HUB_OFFLINE is set"):
        open_checkpoint("hf://acme/other", settings=SETTINGS)
    with pytest.raises(StorageError, match="there is no folder acme/other, and no model"):
        open_checkpoint("acme/other", settings=SETTINGS)


def test_a_hub_that_says_nothing_is_given_up_in_time(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(hub, "silent", True)
    start = time.monotonic()
    with pytest.raises(StorageError, match="cannot be reached.*no answer of http://127"):
        open_checkpoint("hf://acme/base", settings=SETTINGS)
    assert time.monotonic() - start < 2


def test_names_near_what_is_not_there(hub: Hub, tmp_path: Path) -> None:
    add_model(hub, tmp_path / "base")
    with pytest.raises(
        StorageError, match=r"no model acme/bsae.*Did you mean acme/base\?.*HF_TOKEN"
    ):
        open_checkpoint("hf://acme/bsae", settings=SETTINGS)
    with pytest.raises(StorageError, match="no revision mian.*It has main"):
        open_checkpoint("hf://acme/base@mian", settings=SETTINGS)


def test_gated_and_private_models_say_how_to_log_in(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_model(hub, tmp_path / "gated", "acme/gated", gated=True)
    add_model(hub, tmp_path / "private", "acme/private", private=True)
    with pytest.raises(StorageError, match=r"is gated.*401.*Ask for access on http.*hf auth login"):
        open_checkpoint("hf://acme/gated", settings=SETTINGS)
    with pytest.raises(StorageError, match="that you may read.*401.*hf auth login"):
        open_checkpoint("hf://acme/private", settings=SETTINGS)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for name in ("acme/gated", "acme/private"):
        assert open_checkpoint(f"hf://{name}", settings=SETTINGS).kind == "full"


def test_a_model_above_the_limit_is_not_fetched(hub: Hub, tmp_path: Path) -> None:
    add_model(hub, tmp_path / "base")
    with pytest.raises(StorageError, match="too large.*ZTOM_MAX_ARCHIVE_BYTES"):
        open_checkpoint("hf://acme/base", settings=Settings(max_archive_bytes=100))
    assert not any("/resolve/" in request for request in hub.requests)


def test_an_operator_decides_who_may_point_to_the_hub(hub: Hub, tmp_path: Path) -> None:
    add_model(hub, tmp_path / "base")
    for narrow in (Settings(allowed_schemes=("file",)), Settings(allowed_roots=("/models",))):
        for text in ("hf://acme/base", "hf://datasets/acme/base/file"):
            with pytest.raises(ReferenceRefusedError):
                open_checkpoint(text, settings=narrow)
    ours = Settings(allowed_roots=("hf://acme",))
    assert open_checkpoint("hf://acme/base", settings=ours).kind == "full"
    with pytest.raises(ReferenceRefusedError, match="outside the allowed roots"):
        open_checkpoint("hf://others/base", settings=ours)
    assert not any("others" in request for request in hub.requests)
