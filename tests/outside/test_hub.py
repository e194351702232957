"""Checkpoints from the Hub, from a Trainer and from pickles, by the commands of the wheel."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import TOKEN, Hub, hub_server
from installed import Installed
from safetensors.torch import load_file
from toys import make_plain_chain


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with hub_server() as hub:
        yield hub


@pytest.fixture
def variables(hub: Hub, tmp_path: Path) -> dict[str, str]:
    """What points huggingface_hub at the stand-in; its large files go by plain HTTP."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": TOKEN,
    }


def document(done: subprocess.CompletedProcess[str]) -> Mapping[str, Any]:
    assert done.returncode == 0, done.stderr
    content: Mapping[str, Any] = json.loads(done.stdout)
    return content


@pytest.mark.brings("registry", "models of the Hugging Face Hub", "a chain, pinned by commit")
@pytest.mark.brings(
    "registry", "a repository of your own on the Hub", "`ztom push` writes the variant with a card"
)
def test_a_chain_from_the_hub_goes_back_to_it(
    installed: Installed, hub: Hub, variables: dict[str, str], tmp_path: Path
) -> None:
    members = make_plain_chain(tmp_path / "models", members=2)
    commits = [
        hub.add_folder(f"acme/{name}", path) for name, path in zip("ab", members, strict=True)
    ]
    chain = tmp_path / "chain.yaml"
    chain.write_text("checkpoints: [acme/a, 'hf://acme/b@main']\n")
    options = {"env": variables, "cwd": tmp_path}
    blended = installed.run(
        "blend", chain, "--factors", "0.5", "--output", "mastered", "--json", **options
    )
    assert document(blended)["realised"] > 0.9
    recipe = json.loads((tmp_path / "mastered" / "recipe.json").read_text())
    assert [member["reference"] for member in recipe["members"]] == [
        f"hf://acme/{name}@{commit}" for name, commit in zip("ab", commits, strict=True)
    ]
    pushed = document(installed.run("push", "mastered", "acme/mastered", "--json", **options))
    assert pushed["base_model"] == ["acme/a", "acme/b"]
    checked = document(
        installed.run("verify", "hf://acme/mastered", "--share", "1", "--json", **options)
    )
    assert checked["variant"] == pushed["variant"]
    assert checked["rederived"] == checked["tensors"] > 0
    assert checked["tolerated"] == ["README.md (edited)"]


@pytest.mark.brings("checkpoint", "`pytorch_model.bin`", "`ztom convert` writes safetensors")
@pytest.mark.brings("checkpoint", "a Trainer's output folder", "`ztom chain` writes chain.yaml")
def test_old_weights_and_a_trainers_folder(
    installed: Installed, variables: dict[str, str], tmp_path: Path
) -> None:
    members = make_plain_chain(tmp_path / "run", members=2)
    steps = [tmp_path / "run" / f"checkpoint-{step}" for step in (90, 100)]
    for member, step in zip(members, steps, strict=True):
        member.rename(step)
        (step / "optimizer.pt").write_bytes(b"never read")
    tensors = load_file(steps[0] / "model.safetensors")
    (steps[0] / "model.safetensors").unlink()
    torch.save(tensors, steps[0] / "pytorch_model.bin")
    options = {"env": variables, "cwd": tmp_path}
    refused = installed.run("chain", "run", **options)
    assert refused.returncode != 0
    assert "ztom convert" in refused.stderr
    converted = document(installed.run("convert", steps[0], "checkpoint-90", "--json", **options))
    assert converted["tensors"] == len(tensors)
    (steps[0]).rename(tmp_path / "old")
    (tmp_path / "checkpoint-90").rename(steps[0])
    chain = document(installed.run("chain", "run", "--json", **options))
    assert [member["tag"] for member in chain["checkpoints"]] == ["checkpoint-90", "checkpoint-100"]
    assert chain["left_out"] == {"checkpoint-*/optimizer.pt": "a trainer's state"}


@pytest.mark.brings("registry", "no way to the Hub", "an error at once that says what to do")
def test_offline_is_said_at_once(
    installed: Installed, variables: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "chain.yaml").write_text("checkpoints: ['hf://acme/a', 'hf://acme/b']\n")
    offline = {**variables, "HF_HUB_OFFLINE": "1"}
    done = installed.run("inspect", "chain.yaml", env=offline, cwd=tmp_path, timeout_s=120)
    assert done.returncode != 0
    assert "HF_HUB_OFFLINE is set" in done.stderr
    assert "hf download" in done.stderr
