"""A variant goes to the Hub and comes back: the card, the commit, what is let be and what not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_client import go_offline, use_hub
from hub_server import TOKEN, Hub, hub_server
from huggingface_hub import ModelCard, hf_hub_download, snapshot_download
from toy_checkpoints import llama_tensors, write_checkpoint
from toy_variant import open_chain, with_recipe, write_blend

from ztom.blending.chain import load_chain
from ztom.blending.chain_file import ChainConfig
from ztom.errors import ConfigError, StorageError, VariantError
from ztom.settings import Settings
from ztom.variants.manifest import check_files, verify_manifest
from ztom.variants.place import hub_name, local_variant
from ztom.variants.push import push_variant
from ztom.variants.recipe import SearchEvidence, read_recipe
from ztom.variants.verify import verify_variant

EVIDENCE = SearchEvidence(
    study="support",
    config_digest="0" * 64,
    data_digests={"holdout": "1" * 64},
    error=[{"function": "exact_match", "weight": 1.0}],
    seed=0,
    sampler="gp",
    trials_digest="2" * 64,
    number_of_inferences=50,
    search_errors=(0.4, 0.3),
    holdout_errors=(0.42, 0.33),
    verdict={
        "outcome": "improved",
        "reasons": ["better on the holdout"],
        "improvement": {
            "estimate": 0.09, "low": 0.02, "high": 0.16, "confidence": 0.95, "groups": 40,
        },
    },
    insisted=False,
    versions={},
)  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    with hub_server() as hub:
        yield hub


@pytest.fixture
def hub(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    server.repos.clear()
    server.requests.clear()
    use_hub(monkeypatch, server, tmp_path / "hub", token=TOKEN)
    return server


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A variant with a proof, of two local checkpoints; its files say MIT."""
    folder = tmp_path_factory.mktemp("variant")
    members = [write_checkpoint(folder / str(i), llama_tensors(i)) for i in range(2)]
    (members[1] / "LICENSE").write_text(
        "MIT License\n\nPermission is hereby granted, free of\ncharge"
    )
    (members[1] / "1_Pooling").mkdir()
    (members[1] / "1_Pooling" / "config.json").write_text("{}")
    plain = write_blend(open_chain(members), (0.1,), folder / "plain")
    return with_recipe(plain, folder / "variant", evidence=EVIDENCE)


@pytest.fixture
def variant(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "variant"))


def test_what_was_pushed_comes_back_whole(hub: Hub, variant: Path, tmp_path: Path) -> None:
    pushed = push_variant(variant, "acme/support")
    assert (
        str(pushed.address)
        == f"hf://acme/support@{hub.repos['models', 'acme/support'].refs['main']}"
    )
    for text in ("hf://acme/support", str(pushed.address), "acme/support"):
        back = local_variant(text)
        assert verify_manifest(back).digest == pushed.digest
        assert check_files(back).tolerated == ("README.md (edited)",)
        assert verify_variant(back, share=1, settings=Settings()).rederived > 0
    assert hub_name("hf://acme/support@main") == "support"
    local = Path(snapshot_download("acme/support", local_dir=tmp_path / "local"))
    assert check_files(local).tolerated == (".cache/", ".gitattributes", "README.md (edited)")


def test_a_variant_on_the_hub_is_a_member_of_a_chain(hub: Hub, variant: Path) -> None:
    pushed = push_variant(variant, "acme/support")
    config = ChainConfig.model_validate({"checkpoints": ["hf://acme/support", str(variant)]})
    chain = load_chain(config, settings=Settings())
    assert chain.members[0].reference == str(pushed.address)
    assert chain.members[0].digest == chain.members[1].digest


def test_the_card_says_what_the_hub_reads(hub: Hub, variant: Path) -> None:
    push_variant(variant, "acme/support", base_model="acme/base")
    card = ModelCard.load(hf_hub_download("acme/support", "README.md"))
    data = card.data.to_dict()
    assert data["base_model"] == ["acme/base"]
    assert data["base_model_relation"] == "merge"
    assert data["license"] == "mit"
    assert data["pipeline_tag"] == "text-generation"
    assert data["library_name"] == "transformers"
    (index,) = data["model-index"]
    assert index["name"] == "support"
    (result,) = index["results"]
    assert result["dataset"]["name"] == "holdout of the search support"
    assert [metric["value"] for metric in result["metrics"]] == [0.33, 0.42, 0.09]
    assert "improved" in result["metrics"][2]["name"]
    assert 'pipeline("text-generation", model="acme/support")' in card.text
    assert "ztom serve hf://acme/support" in card.text
    assert "Verdict: **improved**" not in card.text  # the body is the variant's own card


def test_base_models_are_those_of_the_recipe(hub: Hub, variant: Path, tmp_path: Path) -> None:
    members = tuple(
        member.model_copy(update={"reference": f"hf://acme/{name}@{'a' * 40}"})
        for member, name in zip(read_recipe(variant).members, ("base", "week-1"), strict=True)
    )
    other = with_recipe(variant, tmp_path / "other", members=members)
    facts = push_variant(other, "acme/other").facts
    assert facts.base_models == ("acme/base", "acme/week-1")


def test_a_licence_of_the_latest_checkpoints_own_card(
    hub: Hub, variant: Path, tmp_path: Path
) -> None:
    latest = write_checkpoint(tmp_path / "latest")
    (latest / "README.md").write_text("---\nlicense: gemma\n---\nA model.\n")
    base = write_checkpoint(tmp_path / "base", llama_tensors(3))
    plain = write_blend(open_chain([base, latest]), (0.1,), tmp_path / "plain")
    assert push_variant(plain, "acme/plain").facts.license == "gemma"
    (latest / "README.md").write_text("A model.\n")
    bare = write_blend(open_chain([base, latest]), (0.2,), tmp_path / "bare")
    assert push_variant(bare, "acme/bare").facts.license is None
    assert push_variant(bare, "acme/said", license="apache-2.0").facts.license == "apache-2.0"


def test_a_push_is_one_commit_and_the_next_variant_the_next_one(
    hub: Hub, variant: Path, tmp_path: Path
) -> None:
    first = push_variant(variant, "acme/support")
    assert push_variant(variant, "acme/support").address == first.address  # nothing changed
    other = with_recipe(variant, tmp_path / "other", evidence=None)
    (other / "1_Pooling" / "config.json").unlink()
    (other / "manifest.json").unlink()
    (other / "manifest.sig").unlink(missing_ok=True)
    recipe = json.loads((other / "recipe.json").read_text())
    recipe["kept"].pop("1_Pooling/config.json")
    (other / "recipe.json").write_text(json.dumps(recipe))
    from ztom.variants.manifest import build_manifest

    manifest = build_manifest(other)
    (other / "manifest.json").write_bytes(manifest.to_bytes())
    second = push_variant(other, "acme/support")
    assert second.address != first.address
    commits = hub.repos["models", "acme/support"].commits
    assert len(commits) == 3  # of the repository itself, and two variants
    assert "1_Pooling/config.json" not in commits[str(second.address.revision)]
    assert verify_manifest(local_variant(str(first.address))).digest == first.digest
    assert verify_manifest(local_variant("hf://acme/support")).digest == second.digest


def test_a_private_repository(hub: Hub, variant: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push_variant(variant, "acme/secret", private=True)
    assert hub.repos["models", "acme/secret"].private
    push_variant(variant, "acme/open")
    with pytest.raises(ConfigError, match="acme/open is public"):
        push_variant(variant, "acme/open", private=True)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(StorageError, match=r"401.*hf auth login"):
        local_variant("hf://acme/secret")


def test_what_is_somebody_elses_is_not_written_over(
    hub: Hub, variant: Path, tmp_path: Path
) -> None:
    commit = hub.add("acme/base", {"config.json": b"{}", "model.safetensors": b"x"})
    with pytest.raises(ConfigError, match="something else, which is not written over: got config"):
        push_variant(variant, "acme/base")
    assert hub.repos["models", "acme/base"].refs["main"] == commit


def test_a_push_that_met_another_one_changes_nothing(
    hub: Hub, variant: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    plain: Any = HfApi.create_commit

    def late(self: HfApi, *args: Any, **kwargs: Any) -> Any:
        hub.repos["models", "acme/support"].commit({"note": b"x"})
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(HfApi, "create_commit", late)
    with pytest.raises(StorageError, match="412.*Somebody else wrote"):
        push_variant(variant, "acme/support")
    assert "manifest.json" not in str(hub.repos["models", "acme/support"].commits)


@pytest.mark.parametrize("token", [None, "hf_reader"])
def test_without_a_token_that_may_write(
    token: str | None, hub: Hub, variant: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", token) if token else monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(StorageError, match=r"401.*hf auth login"):
        push_variant(variant, "acme/support")


def test_offline_and_odd_names(hub: Hub, variant: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("support", "a/b/c", "acme/support@main", "https://huggingface.co/acme/support"):
        with pytest.raises(ConfigError, match="org/name"):
            push_variant(variant, name)
    with pytest.raises(ConfigError, match="--base-model"):
        push_variant(variant, "acme/support", base_model="./models/base")
    go_offline(monkeypatch)
    with pytest.raises(StorageError, match="the Hub cannot be reached.*HF_HUB_OFFLINE"):
        push_variant(variant, "acme/support")
    assert not hub.requests


def test_a_changed_file_is_not_let_be(hub: Hub, variant: Path, tmp_path: Path) -> None:
    push_variant(variant, "acme/support")
    repo = hub.repos["models", "acme/support"]
    weights = bytearray(repo.commits[repo.refs["main"]]["model.safetensors"])
    weights[-1] ^= 1
    repo.commit({"model.safetensors": bytes(weights)})
    with pytest.raises(VariantError, match="changed model.safetensors"):
        verify_manifest(local_variant("hf://acme/support"))
    repo.commit({"model.safetensors": bytes(weights), "handler.txt": b"extra"})
    with pytest.raises(VariantError, match="extra handler.txt"):
        verify_manifest(local_variant("hf://acme/support"))
    (variant / ".gitattributes").write_text("x")
    assert check_files(variant).tolerated == (".gitattributes",)
    (variant / "config.json").write_text("{}")
    with pytest.raises(VariantError, match="changed config.json"):
        verify_manifest(variant)
    with pytest.raises(VariantError, match="changed config.json"):
        push_variant(variant, "acme/changed")


def test_a_link_that_leads_elsewhere_is_no_file_of_a_variant(variant: Path, tmp_path: Path) -> None:
    (variant / "LICENSE").rename(tmp_path / "LICENSE")
    (variant / "LICENSE").symlink_to(tmp_path / "LICENSE")
    with pytest.raises(VariantError, match="is a link"):
        verify_manifest(variant)
